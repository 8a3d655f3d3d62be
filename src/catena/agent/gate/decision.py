"""May this be started? The rooms of ``containers``, asked in order about one container.

A container, restored or not:

1. the policy in force; 2. its configuration, read strictly; 3. its files are those of a known image;
4. a publisher who may publish in one of the image's repositories signed the image;
5. the launch is one that the image's launch policy allows.

If the files are those of several images, or the image has several names, one of them has to pass 4 and 5.
A command in a running container: 1, 4 for the image that the container was created from, and 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from catena.agent.gate.images import Images, Runnable
from catena.agent.gate.judge import Allowed
from catena.agent.gate.policy import PolicyFile
from catena.agent.gate.process import read_document
from catena.containers.launch.check import check_create, check_exec, check_restore
from catena.containers.launch.refusals import LaunchRefused
from catena.containers.record.commitment import commitments
from catena.containers.rootfs.identity import RootIdentity, RootRefused
from catena.containers.signature.policy import CompiledPolicy
from catena.errors import CatenaError
from catena.formats.containerlog import Create, Exec, Launch
from catena.formats.runtime import Process, RuntimeConfig, parse_config, parse_process, private_copy
from catena.ids import ImageDigest

_CONFIG = "config.json"


class NoRootFileSystem(RootRefused):
    """A configuration without a root, or an image that no store has a name for."""

    code = "root-missing"
    remedy = "Give the container a root file system."


class NamelessImage(RootRefused):
    """The files are known, but no store says as which repository's image."""

    code = "image-nameless"
    remedy = "Store the image under its whole name: `catena container fetch registry/name:tag`."


@dataclass(frozen=True, slots=True)
class Decision:
    """The ``Judge`` that decides. ``key`` makes commitments. Safe for threads."""

    images: Images
    policy_file: PolicyFile
    key: bytes
    now: Callable[[], datetime]

    def create(self, bundle: Path, container: str, *, restore: bool) -> Allowed[Create]:
        """A container; see the module. Raises what the steps raise."""
        policy = self.policy_file.current()  # (1)
        place = bundle.resolve()
        document = private_copy(read_document(place / _CONFIG), place)  # (2)
        config = parse_config(document)
        identity = self._identity(config)  # (3)
        runnable = self._first(identity, config, policy, restore=restore)  # (4), (5)
        verified = runnable.verified
        event = Create(
            at=self.now(),
            container=container,
            sandbox=config.sandbox,
            image=verified.image,
            repository=verified.repository,
            publisher=verified.publisher,
            signature=verified.format.value,
            root=identity.tree,
            policy=policy.digest,
            launch_policy=runnable.launch_digest,
            launch=self._told(config.started, document, config.mount_texts),
        )
        return Allowed(event, document)

    def exec(self, process: bytes, created: Create) -> Allowed[Exec]:
        """A command in a container that the gate allowed. Raises what the steps raise."""
        policy = self.policy_file.current()
        asked = parse_process(process)
        image = ImageDigest(created.image)
        runnable = self.images.runnable(image, created.repository, policy)
        check_exec(asked, runnable.launch, runnable.config)
        event = Exec(
            at=self.now(),
            container=created.container,
            image=image,
            policy=policy.digest,
            launch=self._told(asked, process, ()),
        )
        return Allowed(event, process)

    def policy(self) -> str:
        """The digest of the policy that decided last, or nothing."""
        return self.policy_file.digest()

    def _identity(self, config: RuntimeConfig) -> RootIdentity:
        if config.root is None:
            raise NoRootFileSystem("the configuration has no root")
        mounts = tuple(one.destination for one in config.mounts or ())
        return self.images.identify(Path(config.root.path), mounts)

    def _first(
        self,
        identity: RootIdentity,
        config: RuntimeConfig,
        policy: CompiledPolicy,
        *,
        restore: bool,
    ) -> Runnable:
        """The first image and name under which the launch is allowed; else the refusal that came furthest."""
        refused: CatenaError = NamelessImage("no store has a name for the image")
        for image, repository in self._candidates(identity):
            try:
                runnable = self.images.runnable(image, repository, policy)
                check_create(config, runnable.launch, runnable.config)
                if restore:
                    check_restore(runnable.launch)
            except CatenaError as error:
                refused = max(refused, error, key=_reached)
            else:
                return runnable
        raise refused

    def _candidates(self, identity: RootIdentity) -> Iterator[tuple[ImageDigest, str]]:
        for image in identity.images:
            for repository in self.images.stores.repositories(image):
                yield image, repository

    def _told(self, process: Process, document: bytes, mounts: tuple[str, ...]) -> Launch:
        """The launch as the record has it: no value of the environment."""
        return Launch(
            argv=process.argv,
            argv_total=len(process.argv),
            user=process.user_text,
            env=commitments(self.key, process.env or ()),
            mounts=mounts,
            capabilities=process.capability_names,
            config=self._digest(document),
        )

    def _digest(self, document: bytes) -> str:
        """SHA-256 of a document whose environments hold commitments instead of values.

        Over the values themselves it would let anybody try out what a short secret might be.
        """
        content = msgspec.json.decode(document)
        for holder in _environments(content):
            holder["env"] = commitments(self.key, holder["env"])
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _environments(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything with an environment: the process (or the document, if it is one), and hooks."""
    hooks = (one for kind in (content.get("hooks") or {}).values() for one in kind or ())
    for holder in (content, content.get("process") or {}, *hooks):
        if holder.get("env"):
            yield holder


def _reached(error: CatenaError) -> int:
    """How many steps lie behind a refusal."""
    if isinstance(error, NamelessImage):
        return 0
    return 2 if isinstance(error, LaunchRefused) else 1
