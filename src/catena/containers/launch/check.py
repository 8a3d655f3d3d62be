"""The check of one launch against one launch policy.

A configuration is what the runtime obeys, so all of it is judged: whatever can change what runs,
with whose rights, on which files. What only limits (cgroup limits, rlimits, scheduling, labels of
AppArmor and SELinux, host and domain name, umask, terminal) is free. ``formats.runtime`` has
refused already what is unknown or ambiguous.

``check_create``, in this order, each step raising its own ``LaunchRefused``:

1. no section of another platform;
2. the command is one of ``argv``; 3. every variable is listed and its value follows its rule;
4. the working directory; 5. user and groups; 6. all five capability sets;
7. no_new_privs, the root's writability; 8. every mount (``mounts``);
9. namespaces, 10. devices, 11. hooks, 12. seccomp, 13. kernel paths, 14. propagation, personality
   and cgroup, 15. sysctls, 16. annotations (``isolation``).

Exec has steps 2 to 7 with ``exec`` for ``argv``: everything else is the container's already.

Not guaranteed: what an allowed program reads from an allowed mount, and anything that the engine
does to the container from outside after its start.
"""

from __future__ import annotations

from collections.abc import Sequence

from catena.containers.launch.host import IsHost, is_host_namespace
from catena.containers.launch.isolation import (
    check_annotations,
    check_devices,
    check_hooks,
    check_kernel_paths,
    check_namespaces,
    check_seccomp,
    check_switches,
    check_sysctls,
)
from catena.containers.launch.mounts import check_mounts, clean
from catena.containers.launch.refusals import (
    ExecNotAllowed,
    LaunchArgv,
    LaunchCapability,
    LaunchDirectory,
    LaunchEnv,
    LaunchMount,
    LaunchPlatform,
    LaunchPrivileges,
    LaunchRefused,
    LaunchUser,
    RestoreNotAllowed,
    listed,
    shown,
)
from catena.containers.launch.rules import CommandRule, CompiledLaunch, compile_launch
from catena.formats import imageconfig
from catena.formats.imageconfig import ImageConfig
from catena.formats.launchpolicy import LaunchPolicy
from catena.formats.runtime import Linux, Process, Root, RuntimeConfig

Policy = LaunchPolicy | CompiledLaunch
Image = ImageConfig | bytes | None


def check_create(
    config: RuntimeConfig,
    policy: Policy,
    image_config: Image,
    is_host: IsHost = is_host_namespace,
) -> None:
    """Whether a container may be created as ``config`` says. See the module for the steps.

    ``image_config`` is the image's configuration, whose digest the caller has checked; without it
    no word ``image:…`` holds. ``is_host`` tells whether a namespace to join is the host's own: it
    looks at ``/proc`` if nothing else is given. Raises a ``LaunchRefused``, or
    ``UnusableLaunchPolicy`` or ``FormatError``.
    """
    rules, image = _ready(policy), _image(image_config)
    if config.foreign:
        raise LaunchPlatform("settings for another platform", got=listed(config.foreign))
    _check_process(config.started, rules, image, rules.argv, LaunchArgv)
    _check_root(config.root, rules)
    check_mounts(config.mounts or (), rules)
    linux = config.linux or Linux()
    check_namespaces(linux, rules, is_host)
    check_devices(linux, rules)
    check_hooks(config.hooks, rules)
    check_seccomp(linux.seccomp, rules)
    check_kernel_paths(linux, rules)
    check_switches(linux, rules)
    check_sysctls(linux, rules)
    check_annotations(config.annotations)


def check_exec(process: Process, policy: Policy, image_config: Image = None) -> None:
    """Whether ``process`` may run in a running container. Raises as ``check_create``."""
    rules, image = _ready(policy), _image(image_config)
    _check_process(process, rules, image, rules.exec, ExecNotAllowed)


def check_restore(policy: Policy) -> None:
    """Whether a checkpoint may be restored. Raises ``RestoreNotAllowed``."""
    if not _ready(policy).document.restore:
        raise RestoreNotAllowed("no checkpoint of this image may be restored")


def _ready(policy: Policy) -> CompiledLaunch:
    return policy if isinstance(policy, CompiledLaunch) else compile_launch(policy)


def _image(config: Image) -> ImageConfig | None:
    return imageconfig.parse(config) if isinstance(config, bytes) else config


def _check_process(
    process: Process,
    policy: CompiledLaunch,
    image: ImageConfig | None,
    commands: Sequence[CommandRule],
    refusal: type[LaunchRefused],
) -> None:
    """Steps 2 to 7 but for the root."""
    check_argv(process.argv, commands, image, refusal)
    if process.command_line:
        raise LaunchPlatform("a command line for another platform")
    check_env(process, policy, image)
    check_directory(process.cwd, policy, image)
    check_user(process.user_text, policy, image)
    check_groups(process, policy)
    check_capabilities(process.capability_names, policy)
    if not process.no_new_privileges and not policy.document.new_privileges:
        raise LaunchPrivileges(
            "set-user-ID programs could gain privileges", expected="no_new_privs"
        )


