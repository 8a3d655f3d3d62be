"""Named tolerances: what vendors got wrong in certificates that are burnt into chips.

A certificate is judged strictly. What is put up with has a name, a reason and the issuers it is
limited to; whatever is used is told (``Endorsement.tolerances``) and is a fact for policies. No
tolerance lets anything pass that a signature does not cover: each is about the form of bytes that
an accepted root vouches for, and each form has one reading only.

=======================  ====================================================================
``nv-padding``           0x00 or 0xFF behind the certificate, up to the size of the NV index;
                         dropped, for it is no part of the certificate (ST33 pads to 1600 bytes)
``set-order``            attributes of a SET not in DER's order; read in the order they have
                         (Nuvoton: issuer, and the TPM's attributes)
``serial-encoding``      serial number below 1 or with superfluous leading bytes; its value
                         counts (STMicroelectronics)
``oaep-label``           an RSA key labelled id-RSAES-OAEP; its numbers count (Infineon,
                         STMicroelectronics)
``key-usage-absent``     no key usage in an EK certificate; its extended key usage says what it
                         is for (firmware TPMs of Intel and AMD)
``key-usage-other``      key usage for the other kind of key: key encipherment for ECC, key
                         agreement for RSA (firmware TPMs of Intel and AMD)
=======================  ====================================================================

What needs none: an EK certificate without authority key identifier (AMD) is linked by name and
signature; the chain of an on-die authority (Intel) is as long as ``MAX_INTERMEDIATES`` allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.appraise.certificate import Certificate, Malformation
from catena.appraise.endorsement_refusal import MalformedEkCertificate

KEY_USAGE_ABSENT = "key-usage-absent"
KEY_USAGE_OTHER = "key-usage-other"

_FIRMWARE_TPMS = ("Intel", "AMD", "Advanced Micro Devices")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``issuers`` are words of the issuer's name, one of which must be there; none: any issuer."""

    name: str
    what: str
    issuers: tuple[str, ...] = ()

    def covers(self, certificate: Certificate) -> bool:
        """Whether it applies to what this certificate's issuer makes."""
        if not self.issuers:
            return True
        told = [one.text.casefold() for one in certificate.issuer_name]
        return any(word.casefold() in text for word in self.issuers for text in told)


TOLERANCES = {
    tolerance.name: tolerance
    for tolerance in (
        Tolerance(Malformation.NV_PADDING, "padding behind the certificate"),
        Tolerance(Malformation.SET_ORDER, "attributes out of DER's order", ("Nuvoton",)),
        Tolerance(
            Malformation.SERIAL_ENCODING,
            "a serial number that is not positive, or padded",
            ("STMicroelectronics",),
        ),
        Tolerance(
            Malformation.OAEP_LABEL,
            "an RSA key labelled id-RSAES-OAEP",
            ("Infineon", "STMicroelectronics"),
        ),
        Tolerance(KEY_USAGE_ABSENT, "no key usage", _FIRMWARE_TPMS),
        Tolerance(KEY_USAGE_OTHER, "the key usage of another kind of key", _FIRMWARE_TPMS),
    )
}


def tolerated(certificate: Certificate) -> tuple[str, ...]:
    """The tolerances that this certificate's encoding needs. Raises ``MalformedEkCertificate``."""
    for malformation in certificate.malformations:
        tolerance = TOLERANCES[malformation]
        if not tolerance.covers(certificate):
            raise MalformedEkCertificate(
                f"a certificate has {tolerance.what}",
                expected=f"that of {' or '.join(tolerance.issuers)} only",
                got=certificate.issuer_text[:80],
            )
    return tuple(certificate.malformations)
