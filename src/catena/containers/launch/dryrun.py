"""What a launch policy would have refused of the launches that a record holds.

A record tells the command, user, capabilities, mounts and the *names* of variables. Values are kept as
commitments under a key that is gone, so a rule for a value cannot be tried; neither can what a
record does not hold (``NOT_RECORDED``), a command that was too long for it, or a word ``image:…``
without the image's configuration. All of this is listed, so that silence means "would be allowed".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache

import msgspec

from catena.containers.launch.check import (
    check_argv,
    check_capabilities,
    check_user,
)
from catena.containers.launch.mounts import check_mount
from catena.containers.launch.refusals import (
    ExecNotAllowed,
    LaunchArgv,
    LaunchEnv,
    LaunchRefused,
    shown,
)
from catena.containers.launch.rules import CompiledLaunch
from catena.errors import FormatError, NotFound
from catena.formats import imageconfig
from catena.formats.containerlog import ContainerEvent, Create, Exec
from catena.formats.imageconfig import ImageConfig
from catena.formats.runtime import parse_mount

NOT_RECORDED = (
    "working directory",
    "further groups",
    "namespaces",
    "devices",
    "hooks",
    "seccomp",
    "kernel paths",
    "sysctls",
    "no_new_privs",
    "writable root",
)

Images = Callable[[str], ImageConfig | None]
"""An image's configuration by its digest, if it is known."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a recorded launch would be refused. ``event`` counts from 0 in its record."""

    event: int
    at: datetime
    verb: str
    container: str
    image: str
    code: str
    reason: str


class Unchecked(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a launch that the record does not tell."""

    event: int
    container: str
    what: str


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The result over all records: ``launches`` were looked at, ``refused`` of them would fail."""

    policy: str
    launches: int
    refused: int
    findings: tuple[Finding, ...]
    not_checkable: tuple[Unchecked, ...]
    not_recorded: tuple[str, ...] = NOT_RECORDED


def images_of(read: Callable[[str], bytes]) -> Images:
    """Configurations as ``read`` finds them, each read once; those it has not are unknown."""

    @cache
    def find(digest: str) -> ImageConfig | None:
        try:
            return imageconfig.parse(read(digest))
        except NotFound:
            return None

    return find


def dry_run(
    events: Iterable[ContainerEvent], policy: CompiledLaunch, images: Images, only: str = ""
) -> DryRun:
    """Apply ``policy`` to recorded launches; to those of the image ``only``, if one is given."""
    findings: list[Finding] = []
    unchecked: list[Unchecked] = []
    launches = 0
    for number, event in enumerate(events):
        if not isinstance(event, Create | Exec) or (only and event.image != only):
            continue
        launches += 1
        for result in _judge(event, policy, images(event.image)):
            if isinstance(result, LaunchRefused):
                findings.append(_finding(number, event, result))
            else:
                unchecked.append(Unchecked(event=number, container=event.container, what=result))
    return DryRun(
        policy=f"{policy.document.name} {policy.document.version}",
        launches=launches,
        refused=len({one.event for one in findings}),
        findings=tuple(findings),
        not_checkable=tuple(unchecked),
    )


def _finding(number: int, event: Create | Exec, refusal: LaunchRefused) -> Finding:
    return Finding(
        event=number,
        at=event.at,
        verb=event.__struct_config__.tag if isinstance(event.__struct_config__.tag, str) else "",
        container=event.container,
        image=event.image,
        code=refusal.code,
        reason=str(refusal),
    )


def _judge(
    event: Create | Exec, policy: CompiledLaunch, image: ImageConfig | None
) -> Iterator[LaunchRefused | str]:
    """Every refusal, and in words what could not be tried."""
    yield from _judge_argv(event, policy, image)
    yield from _judge_env(event, policy, image)
    launch = event.launch
    if launch.user and not (policy.image_user and image is None):
        yield from _tried(lambda: check_user(launch.user, policy, image))
    elif policy.image_user:
        yield "user: the image's configuration is not known"
    yield from _tried(lambda: check_capabilities(launch.capabilities, policy))
    for text in launch.mounts if isinstance(event, Create) else ():
        yield from _judge_mount(text, policy)


def _judge_mount(text: str, policy: CompiledLaunch) -> Iterator[LaunchRefused | str]:
    try:
        mount = parse_mount(text)
    except FormatError:
        yield f"mount: {shown(text)}"
        return
    yield from _tried(lambda: check_mount(mount, policy))


def _judge_argv(
    event: Create | Exec, policy: CompiledLaunch, image: ImageConfig | None
) -> Iterator[LaunchRefused | str]:
    launch = event.launch
    creates = isinstance(event, Create)
    commands = policy.argv if creates else policy.exec
    if launch.argv_total != len(launch.argv):
        yield "command: too long for the record"
        return
    refusals = list(
        _tried(
            lambda: check_argv(
                launch.argv, commands, image, LaunchArgv if creates else ExecNotAllowed
            )
        )
    )
    if refusals and image is None and any(one.image for one in commands):
        yield "command: the image's configuration is not known"
        return
    yield from refusals


def _judge_env(
    event: Create | Exec, policy: CompiledLaunch, image: ImageConfig | None
) -> Iterator[LaunchRefused | str]:
    values: list[str] = []
    for name in event.launch.env:
        if policy.env.lists(name, image):
            values.append(shown(name))
        elif policy.env.image and image is None:
            yield f"variable {shown(name)}: the image's configuration is not known"
        else:
            yield LaunchEnv("an environment variable that is not listed", got=shown(name))
    if values:
        yield f"values of {', '.join(values)}: only commitments are recorded"


def _tried(check: Callable[[], None]) -> Iterator[LaunchRefused]:
    try:
        check()
    except LaunchRefused as refusal:
        yield refusal
