"""Real engines and runtimes: what they write is judged rightly, and what is judged is what they obey."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from launch_vectors import image, nobodys

from catena.containers.launch.check import check_create, check_exec
from catena.containers.launch.document import default_policy
from catena.containers.launch.refusals import ExecNotAllowed, LaunchRefused
from catena.formats.runtime import AmbiguousConfig, parse_config, parse_process, private_copy
from changed import replace
from living import await_that, mounts_below, processes_naming

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs containers")
ECHO = ["/bin/busybox", "echo", "good"]
SECONDS = 60


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def call(*words: object, check: bool = True) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def root(tmp_path):
    need("busybox")
    folder = tmp_path / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "tmp", "run", "etc"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", folder / "bin/busybox")
    yield folder
    left = mounts_below(tmp_path)
    for place in reversed(left):
        call("umount", "-l", place, check=False)
    assert left == []


# runc ------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(root, tmp_path):
    need("runc")
    call("runc", "spec", "--bundle", tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes())
    config["process"] |= {"terminal": False, "args": ECHO}
    del config["linux"]["resources"]  # what runs is asked here, not within which limits
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def run(bundle: Path, text: str) -> str:
    (bundle / "config.json").write_text(text)
    return call(
        "runc", "--root", bundle / "state", "run", "--bundle", bundle, f"catena-{os.getpid()}"
    )


def test_what_runc_writes_itself_passes_the_default_policy(tmp_path):
    need("runc")
    call("runc", "spec", "--bundle", tmp_path)
    config = parse_config((tmp_path / "config.json").read_bytes())
    check_create(config, default_policy(), image(("sh",)), nobodys)


@pytest.mark.parametrize("key", ["args", "Args", "ARGS", "argſ"])
def test_runc_obeys_a_repeated_or_respelled_key_that_the_reader_refuses(bundle, key):
    text = (bundle / "config.json").read_text()
    evil = json.dumps(["/bin/busybox", "echo", "evil"])
    text = text.replace('"cwd"', f'"{key}": {evil}, "cwd"', 1)
    assert run(bundle, text) == "evil\n"
    with pytest.raises(AmbiguousConfig):
        parse_config(text.encode())


def test_runc_runs_the_private_copy_from_anywhere(bundle, tmp_path):
    copied = private_copy((bundle / "config.json").read_bytes(), bundle)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run(elsewhere, copied.decode()) == "good\n"


# podman ----------------------------------------------------------------------------------------

_CAPTURE = """#!/bin/sh
for word; do
    case $word in create) verb=$word ;; esac
    [ "$last" = --bundle ] && bundle=$word
    last=$word
