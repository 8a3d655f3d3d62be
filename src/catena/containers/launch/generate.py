"""A launch policy to start from: what an image's configuration says, and what engines add to it.

The document is meant to be read, narrowed and signed by the image's publisher. It spells the
command and the variables out, so that a reader sees what will run.

Engines put a few files into every container. Each rule names the kind of path that an engine uses and
nothing wider; a storage folder elsewhere (podman's ``--root``) has the same end.
"""

from __future__ import annotations

from collections.abc import Iterable

from catena.containers.launch.mounts import clean
from catena.formats.imageconfig import ImageConfig
from catena.formats.launchpolicy import (
    ANY_FURTHER,
    IMAGE_ARGV,
    IMAGE_ENV,
    IMAGE_USER,
    PATTERN,
    LaunchPolicy,
    MountRule,
)

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What containerd, Docker and CRI-O give a container that asks for nothing; podman gives less."""

_ID = "[0-9a-f]{64}"
_STORAGE = f"/[^:]+-containers/{_ID}/userdata"
_SANDBOX = rf"/(run|var/lib)/containerd/io\.containerd\.grpc\.v1\.cri/sandboxes/{_ID}"
_DOCKER = f"/var/lib/docker/containers/{_ID}"
_POD = "/var/lib/kubelet/pods/[0-9a-f-]+"

_FILES = {
    "hosts": (_STORAGE, _SANDBOX, _DOCKER),
    "hostname": (_STORAGE, _SANDBOX, _DOCKER),
    r"resolv\.conf": (_STORAGE, _SANDBOX, _DOCKER),
}
_TOKEN = "/run/secrets/kubernetes\\.io/serviceaccount"  # noqa: S105  a place, not a secret

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines set if an image says nothing."""

ENGINE_ENV = {
    "PATH": PATH,
    "HOSTNAME": "re:[A-Za-z0-9._-]*",
    "HOME": "re:/[A-Za-z0-9._/-]*",
    "TERM": "re:[A-Za-z0-9._-]*",
    "container": "re:[a-z]*",
    "re:[A-Z0-9_]+_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?": "re:[A-Za-z0-9.:-]*",
    "re:[A-Z0-9_]+_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?": "re:[A-Za-z0-9.:/-]*",
}
"""Variables that engines and kubelets set, and forms in which no value is code."""


def generate(image: ImageConfig, name: str, version: int = 1) -> LaunchPolicy:
    """A policy for exactly this image: its command, variables, user, folder and volumes."""
    volumes = (rule for volume in image.volumes for rule in _volume(clean(volume)))
    return LaunchPolicy(
        name=name,
        version=version,
        argv=(tuple(map(_exactly, image.argv)),) if image.argv else (),
        env={**ENGINE_ENV, **{key: _exactly(value) for key, value in image.env}},
        cwd=(_exactly(clean(image.working_directory)),),
        users=_users(image.user),
        groups=("re:[0-9]{1,3}",),
        mounts=(*ENGINE_MOUNTS, *volumes),
        capabilities=DEFAULT_CAPABILITIES,
        joins=("ipc", "network", "uts"),
        new_privileges=True,
        unconfined=True,
    )


def generate_default() -> LaunchPolicy:
    """``default_policy.json``: the same in the words of whatever image it is applied to."""
    return LaunchPolicy(
        name="default",
        version=1,
        argv=((IMAGE_ARGV,),),
        env={IMAGE_ENV: "", **ENGINE_ENV},
        users=(IMAGE_USER,),
        groups=("re:[0-9]{1,10}",),
        mounts=ENGINE_MOUNTS,
        capabilities=DEFAULT_CAPABILITIES,
        joins=("ipc", "network", "uts"),
        new_privileges=True,
        unconfined=True,
    )


def _users(user: str) -> tuple[str, ...]:
    uid, _, gid = user.partition(":")
    uid = "0" if uid in {"", "root"} else uid
    if not uid.isdecimal():
        return (IMAGE_USER,)
    return (f"{uid}:{gid}",) if gid.isdecimal() else (f"re:{uid}:[0-9]+",)


def _exactly(value: str) -> str:
    """``value`` as a rule, even where it looks like a pattern or a word."""
    if value != ANY_FURTHER and not value.startswith((PATTERN, "image:")):
        return value
    escaped = "".join(one if one.isalnum() else f"\\{one}" for one in value)
    return f"{PATTERN}{escaped}"


def _engine_mounts() -> Iterable[MountRule]:
    for file, folders in _FILES.items():
        place = f"/etc/{file}".replace("\\", "")
        for folder in folders:
            yield _writable(place, f"re:{folder}/{file}")
        yield MountRule(destination=place, source=place)
    yield _writable("/etc/hosts", f"re:{_POD}/etc-hosts")
    yield _writable("/dev/shm", f"re:{_STORAGE}/shm")  # noqa: S108  a place in the container
    yield _writable("/dev/shm", f"re:{_SANDBOX}/shm")  # noqa: S108
    yield _writable("/dev/shm", f"re:{_DOCKER}/mounts/shm")  # noqa: S108
    yield _writable("/run/.containerenv", f"re:{_STORAGE}/\\.containerenv")
    yield _writable("/run/secrets", f"re:{_STORAGE}/run/secrets")
    yield _writable("/dev/termination-log", f"re:{_POD}/containers/[a-z0-9.-]+/[0-9a-f]+")
    yield MountRule(
        destination=f"re:(/var)?{_TOKEN}",
        source=rf"re:{_POD}/volumes/kubernetes\.io~projected/kube-api-access-[a-z0-9]+",
    )


def _volume(place: str) -> Iterable[MountRule]:
    yield _writable(place, f"re:/[^:]+/volumes/{_ID}/_data")
    yield _writable(place, f"re:/[^:]+/containers/{_ID}/volumes/{_ID}")


def _writable(destination: str, source: str) -> MountRule:
    return MountRule(destination=destination, source=source, read_only=False)


ENGINE_MOUNTS = tuple(_engine_mounts())
"""The files that containerd, podman, CRI-O, Docker and kubelets add to every container."""
