"""Container policies as people write them: JSON or TOML, with keys in files beside it.

Where a policy has a PEM or OpenPGP text, ``file:NAME`` stands for the content of that file, relative to
the policy's folder. The document that is signed, and whose digest names the policy, holds the contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from catena.containers.signature.policy import BadContainerPolicy, CompiledPolicy, compile_policy
from catena.errors import FormatError
from catena.formats import dsse
from catena.formats.containerpolicy import CertificateIdentity, ContainerPolicy, Publisher
from catena.formats.dsse import Subject
from catena.keys.documents import open_document, seal_document
from catena.keys.envelope import NoTrustedKeys
from catena.keys.signer import PublicKey, Signer

MAX_POLICY = 4 * 1024 * 1024
MAX_KEY_FILE = 256 * 1024
_FILE = "file:"
_TOML = ".toml"


def load_policy(path: Path, keys: Sequence[PublicKey] = ()) -> CompiledPolicy:
    """Read a policy: with ``keys`` a signed one, and only that; without, one as people write it.

    Raises ``BadContainerPolicy``, what ``open_document`` raises, or ``OSError``.
    """
    content = _content(path, MAX_POLICY)
    if keys:
        return compile_policy(open_document(content, keys, ContainerPolicy))
    if _is_envelope(content):
        raise NoTrustedKeys("policy is signed, and no key is given to verify it with")
    return compile_policy(_expanded(_decoded(content, path), path.parent))


def seal_policy(policy: CompiledPolicy, signer: Signer) -> bytes:
    """The policy as a signed envelope; its subject is the document, by its digest."""
    subject = Subject(name=policy.document.name, digest={"sha256": policy.digest})
    return seal_document(policy.document, [subject], signer)


def _is_envelope(content: bytes) -> bool:
    try:
        dsse.parse(content)
    except FormatError:
        return False
    return True


def _decoded(content: bytes, path: Path) -> ContainerPolicy:
    try:
        if path.suffix == _TOML:
            return msgspec.toml.decode(content, type=ContainerPolicy)
        return msgspec.json.decode(content, type=ContainerPolicy)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadContainerPolicy(f"not a container policy: {str(error)[:300]}") from error


def _expanded(document: ContainerPolicy, folder: Path) -> ContainerPolicy:
    publishers = tuple(_with_contents(one, folder) for one in document.publishers)
    return msgspec.structs.replace(document, publishers=publishers)


def _with_contents(publisher: Publisher, folder: Path) -> Publisher:
    def read(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(_text(one, folder) for one in texts)

    def certified(one: CertificateIdentity) -> CertificateIdentity:
        return msgspec.structs.replace(one, roots=read(one.roots), logs=read(one.logs))

    return msgspec.structs.replace(
        publisher,
        keys=read(publisher.keys),
        openpgp=read(publisher.openpgp),
        identities=tuple(map(certified, publisher.identities)),
    )


def _text(value: str, folder: Path) -> str:
    if not value.startswith(_FILE):
        return value
    path = folder / value.removeprefix(_FILE)
    try:
        return _content(path, MAX_KEY_FILE).decode()
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise BadContainerPolicy(f"cannot read the key file {path.name}") from error


def _content(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FormatError(f"{path.name} is too large", expected=f"at most {limit} bytes")
    return content
