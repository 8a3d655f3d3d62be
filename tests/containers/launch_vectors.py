"""Configurations as engines write them, and a policy that allows one of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import msgspec

from catena.formats.launchpolicy import LaunchPolicy, MountRule
from catena.formats.runtime import RuntimeConfig, parse_config

RECORDED = Path(__file__).with_name("launch_configs")
CANARY = "hunter2-canary"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARGV = ("/bin/busybox", "echo", "hi")
SECRET_RULE = "re:[a-z0-9-]{8,}"


def recorded(name: str) -> dict:
    """What a real engine wrote (see ``test_launch_engines``), with its paths moved to usual places."""
    return json.loads((RECORDED / f"{name}.json").read_bytes())


def image(argv=ARGV, *, user="", cwd="", env=(f"PATH={PATH}",), entrypoint=(), **more) -> bytes:
    settings = {"Entrypoint": entrypoint or None, "Cmd": argv, "User": user, "WorkingDir": cwd}
    return msgspec.json.encode(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {**settings, "Env": env, **more},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
    )


def ordinary() -> dict:
    """podman's container, hardened: everything that a policy can demand is there."""
    config = recorded("podman-4.3")
    config["process"]["noNewPrivileges"] = True
    config["process"]["env"].append(f"TOKEN={CANARY}")
    config["process"]["user"]["additionalGids"] = [0, 10]
    config["root"]["readonly"] = True
    config["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": "/srv/data",
            "options": ["rbind", "ro", "rprivate"],
        }
    )
    return config


_USERDATA = "re:/(run|var/lib)/containers/storage/vfs-containers/[0-9a-f]{64}/userdata/"
STRICT = LaunchPolicy(
    name="strict",
    version=1,
    argv=(ARGV,),
    exec=(("/bin/true",),),
    env={"PATH": PATH, "TERM": "xterm", "HOSTNAME": "re:[0-9a-f]{12}", "TOKEN": SECRET_RULE},
    cwd=("/",),
    users=("0:0",),
    groups=("10",),
    mounts=(
        MountRule(destination="/etc/hosts", source=f"{_USERDATA}hosts", read_only=False),
        MountRule(destination="/etc/hostname", source=f"{_USERDATA}hostname", read_only=False),
        MountRule(destination="/dev/shm", source=f"{_USERDATA}shm", read_only=False),
        MountRule(
            destination="/run/.containerenv",
            source=rf"{_USERDATA}\.containerenv",
            read_only=False,
        ),
        MountRule(destination="/data", source="/srv/data"),
    ),
    capabilities=(
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ),
    writable_root=False,
)


def parsed(config: dict) -> RuntimeConfig:
    return parse_config(json.dumps(config).encode())


def with_change(config: dict, change) -> dict:
    """``config`` after ``change``, which edits it in place; the original stays."""
    changed = copy.deepcopy(config)
    change(changed)
    return changed


def nobodys(kind: str, path: str) -> bool:
    """For tests that join no namespace: asking is a fault."""
    raise AssertionError(f"asked about {kind} {path}")
