"""What the public area of an endorsement key must look like (TRUST, enrolment steps 1 and 6).

A node is named after its EK's public area. The EK certificate vouches only for the numbers of
the key, so without this check one TPM could present the same key under many attributes, and
enrol as many nodes. For each kind and size of key exactly one default template is accepted, in
its one encoding; the high-range templates of the same keys are not, for the same reason:

=====  ===========================================================================
L-1    RSA-2048: TCG EK Credential Profile 2.5, B.3.3: policy A, SHA-256
L-2    P-256: B.3.4: policy A, SHA-256
H-3    P-384: B.4.6: policy B, SHA-384, user authorisation as well
H-6    RSA-3072: B.4.9: policy B, SHA-384, user authorisation as well
=====  ===========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from catena.errors import Refusal
from catena.formats.tpm2 import Public, SymmetricDef, TpmAlg, TpmaObject, encode_public
from catena.ids import HashAlg


class UnknownEkTemplate(Refusal):
    """An EK public area that no default template makes: perhaps a second name for one TPM."""

    code = "ek-template"
    remedy = "Use an endorsement key made from a default template of the TCG EK profile."


@dataclass(frozen=True, slots=True)
class _Template:
    kind: Literal["rsa", "ecc"]
    key_bits: int
    name_alg: HashAlg
    attributes: TpmaObject
    auth_policy: bytes
    cipher_bits: int


_LOW = (
    TpmaObject.FIXED_TPM
    | TpmaObject.FIXED_PARENT
    | TpmaObject.SENSITIVE_DATA_ORIGIN
    | TpmaObject.ADMIN_WITH_POLICY
    | TpmaObject.RESTRICTED
    | TpmaObject.DECRYPT
)
_HIGH = _LOW | TpmaObject.USER_WITH_AUTH
_POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_POLICY_B_384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)

_TEMPLATES = (
    _Template("rsa", 2048, HashAlg.SHA256, _LOW, _POLICY_A, 128),
    _Template("ecc", 256, HashAlg.SHA256, _LOW, _POLICY_A, 128),
    _Template("ecc", 384, HashAlg.SHA384, _HIGH, _POLICY_B_384, 256),
    _Template("rsa", 3072, HashAlg.SHA384, _HIGH, _POLICY_B_384, 256),
)


def check_ek_template(public: Public) -> None:
    """Refuse an EK public area that is not exactly what a default template gives."""
    shape = _Template(
        public.kind,
        public.key_bits,
        public.name_alg,
        public.attributes,
        public.auth_policy,
        public.symmetric.key_bits if public.symmetric else 0,
    )
    if shape not in _TEMPLATES or public.scheme is not None:
        raise UnknownEkTemplate("the EK was not made from a default template")
    if public.symmetric != SymmetricDef(shape.cipher_bits, TpmAlg.CFB):
        raise UnknownEkTemplate("the EK protects its children with an unusual cipher mode")
    if encode_public(public) != public.raw or _has_short_point(public):
        raise UnknownEkTemplate("the EK's public area is not in its usual encoding")


def _has_short_point(public: Public) -> bool:
    """Coordinates are padded to the size of the curve (Part 1, C.8)."""
    size = public.curve.size if public.curve is not None else 0
    return len(public.x) != size or len(public.y) != size
