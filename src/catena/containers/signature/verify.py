"""The one verifier of image signatures, whatever their format.

``verify_image`` proves, in this order:

1. the policy has a scope for the repository; the longest that matches applies, alone;
2. somebody stored a signature in a format that the scope accepts;
3. a publisher of the scope made it, and it covers exactly this image, or an index that lists it;
4. the repository and tag that the signature names are those that are run; a signature that names none
   is by a key that serves this scope only;
5. it is not older than the scope allows, and not from the future.

One signature that holds is enough. What is *not* proven: that the image is the newest one the
publisher signed, beyond the scope's minimum; and, for a signature that names no repository, which of the
repositories of its scope it was meant for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from catena.containers.images.source import (
    COSIGN_PAYLOAD,
    SIGSTORE_BUNDLE,
    ImageSource,
    SignatureArtifact,
)
from catena.containers.signature import bundle, cosign
from catena.containers.signature.policy import CompiledPolicy, CompiledScope, PublisherKeys
from catena.containers.signature.proof import Proof
from catena.containers.signature.refusals import (
    FutureSignature,
    MalformedSignature,
    NoScope,
    NoTime,
    NoVersion,
    OlderSignature,
    OlderVersion,
    OtherPublisher,
    OtherRepository,
    OtherTag,
    RepositoryUnclaimed,
    Unsigned,
    WrongFormat,
    reached_by,
)
from catena.containers.signature.result import SignatureFormat, SignatureRefused, VerifiedImage
from catena.containers.signature.version import parse_version
from catena.errors import CatenaError, FormatError
from catena.formats import oci
from catena.formats.oci import Reference
from catena.ids import ImageDigest

Verify = Callable[[SignatureArtifact, ImageDigest, PublisherKeys, datetime], Proof]

CLOCK_SKEW = timedelta(minutes=5)
"""How far a publisher's clock may be ahead of this one."""


@dataclass(frozen=True, slots=True)
class Format:
    """How signatures of one media type are verified, and what they are called."""

    name: SignatureFormat
    verify: Verify


FORMATS: Mapping[str, Format] = {
    COSIGN_PAYLOAD: Format(SignatureFormat.COSIGN, cosign.verify),
    SIGSTORE_BUNDLE: Format(SignatureFormat.COSIGN_BUNDLE, bundle.verify),
}
"""By media type of the artifact."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of every signature. ``signed`` is the image, or an index that lists it."""

    image: ImageDigest
    signed: ImageDigest
    wanted: Reference
    scope: CompiledScope
    policy: CompiledPolicy
    now: datetime


def verify_image(
    source: ImageSource,
    image: ImageDigest,
    repository: str,
    policy: CompiledPolicy,
    now: datetime,
) -> VerifiedImage:
    """Prove that ``image`` may run as ``repository``, ``registry/name`` or ``registry/name:tag``.

    Raises a ``SignatureRefused`` (``signature.refusals``), or ``FormatError`` for a repository
    that is no name.
    """
    wanted = oci.parse_reference(repository)
    scope = policy.scope_of(wanted.repository)
    if scope is None:  # (1)
        raise NoScope("policy has no scope for the repository", got=wanted.repository)
    refused: SignatureRefused = Unsigned("image has no signature", got=image)
    for signed in (image, *_indexes(source, image)):
        asked = _Question(image, signed, wanted, scope, policy, now)
        for outcome in _outcomes(source.signature_manifests(signed), asked):
            if isinstance(outcome, VerifiedImage):
                return outcome
            refused = max(refused, outcome, key=reached_by)
    raise refused


def _indexes(source: ImageSource, image: ImageDigest) -> Iterator[ImageDigest]:
    """Indexes that really list the image: the source's word is only a hint."""
    for digest in source.indexes(image):
        listed = oci.parse_index(source.blobs.read(digest, oci.MAX_MANIFEST)).manifests
        if any(one.digest == image for one in listed):
            yield digest


def _outcomes(
    artifacts: Iterable[SignatureArtifact], asked: _Question
) -> Iterator[VerifiedImage | SignatureRefused]:
    for artifact in artifacts:
        known = FORMATS.get(artifact.media_type)
        if known is None or known.name not in asked.scope.formats:  # (2)
            yield WrongFormat(
                "signature is in a format that the scope does not accept",
                expected=", ".join(sorted(asked.scope.formats)),
                got=known.name if known else ascii(artifact.media_type[:80]),
            )
            continue
        try:
            yield _verified(known, artifact, asked)
        except SignatureRefused as error:
            yield error
        except CatenaError as error:
            malformed = MalformedSignature(error.message, expected=error.expected, got=error.got)
            malformed.__cause__ = error
            yield malformed


