"""An NV index for container records, as a software TPM (swtpm) tells it, for ``test_tpm2nv``."""

from __future__ import annotations

# TPM2_NV_ReadPublic of index 0x01800f00, sealed by PCR 15, without TPMA_NV_WRITTEN.
PUBLIC = bytes.fromhex(
    "01800f00000b0e0600480020fc96b174047787151cdae4a9ac012c37dc8ce403454b9cd47941f9e3ede6eee20020"
)
NAME = bytes.fromhex("000bb279f125c9a6b0b51ebaf5796e448930ab8cee58e67c2f1d9d26bc09ad8e20ea")
VALUE = bytes.fromhex("e16646ae6fe1b455c9108d0aa3ea3b32956a8a563e8539a84d372005bb05cbe9")
# TPM2_NV_Certify by the attestation key; qualifying data is "nonce".
CERTIFIED = bytes.fromhex(
    "ff54434780140022000b1bd21a71a3d1a4cae7f08f6161536b07efc731adfba01d9bab36960dc21ac2250005"
    "6e6f6e6365000000000000029200000002000000000120191023001636360022000bb279f125c9a6b0b51eba"
    "f5796e448930ab8cee58e67c2f1d9d26bc09ad8e20ea00000020e16646ae6fe1b455c9108d0aa3ea3b32956a"
    "8a563e8539a84d372005bb05cbe9"
)
