"""Why a signature does not let an image run: one error for each thing that can be wrong.

``reached`` orders them by how far the check came. Of several signatures that fail, the error of the
one that came furthest is reported, because it is about the one that was meant.
"""

from __future__ import annotations

from typing import ClassVar

from catena.containers.signature.result import SignatureRefused


class Unsigned(SignatureRefused):
    """Nothing that claims to be a signature of the image."""

    code = "image-unsigned"
    remedy = "Have the image signed by its publisher: `catena container sign IMAGE`."
    reached: ClassVar[int] = 0


class NoScope(SignatureRefused):
    """A repository about which the policy says nothing."""

    code = "repository-unknown"
    remedy = "Add a scope for the repository to the container policy, if it may run at all."
    reached: ClassVar[int] = 0


class WrongFormat(SignatureRefused):
    """Signatures there are, but none in a format that the scope accepts."""

    code = "wrong-signature-format"
    remedy = "Sign the image in a format that the policy's scope lists."
    reached: ClassVar[int] = 1


class MalformedSignature(SignatureRefused):
    """Something that claims to be a signature and cannot be read as one."""

    code = "signature-malformed"
    remedy = "Sign the image again; find out who stored this."
    reached: ClassVar[int] = 2


class NotAnImageSignature(SignatureRefused):
    """A good signature under something that does not sign an image, such as an attestation."""

    code = "not-an-image-signature"
    remedy = "Sign the image itself: a statement about it does not let it run."
    reached: ClassVar[int] = 3


class OtherPublisher(SignatureRefused):
    """Signed, but by nobody who may publish in this repository; or changed since."""

    code = "other-publisher"
    remedy = "Find out who signed the image; the policy's scope names who may."
    reached: ClassVar[int] = 4


class UntrustedCertificate(SignatureRefused):
    """A certificate that does not lead to a configured root."""

    code = "certificate-untrusted"
    remedy = "Have the image signed under a root that the policy lists."
    reached: ClassVar[int] = 5


class OtherIdentity(SignatureRefused):
    """A good certificate of somebody else."""

    code = "certificate-of-another"
    remedy = "Find out who signed the image; the policy lists the identities of its publisher."
    reached: ClassVar[int] = 6


class UnloggedSignature(SignatureRefused):
    """A certificate that counts only with a log's word for when it was used, and has none."""

    code = "signature-unlogged"
    remedy = "Sign again with the transparency log that the policy lists."
    reached: ClassVar[int] = 7


class CertificateNotValid(SignatureRefused):
    """A certificate that had run out, or did not count yet, at the time that can be proven."""

    code = "certificate-not-valid"
    remedy = "Sign again, or list the log's key in the policy so that the time of signing counts."
    reached: ClassVar[int] = 8


class ForgedByCertificate(SignatureRefused):
    """A publisher's certificate beside a signature that its key did not make."""

    code = "signature-forged"
    remedy = "Do not run the image; find out who stored this signature."
    reached: ClassVar[int] = 9


class OtherImage(SignatureRefused):
    """A publisher's signature of another image: the content was changed, or the signature moved."""

    code = "signature-of-another-image"
    remedy = "Fetch the image again; if it is still so, find out who changed it."
    reached: ClassVar[int] = 10


class OtherRepository(SignatureRefused):
    """A publisher's signature of this image for another repository."""

    code = "signed-for-another-repository"
    remedy = "Run the image from the repository that it was signed for, or have it signed for this."
    reached: ClassVar[int] = 11


class RepositoryUnclaimed(SignatureRefused):
    """A signature that names no repository, by a key that serves more than one scope."""

    code = "repository-unclaimed"
    remedy = (
        "Give the publisher a key for each scope, or sign in a format that names the repository."
    )
    reached: ClassVar[int] = 12


class OtherTag(SignatureRefused):
    """A publisher's signature of this image under another tag: the tag was moved."""

    code = "signed-for-another-tag"
    remedy = "Find out who moved the tag; the publisher did not sign the image under this one."
    reached: ClassVar[int] = 13


class NoVersion(SignatureRefused):
    """A scope with a minimum version, and a signature that states none."""

    code = "version-unsigned"
    remedy = "Sign with `--annotation org.opencontainers.image.version=…`."
    reached: ClassVar[int] = 14


class OlderVersion(SignatureRefused):
    """A good signature of a version that is not accepted any more."""

    code = "image-rollback"
    remedy = "Run a newer version; the policy's scope says which is the oldest."
    reached: ClassVar[int] = 15


class NoTime(SignatureRefused):
    """A scope with a minimum time, and a signature that states none."""

    code = "time-unsigned"
    remedy = "Sign with a time: `catena container sign` does; cosign needs an annotation."
    reached: ClassVar[int] = 14


class OlderSignature(SignatureRefused):
    """A good signature from before the time that the policy asks for."""

    code = "signature-rollback"
    remedy = "Run a newer image; the policy's scope says since when signatures count."
    reached: ClassVar[int] = 15


class FutureSignature(SignatureRefused):
    """A signature from a time that has not come yet."""

    code = "signature-from-the-future"
    remedy = "Set the clocks of this machine and of the publisher's right."
    reached: ClassVar[int] = 14


def reached_by(refused: SignatureRefused) -> int:
    """How far the check came that ended so."""
    return int(getattr(refused, "reached", 0))