def _verified(known: Format, artifact: SignatureArtifact, asked: _Question) -> VerifiedImage:
    publisher, proof = _proof(known, artifact, asked)  # (3)
    claimed = _check_claim(publisher, proof, artifact, asked)  # (4)
    _check_age(proof, asked)  # (5)
    return VerifiedImage(
        image=asked.image,
        repository=asked.wanted.repository,
        publisher=publisher.name,
        format=proof.format,
        claimed_repository=claimed,
        key=proof.key,
        identity=proof.identity,
        version=proof.version,
        signed_at=proof.signed_at,
        scope=asked.scope.rule.repository,
        policy=asked.policy.digest,
        index=asked.signed if asked.signed != asked.image else "",
    )


def _proof(
    known: Format, artifact: SignatureArtifact, asked: _Question
) -> tuple[PublisherKeys, Proof]:
    """Which publisher of the scope signed. What the nearest refusal says, if none did."""
    refused: SignatureRefused | None = None
    for publisher in asked.scope.publishers:
        try:
            return publisher, known.verify(artifact, asked.signed, publisher, asked.now)
        except SignatureRefused as error:
            refused = error if refused is None else max(refused, error, key=reached_by)
    if isinstance(refused, OtherPublisher):
        raise OtherPublisher(
            "image is signed by nobody who may publish here",
            expected=", ".join(one.name for one in asked.scope.publishers)[:200],
            got=_stranger(known, artifact, asked) or "nobody whom the policy knows",
        )
    assert refused is not None  # noqa: S101  a scope has at least one publisher
    raise refused


def _stranger(known: Format, artifact: SignatureArtifact, asked: _Question) -> str:
    """Who else of the policy signed it: only for the message."""
    here = {one.name for one in asked.scope.publishers}
    for publisher in asked.policy.publishers.values():
        if publisher.name not in here and _signs(known, artifact, publisher, asked):
            return publisher.name
    return ""


def _signs(
    known: Format, artifact: SignatureArtifact, publisher: PublisherKeys, asked: _Question
) -> bool:
    try:
        known.verify(artifact, asked.signed, publisher, asked.now)
    except CatenaError:
        return False
    return True


def _check_claim(
    publisher: PublisherKeys, proof: Proof, artifact: SignatureArtifact, asked: _Question
) -> str:
    """The repository that the signature names, or empty where a key is bound to the scope."""
    if not proof.claim:
        _check_bound(publisher, proof, artifact, asked)
        return ""
    claim = oci.parse_reference(proof.claim)
    if claim.repository != asked.wanted.repository:
        raise OtherRepository(
            "image is signed for another repository",
            expected=asked.wanted.repository,
            got=claim.repository,
        )
    if claim.tag and asked.wanted.tag and claim.tag != asked.wanted.tag:
        raise OtherTag(
            "image is signed under another tag", expected=asked.wanted.tag, got=claim.tag
        )
    return claim.repository


def _check_bound(
    publisher: PublisherKeys, proof: Proof, artifact: SignatureArtifact, asked: _Question
) -> None:
    """Without a claim nothing but the key says what it was meant for."""
    serves = set(asked.policy.scopes_of(publisher.name, proof.format))
    if proof.identity:  # two rules may describe one certificate; two keys are never the same
        known = FORMATS[artifact.media_type]
        for other in asked.policy.publishers.values():
            scopes = asked.policy.scopes_of(other.name, proof.format)
            if not scopes <= serves and _signs(known, artifact, other, asked):
                serves |= scopes
    if len(serves) > 1:
        raise RepositoryUnclaimed(
            "signature names no repository, and its key serves several scopes",
            expected=asked.scope.rule.repository,
            got=", ".join(sorted(serves))[:200],
        )


def _check_age(proof: Proof, asked: _Question) -> None:
    rule, least = asked.scope.rule, asked.scope.min_version
    if proof.signed_at is not None and proof.signed_at > asked.now + CLOCK_SKEW:
        raise FutureSignature(
            "signature is from the future",
            expected=f"before {asked.now.isoformat()}",
            got=proof.signed_at.isoformat(),
        )
    if least is not None:
        _check_version(proof.version, least.text, asked)
    if rule.not_before is not None:
        if proof.signed_at is None:
            raise NoTime("signature states no time", expected=f"{rule.not_before.isoformat()}")
        if proof.signed_at < rule.not_before:
            raise OlderSignature(
                "signature is older than the scope accepts",
                expected=f"since {rule.not_before.isoformat()}",
                got=proof.signed_at.isoformat(),
            )


def _check_version(stated: str, least: str, asked: _Question) -> None:
    try:
        version = parse_version(stated)
    except FormatError as error:
        raise NoVersion(
            "signature states no version that can be compared", expected=least, got=error.got
        ) from error
    if asked.scope.min_version is not None and version < asked.scope.min_version:
        raise OlderVersion(
            "image is older than the scope accepts", expected=f"{least} or newer", got=stated
        )
