"""Why nobody that this server accepts vouches for a TPM: one class for each reason."""

from __future__ import annotations

from catena.errors import Refusal


class EndorsementRefusal(Refusal):
    """Nobody that this server accepts vouches for the TPM."""

    code = "endorsement-refused"
    remedy = "Import the TPM vendor's root (`catena endorsement import`), or pin this EK."


class MalformedEkCertificate(EndorsementRefusal):
    """A certificate that cannot be read at all, or whose faults no tolerance covers."""

    code = "ek-certificate-malformed"
    remedy = "Read the EK certificate again; if it is damaged in the TPM, pin this EK."


class NoEkCertificate(EndorsementRefusal):
    """No certificate was sent and the EK is not pinned."""

    code = "ek-certificate-missing"


class UntrustedEkIssuer(EndorsementRefusal):
    """No path of valid signatures leads to an accepted root."""

    code = "ek-issuer-untrusted"


class ExpiredEkCertificate(EndorsementRefusal):
    """A certificate of the path is expired or not yet valid."""

    code = "ek-certificate-expired"
    remedy = "Check the server's clock; ask the vendor for a new certificate, or pin this EK."


class MissingEkUsage(EndorsementRefusal):
    """Without extended key usage 2.23.133.8.1 this is some other certificate of that issuer."""

    code = "ek-usage-missing"


class EkUsageNotNested(EndorsementRefusal):
    """An issuer that is restricted to other extended key usages."""

    code = "ek-usage-not-nested"
    remedy = "Import the authority of this vendor that issues EK certificates, not another one."


class WrongEkKeyUsage(EndorsementRefusal):
    """Key usage that does not suit the certificate's place in the path."""

    code = "ek-key-usage"


class EkPathTooLong(EndorsementRefusal):
    """More intermediate certificates than an issuer, or catena, allows."""

    code = "ek-path-too-long"


class EkPathSearchTooWide(EndorsementRefusal):
    """So many certificates could be issuers that looking for a path is not worth it."""

    code = "ek-path-search"
    remedy = "Let the node send its own chain only, and import each intermediate once."


class EkKeyMismatch(EndorsementRefusal):
    """The certificate is for another key than the EK that was sent."""

    code = "ek-key-mismatch"
    remedy = "Send the certificate that belongs to this EK; another TPM's proves nothing."


class UnknownCriticalExtension(EndorsementRefusal):
    """A critical extension whose meaning this verifier does not know (RFC 5280, 4.2)."""

    code = "ek-critical-extension"


class ConstrainedEkNames(EndorsementRefusal):
    """An issuer with name constraints: they are not judged, so nothing below it is accepted."""

    code = "ek-name-constraints"
    remedy = "Import an authority below the constrained one as a root, if it may vouch for TPMs."


class RevokedEkCertificate(EndorsementRefusal):
    """A certificate of the path is on its issuer's revocation list."""

    code = "ek-certificate-revoked"
    remedy = "The vendor no longer vouches for this TPM: replace it."


class StaleRevocationList(EndorsementRefusal):
    """The newest revocation list of an issuer is not current, so nobody knows what was revoked."""

    code = "ek-crl-stale"
    remedy = "Download the vendor's current CRL and import it, or withdraw the old one."


class ForeignRevocationList(EndorsementRefusal):
    """Revocation lists in an issuer's name, none of which its key signed."""

    code = "ek-crl-foreign"
    remedy = "Import the CRL that this issuer's key signed, or withdraw the other one."
