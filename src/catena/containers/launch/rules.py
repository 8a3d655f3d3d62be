"""A launch policy, compiled: rules become functions once and are asked for every launch.

``compile_launch`` also finds what is wrong with a policy: a pattern outside the subset, a word
``image:…`` where it means nothing, a namespace or capability that does not exist by its form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from catena.containers.launch.refusals import UnusableLaunchPolicy
from catena.errors import FormatError
from catena.formats.imageconfig import ImageConfig
from catena.formats.launchpolicy import (
    ANY_FURTHER,
    IMAGE_ARGV,
    IMAGE_CWD,
    IMAGE_ENTRYPOINT,
    IMAGE_ENV,
    IMAGE_USER,
    PATTERN,
    Command,
    LaunchPolicy,
    MountRule,
)
from catena.formats.pattern import compile_pattern

MAX_MATCHED = 32 * 1024
"""Texts that are longer match no pattern, so that a launch cannot keep the gate busy."""

NAMESPACES = frozenset({"pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"})
_NEVER_SHARED = frozenset({"mount"})
_CAPABILITY = re.compile(r"CAP_[A-Z_]{2,32}\Z")
_IMAGE_WORD = "image:"

Matcher = Callable[[str], bool]


def compile_rule(rule: str) -> Matcher:
    """A function that says whether a text follows ``rule``. Raises ``UnusableLaunchPolicy``."""
    if rule.startswith(_IMAGE_WORD):
        raise UnusableLaunchPolicy("a word of the image where it means nothing", got=rule[:80])
    if not rule.startswith(PATTERN):
        return lambda text: text == rule
    try:
        pattern = compile_pattern(rule.removeprefix(PATTERN))
    except FormatError as error:
        raise UnusableLaunchPolicy(f"a rule's {error}", got=ascii(rule[:80])) from error
    return lambda text: len(text) <= MAX_MATCHED and text.isascii() and pattern.matches(text)


@dataclass(frozen=True, slots=True)
class CommandRule:
    """One alternative: words of the image, a rule for each argument, and maybe more."""

    text: Command
    image: str
    arguments: tuple[Matcher, ...]
    further: bool

    def allows(self, argv: Sequence[str], image: ImageConfig | None) -> bool:
        """Whether ``argv`` is this command. Without its image's configuration no word holds."""
        if self.image:
            start = _words(self.image, image)
            if not start or tuple(argv[: len(start)]) != start:
                return False
            argv = argv[len(start) :]
        if len(argv) < len(self.arguments):
            return False
        if len(argv) > len(self.arguments) and not self.further:
            return False
        return all(matches(word) for matches, word in zip(self.arguments, argv, strict=False))


def _words(word: str, image: ImageConfig | None) -> tuple[str, ...]:
    if image is None:
        return ()
    return image.argv if word == IMAGE_ARGV else image.entrypoint


@dataclass(frozen=True, slots=True)
class CompiledMount:
    """A mount rule; ``literal`` says that its source is one path, written out."""

    rule: MountRule
    destination: Matcher
    source: Matcher
    literal: bool


@dataclass(frozen=True, slots=True)
class MountRules:
    """Mount rules by their destination, where that is written out."""

    exact: Mapping[str, tuple[CompiledMount, ...]]
    patterns: tuple[CompiledMount, ...]

    def on(self, destination: str, kind: str) -> Iterator[CompiledMount]:
        """The rules for mounts of type ``kind`` on ``destination``."""
        for one in self.exact.get(destination, ()):
            if one.rule.type == kind:
                yield one
        for one in self.patterns:
            if one.rule.type == kind and one.destination(destination):
                yield one


@dataclass(frozen=True, slots=True)
class EnvRules:
    """Rules for variables: by name, by patterns of names, and the image's own."""

    exact: Mapping[str, Matcher]
    patterns: tuple[tuple[Matcher, Matcher], ...]
    image: bool

    def allows(self, name: str, value: str, image: ImageConfig | None) -> bool:
        """Whether the variable may have this value."""
        found = self.exact.get(name)
        if found is not None and found(value):
            return True
        if self.image and image is not None and (name, value) in image.env:
            return True
        return any(names(name) and values(value) for names, values in self.patterns)

    def lists(self, name: str, image: ImageConfig | None) -> bool:
        """Whether the variable is mentioned at all."""
        own = self.image and image is not None and any(name == one for one, _ in image.env)
        return name in self.exact or own or any(names(name) for names, _ in self.patterns)


