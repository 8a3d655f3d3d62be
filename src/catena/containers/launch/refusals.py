"""Why a launch is refused: one class and one code for each kind of setting.

``expected`` and ``got`` show arguments, names, paths and numbers, never an environment's values.
"""

from __future__ import annotations

from collections.abc import Iterable

from catena.errors import ExitCode, FormatError, Refusal

_MAX_SHOWN = 300


class LaunchRefused(Refusal):
    """A container would be started in a way that its launch policy does not allow."""

    code = "launch-refused"
    remedy = (
        "Start the container as its launch policy says, or have its publisher sign a wider one."
    )


class LaunchArgv(LaunchRefused):
    """A command that is not one of the policy's."""

    code = "launch-argv"


class LaunchEnv(LaunchRefused):
    """An environment variable that is not listed, or whose value its rule does not allow."""

    code = "launch-env"


class LaunchDirectory(LaunchRefused):
    """A working directory from which other files might be run or read."""

    code = "launch-directory"


class LaunchUser(LaunchRefused):
    """A user or group whose rights the container must not have."""

    code = "launch-user"


class LaunchCapability(LaunchRefused):
    """A capability beyond the policy's."""

    code = "launch-capability"


class LaunchMount(LaunchRefused):
    """A mount that may hide the image's files, or show those of the host."""

    code = "launch-mount"


class LaunchNamespace(LaunchRefused):
    """A namespace of the host or of another container."""

    code = "launch-namespace"


class LaunchDevice(LaunchRefused):
    """Access to a device that the policy does not name."""

    code = "launch-device"


class LaunchHook(LaunchRefused):
    """A program that the runtime would call, with the host's files and rights."""

    code = "launch-hook"


class LaunchSeccomp(LaunchRefused):
    """No system call filter, or one that filters nothing, or one that another program answers."""

    code = "launch-seccomp"


class LaunchPrivileges(LaunchRefused):
    """A protection that is absent: masked paths, a read-only root, no_new_privs."""

    code = "launch-privileges"


class LaunchSysctl(LaunchRefused):
    """A kernel parameter, or a cgroup's file, that the policy does not name."""

    code = "launch-sysctl"


class LaunchAnnotation(LaunchRefused):
    """An annotation that is an order to the runtime, not a note."""

    code = "launch-annotation"
    remedy = "Remove the annotation; what it asks for has a setting that a policy can speak about."


class LaunchPlatform(LaunchRefused):
    """Settings for another platform, which nobody judges."""

    code = "launch-platform"
    remedy = "Remove the section; catena guards Linux containers."


class RestoreNotAllowed(LaunchRefused):
    """A checkpoint would bring back a process whose launch and memory nobody has checked."""

    code = "restore-not-allowed"
    remedy = "Start the container anew, or have its publisher sign a policy with `restore`."


class ExecNotAllowed(LaunchRefused):
    """A command that may not run in the running container."""

    code = "exec-not-allowed"
    remedy = "Have the publisher add the command to `exec` of the launch policy."


class UnknownExecOption(LaunchRefused):
    """An option of ``exec`` that might change what runs."""

    code = "exec-unknown-option"
    remedy = "Use the options that `runc exec --help` lists, each in one form."


class UnusableLaunchPolicy(FormatError):
    """A launch policy with a rule that cannot be applied."""

    code = "launch-policy-unusable"
    exit_code = ExitCode.POLICY
    remedy = "Correct the rule; `catena container policy generate IMAGE` writes one to start from."


class WrongImage(LaunchRefused):
    """A launch policy that its publisher signed for another image."""

    code = "launch-policy-wrong-image"
    remedy = (
        "Attach the policy to the image that it was signed for, or have it signed for this one."
    )


def shown(value: str) -> str:
    """``value`` as it may stand in an error: printable ASCII, bounded."""
    text = ascii(value)[1:-1]
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def listed(values: Iterable[str]) -> str:
    """Several values, as ``shown``."""
    return shown(" ".join(values)) or "nothing"
