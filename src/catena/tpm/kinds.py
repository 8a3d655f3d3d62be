"""Which endorsement and attestation key a node uses, by algorithm and size.

A node is named after its EK, so the choice is part of its identity. ``auto`` takes the first EK, in
the order below, that the vendor certified in this TPM, and the first if there is none.

==============  ==========  ======================  =========  ================================
name            template    certificate (NV index)  EK's name  AK
==============  ==========  ======================  =========  ================================
``rsa-2048``    L-1         0x01C00002              SHA-256    RSASSA, SHA-256
``ecc-p256``    L-2         0x01C0000A              SHA-256    ECDSA, SHA-256
``ecc-p384``    H-3         0x01C00016              SHA-384    ECDSA, SHA-384
``rsa-3072``    H-6         0x01C0001C              SHA-384    RSASSA, SHA-384
==============  ==========  ======================  =========  ================================

TCG EK Credential Profile 2.5, 2.2.1.4 and 2.2.1.5; Annex B.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from catena.ids import HashAlg


class KeyKind(StrEnum):
    """An algorithm and a size."""

    RSA_2048 = "rsa-2048"
    ECC_P256 = "ecc-p256"
    ECC_P384 = "ecc-p384"
    RSA_3072 = "rsa-3072"

    @property
    def certificate(self) -> int:
        """The NV index of such an EK's certificate."""
        return _INDICES[self]

    @property
    def hash(self) -> HashAlg:
        """The hash of its name, and of what such an AK signs."""
        return HashAlg.SHA384 if self.is_high else HashAlg.SHA256

    @property
    def is_high(self) -> bool:
        """Whether the EK's template is one of the high range: another policy, stronger algorithms."""
        return self in {KeyKind.ECC_P384, KeyKind.RSA_3072}


_INDICES = {
    KeyKind.RSA_2048: 0x01C00002,
    KeyKind.ECC_P256: 0x01C0000A,
    KeyKind.ECC_P384: 0x01C00016,
    KeyKind.RSA_3072: 0x01C0001C,
}


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """A node's choice; ``endorsement`` None is ``auto``.

    ``individual`` is at most 32 bytes that go into both templates' ``unique``: the same TPM has
    other keys for each. A machine has none; simulated nodes that share a TPM differ in it.
    """

    endorsement: KeyKind | None = None
    attestation: KeyKind = KeyKind.ECC_P256
    individual: bytes = b""