def check_argv(
    argv: Sequence[str],
    commands: Sequence[CommandRule],
    image: ImageConfig | None,
    refusal: type[LaunchRefused],
) -> None:
    """Raises ``refusal``, which shows what would run and what might."""
    if argv and any(one.allows(argv, image) for one in commands):
        return
    raise refusal(
        "a command that the launch policy does not allow",
        expected=" or ".join(listed(_expected(one, image)) for one in commands[:3]) or "nothing",
        got=listed(argv),
    )


def _expected(command: CommandRule, image: ImageConfig | None) -> Sequence[str]:
    """The alternative as people read it: with the image's own words, if they are known."""
    if not command.image or image is None:
        return command.text
    own = image.argv if len(command.text) == 1 else image.entrypoint
    return (*own, *command.text[1:])


def check_env(process: Process, policy: CompiledLaunch, image: ImageConfig | None) -> None:
    """Raises ``LaunchEnv``, which names the variable and never shows its value."""
    for entry, (name, value) in zip(process.env or (), process.env_pairs, strict=True):
        if not name or "=" not in entry:
            raise LaunchEnv("an entry of the environment that is not NAME=VALUE")
        if policy.env.allows(name, value, image):
            continue
        if policy.env.lists(name, image):
            raise LaunchEnv("an environment variable has a value against its rule", got=shown(name))
        raise LaunchEnv(
            "an environment variable that is not listed",
            expected=listed(sorted(policy.document.env)),
            got=shown(name),
        )


def check_directory(cwd: str, policy: CompiledLaunch, image: ImageConfig | None) -> None:
    """Raises ``LaunchDirectory``."""
    own = image.working_directory if policy.image_cwd and image is not None else None
    try:
        place = clean(cwd)
        if place == (clean(own) if own is not None else None):
            return
    except LaunchMount as error:
        raise LaunchDirectory(error.message, got=error.got) from error
    if not any(matches(place) for matches in policy.cwd):
        expected = [own] if own is not None else list(policy.document.cwd)
        raise LaunchDirectory(
            "a working directory that the launch policy does not allow",
            expected=listed(expected),
            got=shown(cwd) or "nothing",
        )


def check_user(user: str, policy: CompiledLaunch, image: ImageConfig | None) -> None:
    """Raises ``LaunchUser``. ``user`` is ``uid:gid``."""
    if any(matches(user) for matches in policy.users):
        return
    if policy.image_user and image is not None and _is_image_user(user, image.user):
        return
    raise LaunchUser(
        "a user that the launch policy does not allow",
        expected=listed(_expected_users(policy, image)),
        got=user,
    )


def _is_image_user(user: str, wanted: str) -> bool:
    """Whether ``user`` is what the image asks for, as far as numbers tell.

    A name's number is in the image's own /etc/passwd: any but root's will do. The same holds for
    a group that is a name, or that is left out.
    """
    uid, _, gid = user.partition(":")
    name, _, group = wanted.partition(":")
    name, group = name or "0", group if group.isdecimal() else gid
    name = "0" if name == "root" else name
    same = uid == name if name.isdecimal() else uid != "0"
    return same and gid == group


def _expected_users(policy: CompiledLaunch, image: ImageConfig | None) -> Sequence[str]:
    own = f"{image.user or 'root'} (the image's)" if image is not None else ""
    return [own if rule == "image:user" and own else rule for rule in policy.document.users]


def check_groups(process: Process, policy: CompiledLaunch) -> None:
    """Raises ``LaunchUser`` for a group beside the user's own."""
    for group in process.user.additional_gids or ():
        if group == process.user.gid or any(matches(str(group)) for matches in policy.groups):
            continue
        raise LaunchUser(
            "a group that the launch policy does not allow",
            expected=listed(policy.document.groups),
            got=str(group),
        )


def check_capabilities(names: Sequence[str], policy: CompiledLaunch) -> None:
    """Raises ``LaunchCapability``."""
    beyond = [name for name in names if name not in policy.capabilities]
    if beyond:
        raise LaunchCapability(
            "capabilities beyond the launch policy's",
            expected=listed(sorted(policy.capabilities)),
            got=listed(beyond),
        )


def _check_root(root: Root | None, policy: CompiledLaunch) -> None:
    if root is None:
        raise LaunchPrivileges("the container has no root file system")
    if not root.readonly and not policy.document.writable_root:
        raise LaunchPrivileges("the root file system would be writable", expected="root.readonly")