done
[ -n "$verb" ] || exit 0
cp "$bundle/config.json" "{target}"
echo captured >&2
exit 1
"""


@pytest.fixture
def short():
    """A folder with a short name: podman wants one for what it keeps at run time."""
    with TemporaryDirectory(prefix="cp-", dir="/tmp") as folder:
        yield Path(folder)
        left = mounts_below(Path(folder))
        for place in reversed(left):
            call("umount", "-l", place, check=False)


@pytest.fixture
def captured_by_podman(root, short):
    """What podman hands to its runtime for some options; the runtime here only copies it."""
    need("podman", "conmon")
    target, capture = short / "captured.json", short / "capture"
    capture.write_text(_CAPTURE.format(target=target))
    capture.chmod(0o755)
    podman = (
        *("podman", "--root", short / "storage", "--runroot", short / "run"),
        *("--tmpdir", short / "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
        *("--events-backend", "file", "--runtime", capture),
    )

    def run_podman(*options: str):
        limits = ("--ulimit", "nofile=1024:20000", "--ulimit", "nproc=4096:4096")
        words = ("run", "--network", "none", *limits, *options, "--rootfs", root, *ECHO)
        call(*podman, *words, check=False)
        return parse_config(target.read_bytes())

    yield run_podman
    await_that(lambda: not processes_naming(short), "end of podman's own cleaning up")
    call(*podman, "rm", "--all", "--force", check=False)


def test_podmans_own_start_passes_the_default_policy(captured_by_podman):
    check_create(captured_by_podman(), default_policy(), image(ECHO), nobodys)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--privileged",), "launch-capability"),
        (("--cap-add", "SYS_ADMIN"), "launch-capability"),
        (("--env", "LD_PRELOAD=/x"), "launch-env"),
        (("--volume", "/:/host"), "launch-mount"),
        (("--pid", "host"), "launch-namespace"),
        (("--device", "/dev/fuse"), "launch-device"),
        (("--security-opt", "unmask=ALL"), "launch-privileges"),
        (("--user", "7"), "launch-user"),
        (("--workdir", "/tmp"), "launch-directory"),
        (("--sysctl", "net.ipv4.ip_forward=1"), "launch-sysctl"),
        (("--init",), "launch-argv"),
    ],
)
def test_what_podman_is_asked_for_beyond_it_is_refused(captured_by_podman, options, code):
    if options == ("--init",) and not Path("/usr/libexec/podman/catatonit").exists():
        pytest.skip("catatonit is not installed")
    with pytest.raises(LaunchRefused) as refused:
        check_create(captured_by_podman(*options), default_policy(), image(ECHO), nobodys)
    assert refused.value.code == code


def test_podman_without_a_filter_is_for_policies_that_say_so(captured_by_podman):
    config = captured_by_podman("--security-opt", "seccomp=unconfined")
    check_create(config, default_policy(), image(ECHO), nobodys)
    with pytest.raises(LaunchRefused) as refused:
        check_create(config, replace(default_policy(), unconfined=False), image(ECHO), nobodys)
    assert refused.value.code == "launch-seccomp"


# containerd ------------------------------------------------------------------------------------

_DAEMON = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/grpc"
[ttrpc]
  address = "{0}/ttrpc"
[debug]
  address = "{0}/debug"
"""


@contextmanager
def containerd(folder: Path):
    folder.mkdir()
    (folder / "config.toml").write_text(_DAEMON.format(folder))
    words = ["containerd", "--config", str(folder / "config.toml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as one:
        try:
            await_that((folder / "grpc").exists, "containerd's socket")
            yield ("ctr", "--address", folder / "grpc")
        finally:
            one.terminate()
            one.wait(SECONDS)


_PASS = """#!/bin/sh
for word; do
    case $word in create|exec) verb=$word ;; esac
    case $last in --bundle) bundle=$word ;; --process) process=$word ;; esac
    last=$word
done
[ "$verb" = create ] && cp "$bundle/config.json" "{0}/create.json"
[ "$verb" = exec ] && cp "$process" "{0}/exec.json"
exec runc "$@"
"""


def test_containerds_start_passes_the_default_policy_and_its_exec_does_not(root, tmp_path):
    need("containerd", "ctr", "runc", "containerd-shim-runc-v2")
    capture = tmp_path / "capture"
    capture.write_text(_PASS.format(tmp_path))
    capture.chmod(0o755)
    name = f"catena-{os.getpid()}"
    with containerd(tmp_path / "d") as ctr:
        sleep = ("/bin/busybox", "sleep", "60")
        options = ("--detach", "--runc-binary", capture, "--rootfs")
        call(*ctr, "run", *options, root, name, *sleep)
        try:
            call(*ctr, "task", "exec", "--exec-id", "one", name, "/bin/busybox", "true")
        finally:
            call(*ctr, "task", "rm", "--force", name, check=False)
            call(*ctr, "container", "rm", name, check=False)
    config = parse_config((tmp_path / "create.json").read_bytes())
    check_create(config, default_policy(), image(sleep), nobodys)
    process = parse_process((tmp_path / "exec.json").read_bytes())
    with pytest.raises(ExecNotAllowed):
        check_exec(process, default_policy(), image(sleep))
    allowed = replace(default_policy(), exec=(("/bin/busybox", "true"),))
    check_exec(process, allowed, image(sleep))
