"""Launch policies as signed documents: sealing, opening, and the one that catena ships.

Opening, step by step: 1. a trusted key signed the envelope; 2. it is an in-toto Statement with the
predicate type of launch policies; 3. one of its subjects is the image, by digest; 4. the predicate is
a launch policy; 5. its rules can be applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

import msgspec

from catena.containers.launch.refusals import UnusableLaunchPolicy, WrongImage, shown
from catena.containers.launch.rules import compile_launch
from catena.errors import FormatError
from catena.formats.dsse import Statement, Subject
from catena.formats.launchpolicy import LAUNCH_POLICY_TYPE, LaunchPolicy
from catena.formats.references import parse_predicate
from catena.ids import ImageDigest, Sha256Hex
from catena.keys.envelope import WrongPayloadType, open_envelope, seal
from catena.keys.signer import PublicKey, Signer

MAX_POLICY = 1024 * 1024
_MAX_SUBJECTS = 64


def open_launch_policy(
    envelope: bytes, keys: Sequence[PublicKey], image: ImageDigest
) -> tuple[LaunchPolicy, Sha256Hex]:
    """The policy that one of ``keys`` signed for ``image``, and its digest.

    Raises the errors of ``keys.envelope.open_envelope``, ``WrongPayloadType``, ``WrongImage``,
    ``UnusableLaunchPolicy`` or ``FormatError``.
    """
    statement = open_envelope(envelope, keys)  # (1)
    if statement.predicate_type != LAUNCH_POLICY_TYPE:  # (2)
        raise WrongPayloadType(
            "a signed document that is no launch policy",
            expected=LAUNCH_POLICY_TYPE,
            got=shown(statement.predicate_type),
        )
    _check_subject(statement, image)  # (3)
    policy = parse_predicate(statement.predicate, LaunchPolicy)  # (4)
    compile_launch(policy)  # (5)
    return policy, digest_of(policy)


def seal_launch_policy(
    signer: Signer, policy: LaunchPolicy, images: Sequence[ImageDigest]
) -> bytes:
    """An envelope around ``policy`` for ``images``. Raises ``UnusableLaunchPolicy``."""
    compile_launch(policy)
    statement = Statement(
        subject=tuple(Subject(name=image, digest=_digests(image)) for image in images),
        predicate_type=LAUNCH_POLICY_TYPE,
        predicate=msgspec.Raw(msgspec.json.encode(policy)),
    )
    return seal(signer, statement).encode()


def read_launch_policy(data: bytes) -> LaunchPolicy:
    """An unsigned policy document, as it is written by hand. Raises ``FormatError``, ``UnusableLaunchPolicy``."""
    if len(data) > MAX_POLICY:
        raise FormatError("launch policy is too large", expected=f"at most {MAX_POLICY}")
    policy = parse_predicate(data, LaunchPolicy)
    compile_launch(policy)
    return policy


def digest_of(policy: LaunchPolicy) -> Sha256Hex:
    """SHA-256 of the document in its compact form, which names it in records."""
    return Sha256Hex(hashlib.sha256(msgspec.json.encode(policy)).hexdigest())


@cache
def default_policy() -> LaunchPolicy:
    """What an ordinary container may do: for images without a policy, where no other is set."""
    file = resources.files("catena.containers.launch").joinpath("default_policy.json")
    return read_launch_policy(file.read_bytes())


def _check_subject(statement: Statement, image: ImageDigest) -> None:
    wanted = _digests(image)
    if len(statement.subject) > _MAX_SUBJECTS:
        raise FormatError("launch policy is for too many images", expected=f"{_MAX_SUBJECTS}")
    if not any(one.digest == wanted for one in statement.subject):
        raise WrongImage(
            "the launch policy is for another image",
            expected=image,
            got=shown(", ".join(one.name for one in statement.subject[:3])) or "nothing",
        )


def _digests(image: ImageDigest) -> dict[str, str]:
    """``sha256:hex`` of OCI and ``sha512-hex`` of an ACI as in-toto writes them."""
    algorithm, _, value = image.replace("-", ":", 1).partition(":")
    if algorithm not in {"sha256", "sha512"} or not value:
        raise UnusableLaunchPolicy("not the digest of an image", got=shown(image))
    return {algorithm: value}
