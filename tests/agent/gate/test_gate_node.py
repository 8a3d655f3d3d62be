"""The whole gate on a real node: signed images, a real TPM, the real runc behind the wrapper."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from subprocess import Popen

import msgspec
import pytest
from node import APP, LAUNCH, OTHER, PATH, READY_SECONDS, UNSIGNED
from standing import needs_runc

from catena.containers.signature.sign import attach_launch_policy
from catena.formats.containerlog import Create
from swtpm import needs_swtpm

pytestmark = [needs_runc, needs_swtpm, pytest.mark.tpm]


def refused(node, bundle, container="c1", verb="run"):
    """The code that a start is refused with; nothing of it has run."""
    done = node.call(verb, "--bundle", bundle, container)
    assert done.returncode == 1, done
    assert not (bundle / "rootfs/ran").exists()
    message = json.loads(node.log.read_text().splitlines()[-1])["msg"]
    assert message in done.stderr
    return message.rpartition("[")[2].rstrip("]")


def test_signed_image_runs_and_is_recorded(node):
    bundle = node.bundle(APP)
    with node.gate():
        done = node.call("run", "--bundle", bundle, "c1")
        assert (done.returncode, done.stderr) == (0, "")
        assert (bundle / "rootfs/ran").exists()
        node.await_kind("exit")
    assert node.kinds() == ["gate-start", "policy", "create", "exit"]
    event = node.events()[2].event
    assert (event.container, event.repository, event.publisher) == ("c1", APP, "acme")
    assert event.image == node.target(APP).image
    assert event.launch.argv == ("/bin/touch", "/ran")
    node.check_replay()


# What must fail ------------------------------------------------------------------------------


def test_unsigned_image_never_runs(node):
    bundle = node.bundle(UNSIGNED)
    with node.gate():
        assert refused(node, bundle) == "image-unsigned"
    assert node.codes() == ["image-unsigned"]
    node.check_replay()


def test_image_of_another_publisher_never_runs(node):
    node.sign(UNSIGNED, "umbrella")
    bundle = node.bundle(UNSIGNED)
    with node.gate():
        assert refused(node, bundle) == "other-publisher"


def test_signature_moved_from_another_repository_never_counts(node):
    """acme may publish in both, but what it signed for one is not the other."""
    node.sign(APP, "acme", image=UNSIGNED)
    bundle = node.bundle(UNSIGNED)
    with node.gate():
        assert refused(node, bundle) == "signed-for-another-repository"


def test_file_that_was_patched_after_unpacking_never_runs(node):
    bundle = node.bundle(APP)
    with (bundle / "rootfs/bin/busybox").open("ab") as file:
        file.write(b"patched")
    with node.gate():
        assert refused(node, bundle) == "root-altered-layer"


def test_file_that_is_patched_between_two_starts_never_runs(node):
    bundle = node.bundle(APP, "/bin/true")
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        target = bundle / "rootfs/bin/busybox"
        before = target.stat()
        data = target.read_bytes()
        target.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert refused(node, bundle) == "root-altered-layer"


def test_strict_gate_notices_what_no_fingerprint_shows(node):
    """A write through a mapping leaves times as they are until the kernel writes it back."""
    node.settings["strict"] = True
    node.write_config()
    bundle = node.bundle(APP, "/bin/true")
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        with (
            (bundle / "rootfs/bin/busybox").open("r+b") as file,
            mmap.mmap(file.fileno(), 0) as mapped,
        ):
            mapped[-1] ^= 1
            assert refused(node, bundle) == "root-altered-layer"


@pytest.mark.parametrize(
    ("argv", "changes", "code"),
    [
        (("/bin/sh", "-c", "touch /ran"), {}, "launch-argv"),
        (("/bin/touch", "/ran", "/more"), {}, "launch-argv"),
        (("/bin/touch", "/ran"), {"env": [PATH, "LD_PRELOAD=/evil"]}, "launch-env"),
        (("/bin/touch", "/ran"), {"user": {"uid": 7, "gid": 7}}, "launch-user"),
        (
            ("/bin/touch", "/ran"),
            {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}},
            "launch-capability",
        ),
        (("/bin/touch", "/ran"), {"noNewPrivileges": False}, "launch-privileges"),
    ],
)
def test_launch_beyond_the_policy_never_runs(node, argv, changes, code):
    bundle = node.bundle(APP, *argv, **changes)
    with node.gate():
        assert refused(node, bundle) == code


def test_configuration_that_runtimes_could_read_in_two_ways_never_runs(node):
    bundle = node.bundle(APP)
    config = bundle / "config.json"
    config.write_text(config.read_text().replace('"process"', '"Process": {}, "process"', 1))
    with node.gate():
        assert refused(node, bundle) == "launch-ambiguous-config"


def test_checkpoint_is_never_restored_without_leave(node):
    bundle = node.bundle(APP)
    with node.gate():
        assert refused(node, bundle, verb="restore") == "restore-not-allowed"


def test_killed_gate_starts_nothing(node):
    bundle = node.bundle(APP)
    process = node.start_gate()
    process.kill()
    process.wait()
    assert refused(node, bundle) == "gate-unreachable"


def test_record_that_cannot_be_written_starts_nothing(node):
    bundle = node.bundle(APP)
    limit = 6000
    with node.gate() as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for number in range(30):
            if node.call("run", "--bundle", bundle, f"c{number}").returncode:
                break
            (bundle / "rootfs/ran").unlink()
        assert refused(node, bundle, "late") == "record-unwritable"
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert node.call("run", "--bundle", bundle, "again").returncode == 0
    node.check_replay()


def test_tpm_that_is_gone_starts_nothing(node):
    bundle = node.bundle(APP)
    with node.gate() as process:
        node.tpm.stop()
        assert refused(node, bundle, "c1") == "recorder-stopped"
        # A gate that cannot record any more makes place for one that recovers, if it can.
        assert process.wait(READY_SECONDS) == 1
        assert b"[recorder-stopped]" in node.said()
        assert refused(node, bundle, "c2") == "gate-unreachable"
    with pytest.raises(AssertionError, match="tpm-unavailable"):
        node.start_gate()


def test_gate_does_not_serve_a_record_that_was_edited(node):
    bundle = node.bundle(UNSIGNED)
    with node.gate():
        refused(node, bundle)
    data = node.record.read_bytes()
    node.record.write_bytes(data.replace(b"image-unsigned", b"image-assigned"))
    with pytest.raises(AssertionError, match="record-mismatch"):
        node.start_gate()
    assert refused(node, bundle) == "gate-unreachable"


# Exec ----------------------------------------------------------------------------------------


def test_exec_needs_its_own_leave(node):
    bundle = node.bundle(APP, "/bin/sleep", "60")
    with node.gate():
        assert node.call("run", "-d", "--bundle", bundle, "c1").returncode == 0
        assert node.call("exec", "c1", "/bin/echo", "hello").stdout == "hello\n"
        for words in (["/bin/touch", "/ran"], ["/bin/echo", "../x"]):
            done = node.call("exec", "c1", *words)
            assert "[exec-not-allowed]" in done.stderr
        assert "[launch-env]" in node.call("exec", "-e", "A=b", "c1", "/bin/echo", "x").stderr
        assert not (bundle / "rootfs/ran").exists()
        process = node.folder / "process.json"
        config = json.loads((bundle / "config.json").read_text())["process"]
        process.write_text(json.dumps(config | {"args": ["/bin/echo", "file"]}))
        assert node.call("exec", "--process", process, "c1").stdout == "file\n"
        assert node.call("delete", "--force", "c1").returncode == 0
        node.await_kind("exit")
        assert "[unknown-container]" in node.call("exec", "c1", "/bin/echo", "x").stderr
    assert node.kinds().count("exec") == 2
    node.check_replay()


def test_exec_is_judged_under_the_policy_of_now(node):
    bundle = node.bundle(APP, "/bin/sleep", "60")
    with node.gate():
        assert node.call("run", "-d", "--bundle", bundle, "c1").returncode == 0
        node.write_policy(2, app=("umbrella",))
        assert "[other-publisher]" in node.call("exec", "c1", "/bin/echo", "hello").stderr


# What is remembered --------------------------------------------------------------------------


def test_policy_that_changed_decides_at_once_and_is_recorded(node):
    bundle = node.bundle(APP, "/bin/true")
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        node.write_policy(2, app=("umbrella",))
        assert refused(node, bundle, "c2") == "other-publisher"
        node.write_policy(3)
        assert node.call("run", "--bundle", bundle, "c3").returncode == 0
        node.await_kind("exit", 2)
    policies = [one.event.version for one in node.events() if hasattr(one.event, "version")]
    assert policies == [1, 2, 3]
    node.check_replay()


@pytest.mark.parametrize("version", [1, 2])
def test_policy_that_is_no_newer_is_refused(node, version):
    bundle = node.bundle(APP, "/bin/true")
    node.write_policy(2)
    with node.gate():
        node.write_policy(version, app=("acme", "umbrella"))
        assert refused(node, bundle) == "policy-rollback"
        node.write_policy(3, app=("acme", "umbrella"))
        assert node.call("run", "--bundle", bundle, "c2").returncode == 0


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.write_bytes(b"{"), "malformed"),
        (lambda path: path.unlink(), "bundle-unreadable"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "malformed"),
    ],
)
def test_policy_that_cannot_be_used_is_not_replaced_by_the_last_one(node, spoil, code):
    bundle = node.bundle(APP, "/bin/true")
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        kept = node.policy.read_bytes()
        spoil(node.policy)
        assert refused(node, bundle) == code
        node.policy.write_bytes(kept)
        assert node.call("run", "--bundle", bundle, "c2").returncode == 0


def test_policy_that_another_key_signed_is_refused(node):
    bundle = node.bundle(APP, "/bin/true")
    node.keys["release"] = node.keys["acme"]
    node.write_policy(9)
    with node.gate():
        assert refused(node, bundle) == "untrusted-signer"
    assert node.kinds() == ["gate-start", "deny"]


def test_tag_that_moved_after_verification_changes_neither_image(node):
    """A digest was verified. The tag may name an unsigned image by now."""
    old, new = node.bundle(APP, "/bin/true"), node.bundle(UNSIGNED, "/bin/true", name="new")
    with node.gate():
        assert node.call("run", "--bundle", old, "c1").returncode == 0
        unsigned = node.layout.manifest(node.target(UNSIGNED).image)
        node.layout.put_manifest(unsigned, "application/vnd.oci.image.manifest.v1+json", f"{APP}:1")
        assert node.call("run", "--bundle", old, "c2").returncode == 0
        assert refused(node, new, "c3") == "image-unsigned"


def test_image_that_arrives_while_the_gate_serves_is_known(node):
    aside = node.folder / "aside"
    shutil.copytree(node.store, aside)
    node.layout._folder.joinpath("index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    bundle = node.bundle(APP, "/bin/true")
    with node.gate():
        assert refused(node, bundle, "c1").startswith("root-")
        (aside / "index.json").replace(node.store / "index.json")
        assert node.call("run", "--bundle", bundle, "c2").returncode == 0


def test_newest_launch_policy_of_the_publisher_counts(node):
    bundle = node.bundle(APP, "/bin/true")
    only = msgspec.structs.replace(LAUNCH, version=2, argv=(("/bin/touch", "/ran"),))
    foreign = msgspec.structs.replace(LAUNCH, version=9, argv=(("/bin/true",),))
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        attach_launch_policy(node.target(APP), only, node.keys["acme"])
        assert refused(node, bundle, "c2") == "launch-argv"
        attach_launch_policy(node.target(APP), foreign, node.keys["umbrella"])
        assert refused(node, bundle, "c3") == "launch-argv"


# Restarts ------------------------------------------------------------------------------------


def test_next_gate_continues_the_record(node):
    bundle = node.bundle(APP, "/bin/sleep", "60")
    with node.gate():
        assert node.call("run", "-d", "--bundle", bundle, "c1").returncode == 0
    with node.gate() as process:
        assert node.call("exec", "c1", "/bin/echo", "still").stdout == "still\n"
        process.send_signal(signal.SIGHUP)
        assert node.call("delete", "--force", "c1").returncode == 0
        node.await_kind("exit")
    assert node.kinds() == [
        "gate-start",
        "policy",
        "create",
        "gate-start",
        "policy",
        "exec",
        "exit",
    ]
    node.check_replay()


def test_values_of_the_environment_reach_no_file_that_stays(node):
    canary = "canary-7d1f-not-to-be-written"
    bundle = node.bundle(APP, "/bin/true", env=[PATH, f"TOKEN={canary}"])
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
        node.configure(bundle, "/bin/true", env=[PATH, f"OTHER={canary}"])
        assert refused(node, bundle, "c2") == "launch-env"
        node.await_kind("exit")
    bundle.joinpath("config.json").unlink()
    for path in node.folder.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path
    event = node.events()[2].event
    assert set(event.launch.env) == {"PATH", "TOKEN"}


def test_images_of_other_publishers_do_not_stand_in(node):
    bundle = node.bundle(OTHER, "/bin/true")
    with node.gate():
        assert node.call("run", "--bundle", bundle, "c1").returncode == 0
    assert node.events()[2].event.publisher == "umbrella"


def test_many_starts_while_the_gate_restarts_are_recorded_or_refused(node):
    """200 containers, 16 at a time; the gate is killed once and ended once on the way.

    Who is refused tries again under another name, as a kubelet would.
    """
    bundles = [node.bundle(APP, "/bin/true", name=f"b{number}") for number in range(16)]
    ran: list[str] = []
    refusals: list[str] = []
    deadline = time.monotonic() + 100

    def start(number: int) -> None:
        for attempt in count():
            name = f"c{number}-{attempt}"
            done = node.call("run", "--bundle", bundles[number % 16], name)
            if done.returncode == 0:
                ran.append(name)
                return
            refusals.append(done.stderr)
            assert time.monotonic() < deadline, refusals[-1]
            time.sleep(0.2)

    def restart(gate: Popen, after: int, number: int) -> Popen:
        while len(ran) < after:
            assert time.monotonic() < deadline, refusals[-1]
            time.sleep(0.01)
        gate.send_signal(number)
        gate.wait(READY_SECONDS)
        return node.start_gate()

    gate = node.start_gate()
    try:
        with ThreadPoolExecutor(16) as pool:
            every = [pool.submit(start, number) for number in range(200)]
            try:
                gate = restart(gate, 50, signal.SIGKILL)
                gate = restart(gate, 120, signal.SIGTERM)
            except BaseException:
                deadline = 0  # nobody tries any longer
                raise
            for one in every:
                one.result()
        created = {one.event.container for one in node.events() if isinstance(one.event, Create)}
        node.await_kind("exit", len(created))
    finally:
        gate.terminate()
        gate.wait(READY_SECONDS)
    assert len(ran) == 200
    assert set(ran) <= created
    assert refusals
    assert all("[gate-unreachable]" in said for said in refusals)
    assert node.kinds().count("gate-start") == 3
    assert node.kinds().count("exit") == len(created)
    node.check_replay()