@dataclass(frozen=True, slots=True)
class CompiledLaunch:
    """A launch policy that can be applied. ``document`` has the switches."""

    document: LaunchPolicy
    argv: tuple[CommandRule, ...]
    exec: tuple[CommandRule, ...]
    env: EnvRules
    cwd: tuple[Matcher, ...]
    image_cwd: bool
    users: tuple[Matcher, ...]
    image_user: bool
    groups: tuple[Matcher, ...]
    mounts: MountRules
    capabilities: frozenset[str]
    devices: tuple[Matcher, ...]
    sysctls: tuple[Matcher, ...]
    hooks: tuple[Matcher, ...]


def compile_launch(policy: LaunchPolicy) -> CompiledLaunch:
    """The policy, ready to be applied. Raises ``UnusableLaunchPolicy``."""
    _check_names(policy)
    return CompiledLaunch(
        document=policy,
        argv=tuple(map(_command, policy.argv)),
        exec=tuple(map(_command, policy.exec)),
        env=_env(policy.env),
        cwd=_all(policy.cwd, IMAGE_CWD),
        image_cwd=IMAGE_CWD in policy.cwd,
        users=_all(policy.users, IMAGE_USER),
        image_user=IMAGE_USER in policy.users,
        groups=_all(policy.groups),
        mounts=_mounts(policy.mounts),
        capabilities=frozenset(policy.capabilities),
        devices=_all(policy.devices),
        sysctls=_all(policy.sysctls),
        hooks=_all(policy.hooks),
    )


def _all(rules: Iterable[str], word: str = "") -> tuple[Matcher, ...]:
    return tuple(compile_rule(rule) for rule in rules if not word or rule != word)


def _command(command: Command) -> CommandRule:
    first, rules = command[0], command
    image = first if first in {IMAGE_ARGV, IMAGE_ENTRYPOINT} else ""
    if image:
        rules = command[1:]
    if image == IMAGE_ARGV and rules:
        raise UnusableLaunchPolicy(f"{IMAGE_ARGV} stands alone", got=" ".join(command)[:80])
    further = bool(rules) and rules[-1] == ANY_FURTHER
    rules = rules[:-1] if further else rules
    if ANY_FURTHER in rules or (further and not image and not rules):
        raise UnusableLaunchPolicy(
            f"{ANY_FURTHER} stands at the end, behind a program", got=" ".join(command)[:80]
        )
    return CommandRule(command, image, tuple(map(compile_rule, rules)), further)


def _env(rules: Mapping[str, str]) -> EnvRules:
    own = {name: rule for name, rule in rules.items() if name != IMAGE_ENV}
    if rules.get(IMAGE_ENV):
        raise UnusableLaunchPolicy(f"{IMAGE_ENV} has a rule", expected='""')
    if any(not name or "=" in name.partition(PATTERN)[0] for name in own):
        raise UnusableLaunchPolicy("an environment variable has no name, or one with =")
    return EnvRules(
        exact={name: compile_rule(rule) for name, rule in own.items() if not _is_pattern(name)},
        patterns=tuple(
            (compile_rule(name), compile_rule(rule))
            for name, rule in own.items()
            if _is_pattern(name)
        ),
        image=IMAGE_ENV in rules,
    )


def _mounts(rules: Iterable[MountRule]) -> MountRules:
    exact: dict[str, tuple[CompiledMount, ...]] = {}
    patterns: list[CompiledMount] = []
    for one in map(_mount, rules):
        place = one.rule.destination
        if _is_pattern(place):
            patterns.append(one)
        else:
            exact[place] = (*exact.get(place, ()), one)
    return MountRules(exact, tuple(patterns))


def _mount(rule: MountRule) -> CompiledMount:
    if rule.destination == "/":
        raise UnusableLaunchPolicy("a mount that replaces the image's root")
    return CompiledMount(
        rule=rule,
        destination=compile_rule(rule.destination),
        source=compile_rule(rule.source),
        literal=not _is_pattern(rule.source),
    )


def _check_names(policy: LaunchPolicy) -> None:
    for name in (*policy.host_namespaces, *policy.joins):
        if name not in NAMESPACES - _NEVER_SHARED:
            raise UnusableLaunchPolicy(
                "a namespace that cannot be shared",
                expected=", ".join(sorted(NAMESPACES - _NEVER_SHARED)),
                got=ascii(name[:40]),
            )
    for name in policy.capabilities:
        if not _CAPABILITY.match(name):
            raise UnusableLaunchPolicy(
                "not a capability", expected="CAP_ and capitals", got=ascii(name[:40])
            )


def _is_pattern(rule: str) -> bool:
    return rule.startswith(PATTERN)
