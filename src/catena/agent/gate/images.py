"""Images that may run, as far as they are known: their files, who signed them, how they may start.

What was verified is remembered only as long as it cannot have changed: for one version of the
policy, one state of the stores, and only where time changes nothing. A certificate or an OpenPGP key
ends, so signatures by those are verified at every start.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from catena.agent.events import Emit
from catena.agent.gate.stores import Stamp, Stores
from catena.containers.launch.document import default_policy, digest_of, open_launch_policy
from catena.containers.launch.image import image_config_of
from catena.containers.launch.rules import CompiledLaunch, compile_launch
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.identification import identify
from catena.containers.rootfs.identity import RootIdentity, RootRefused
from catena.containers.signature.policy import CompiledPolicy
from catena.containers.signature.result import SignatureFormat, SignatureRefused, VerifiedImage
from catena.containers.signature.verify import verify_image
from catena.errors import CatenaError
from catena.formats import imageconfig
from catena.formats.imageconfig import ImageConfig
from catena.formats.launchpolicy import LaunchPolicy
from catena.ids import ImageDigest, Sha256Hex

_REMEMBERED = 4096
_TIMELESS = frozenset({SignatureFormat.COSIGN, SignatureFormat.COSIGN_BUNDLE})
_MOUNTINFO = Path("/proc/self/mountinfo")


class NoLaunchPolicy(SignatureRefused):
    """The scope wants a launch policy by the publisher, and the image has none."""

    code = "launch-policy-missing"
    remedy = "Have the publisher attach one: `catena container policy generate`, then sign it."


@dataclass(frozen=True, slots=True)
class Runnable:
    """An image that may run, and how: by its publisher's launch policy, or the one for all others."""

    verified: VerifiedImage
    launch: CompiledLaunch
    launch_digest: Sha256Hex
    config: ImageConfig


@dataclass(slots=True)
class Images:
    """What is known of the images in the stores. Safe for threads.

    Catalog and fingerprints do not depend on the policy: they say what files are, and notice by
    themselves when files change.
    """

    stores: Stores
    catalog: Catalog
    emit: Emit
    now: Callable[[], datetime]
    strict: bool
    _prints: Fingerprints = field(default_factory=Fingerprints)
    _known: set[ImageDigest] = field(default_factory=set)
    _stamp: Stamp | None = None
    _rounds: int = 0
    """How often the stores were read."""
    _learning: threading.Lock = field(default_factory=threading.Lock)
    """Held while new images are read; only a start that needs one of them waits for it."""
    _verified: OrderedDict[tuple[object, ...], Runnable] = field(default_factory=OrderedDict)
    _remembering: threading.Lock = field(default_factory=threading.Lock)

    def learn(self) -> None:
        """Read the images that are new in the stores, and forget those that left.

        An image that cannot be read is reported, and tried again when the stores change.
        """
        with self._learning:
            stamp = self.stores.stamp()
            if stamp != self._stamp:
                self._read(set(self.stores.images()))
                self._stamp = stamp
                self._rounds += 1

    def identify(self, root: Path, mounts: tuple[str, ...]) -> RootIdentity:
        """Which images the files at ``root`` are. Raises a ``RootRefused``.

        Only for files of no known image the stores are read: others do not wait for that.
        """
        rounds = self._rounds
        try:
            return self._identify(root, mounts)
        except RootRefused:
            self.learn()
            if rounds == self._rounds:
                raise
        return self._identify(root, mounts)

    def _identify(self, root: Path, mounts: tuple[str, ...]) -> RootIdentity:
        return identify(
            root,
            mountinfo=_MOUNTINFO.read_text(),
            catalog=self.catalog,
            cache=self._prints,
            strict=self.strict,
            mounts=mounts,
        )

    def runnable(self, image: ImageDigest, repository: str, policy: CompiledPolicy) -> Runnable:
        """The image as one of ``repository``, under this policy, now.

        Raises a ``SignatureRefused``, ``NoLaunchPolicy``, or what reading it raises.
        """
        question = (policy.digest, self.stores.stamp(), image, repository)
        with self._remembering:
            known = self._verified.get(question)
        if known is None:
            known = self._judged(image, repository, policy)
            if known.verified.format in _TIMELESS and not known.verified.identity:
                self._remember(question, known)
        return known

    def _read(self, images: set[ImageDigest]) -> None:
        for image in self._known - images:
            self.catalog.forget(image)
        self._known &= images
        for image in sorted(images - self._known):
            try:
                self.catalog.add(image)
            except CatenaError as error:
                self.emit("image-unreadable", image=image, code=error.code, message=str(error))
            else:
                self._known.add(image)

    def _remember(self, question: tuple[object, ...], known: Runnable) -> None:
        with self._remembering:
            self._verified[question] = known
            while len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)

    def _judged(self, image: ImageDigest, repository: str, policy: CompiledPolicy) -> Runnable:
        verified = verify_image(self.stores, image, repository, policy, self.now())
        launch = self._launch(verified, policy)
        return Runnable(
            verified=verified,
            launch=compile_launch(launch),
            launch_digest=digest_of(launch),
            config=imageconfig.parse(image_config_of(self.stores.blobs, image)),
        )

    def _launch(self, verified: VerifiedImage, policy: CompiledPolicy) -> LaunchPolicy:
        """The newest launch policy that the image's publisher signed for it; else the policy's own."""
        own = max(self._signed(verified, policy), key=lambda one: one.version, default=None)
        if own is not None:
            return own
        scope = policy.scope_of(verified.repository)
        if scope is None or scope.rule.launch_required:
            raise NoLaunchPolicy(
                "image has no launch policy of its publisher", expected=verified.publisher
            )
        return policy.document.default_launch or default_policy()

    def _signed(self, verified: VerifiedImage, policy: CompiledPolicy) -> Iterator[LaunchPolicy]:
        keys = [key.public for key in policy.publishers[verified.publisher].keys]
        for subject in filter(None, (verified.image, verified.index)):
            for envelope in self.stores.launch_policies(ImageDigest(subject)):
                try:
                    yield open_launch_policy(envelope, keys, ImageDigest(subject))[0]
                except CatenaError as error:
                    self.emit("launch-policy-ignored", image=subject, code=error.code)
