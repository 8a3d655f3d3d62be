"""Real containers through wrapper, socket and guard; what decides has one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from standing import RUNC, NotToday, RecordFull, Standing, config_for, needs_runc

pytestmark = needs_runc


def configure(bundle, *argv, **changes):
    (bundle / "config.json").write_text(json.dumps(config_for(*argv, **changes)))


def test_allowed_container_runs_and_its_end_is_recorded(standing, bundle, ran):
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "c1")
        assert (done.returncode, done.stderr) == (0, "")
        assert ran()
        standing.record.await_kind("exit")
        assert standing.record.kinds() == ["create", "exit"]
        assert standing.record.events[1].container == "c1"
        assert not list((standing.folder / "run/bundles").iterdir())


def test_refused_container_never_runs_and_the_reason_is_in_the_runtime_s_log(standing, bundle, ran):
    standing.judge.refusal = NotToday("not this one", got="x")
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert not ran()
    reason = "catena refused: not this one (got x) [not-today]"
    assert done.stderr == reason + "\n"
    assert [line["msg"] for line in standing.logged()] == [reason]
    assert standing.record.kinds() == ["deny"]
    event = standing.record.events[0]
    assert (event.container, event.verb, event.code) == ("c1", "run", "not-today")


def test_dead_gate_starts_nothing(standing, bundle, ran):
    with standing.up():
        pass
    done = standing.call("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert "[gate-unreachable]" in done.stderr
    assert not ran()


def test_record_that_cannot_be_written_starts_nothing(standing, bundle, ran):
    standing.record.fault = RecordFull("no more room")
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "c1")
    assert "[record-full]" in done.stderr
    assert not ran()
    assert not list((standing.folder / "run/bundles").iterdir())
    assert [event for event, _ in standing.told] == ["denied", "unrecorded"]


def test_defect_of_the_gate_starts_nothing(standing, bundle, ran):
    standing.judge.create = lambda *_, **__: 1 / 0
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "c1")
    assert "[gate-defect]" in done.stderr
    assert not ran()


def test_decision_that_comes_too_late_starts_nothing(room, bundle, ran):
    standing = Standing(room, seconds=0.05)
    standing.judge.pause = 0.2
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "c1")
    assert "[gate-too-late]" in done.stderr
    assert not ran()
    assert standing.record.kinds() == ["deny"]


def test_bundle_that_changes_after_the_check_changes_nothing(standing, bundle, ran):
    """The runtime reads the private copy, not what the caller may still edit."""
    check = standing.judge.create

    def then_edit(where, container, *, restore):
        allowed = check(where, container, restore=restore)
        configure(bundle, "/bin/touch", "/edited")
        return allowed

    standing.judge.create = then_edit
    with standing.up():
        assert standing.call("run", "--bundle", bundle, "c1").returncode == 0
    assert ran()
    assert not (bundle / "rootfs/edited").exists()


def test_relative_paths_of_a_bundle_keep_their_meaning(standing, bundle):
    config = config_for("/bin/cat", "/mnt/note")
    mount = {"destination": "/mnt", "type": "bind", "source": "beside", "options": ["bind", "ro"]}
    config["mounts"].append(mount)
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "beside").mkdir()
    (bundle / "beside/note").write_text("found")
    with standing.up():
        done = standing.call("run", "--bundle", bundle.name, "c1", cwd=bundle.parent)
        assert done.stdout == "found"
        assert standing.call("run", "c2", cwd=bundle).stdout == "found"


def test_created_container_starts_lives_and_is_deleted(standing, bundle):
    configure(bundle, "/bin/sleep", "60")
    with standing.up():
        pid = standing.folder / "pid"
        done = standing.call("create", "--bundle", bundle, "--pid-file", pid, "c1")
        assert done.returncode == 0, done.stderr
        assert standing.call("start", "c1").returncode == 0
        state = json.loads(standing.call("state", "c1").stdout)
        assert (state["status"], state["pid"]) == ("running", int(pid.read_text()))
        # What `state` calls the bundle is the private copy: the one that is true.
        assert state["bundle"].startswith(str(standing.folder / "run/bundles"))
        assert state["rootfs"] == str(bundle / "rootfs")
        assert standing.call("delete", "c1").returncode == 1  # it runs
        assert standing.record.kinds() == ["create"]
        assert standing.call("delete", "--force", "c1").returncode == 0
        standing.record.await_kind("exit")
        assert standing.record.kinds() == ["create", "exit"]


def test_container_that_the_runtime_could_not_create_is_recorded_as_over(standing, bundle):
    configure(bundle, "/bin/absent")
    with standing.up():
        assert standing.call("run", "--bundle", bundle, "c1").returncode == 1
        standing.record.await_kind("exit")
        configure(bundle)
        assert standing.call("run", "--bundle", bundle, "c1").returncode == 0


def test_name_that_is_taken_is_refused_until_the_container_is_gone(standing, bundle):
    configure(bundle, "/bin/sleep", "60")
    with standing.up():
        assert standing.call("run", "-d", "--bundle", bundle, "c1").returncode == 0
        again = standing.call("run", "-d", "--bundle", bundle, "c1")
        assert "[container-exists]" in again.stderr
        other = standing.plain("--root", standing.folder / "other", "run", "-b", bundle, "c1")
        assert "[container-exists]" in other.stderr
        assert standing.record.kinds() == ["create", "deny", "deny"]
        # Even if nobody told the gate of the deletion.
        subprocess.run(
            [RUNC, "--root", standing.root, "delete", "-f", "c1"], check=True, timeout=20
        )
        assert standing.call("run", "-d", "--bundle", bundle, "c1").returncode == 0


# Exec ----------------------------------------------------------------------------------------


@pytest.fixture
def sleeping(standing, bundle):
    configure(bundle, "/bin/sleep", "60", env=["PATH=/bin", "KEEP=1"])
    with standing.up():
        done = standing.call("run", "-d", "--bundle", bundle, "c1")
        assert done.returncode == 0, done.stderr
        yield standing


def test_exec_runs_what_its_options_say(sleeping):
    done = sleeping.call(
        *("exec", "-e", "MORE=2", "--cwd", "/bin", "-u", "7:8", "-g", "9", "c1"),
        *("sh", "-c", "pwd; id -u; id -G; echo $KEEP$MORE"),
    )
    assert done.stdout == "/bin\n7\n8 9\n12\n", done.stderr
    assert sleeping.record.kinds() == ["create", "exec"]


def test_exec_of_a_document_runs_the_document_that_was_checked(sleeping):
    document = config_for("/bin/echo", "first")["process"]
    file = sleeping.folder / "process.json"
    file.write_text(json.dumps(document))
    check = sleeping.judge.exec

    def then_edit(process, created):
        allowed = check(process, created)
        file.write_text(json.dumps(document | {"args": ["/bin/echo", "second"]}))
        return allowed

    sleeping.judge.exec = then_edit
    assert sleeping.call("exec", "--process", file, "c1").stdout == "first\n"


def test_refused_exec_runs_nothing(sleeping, bundle, ran):
    sleeping.judge.refusal = NotToday("no")
    done = sleeping.call("exec", "c1", "touch", "/ran")
    assert (done.returncode, ran()) == (1, False)
    assert "[not-today]" in done.stderr
    assert sleeping.record.kinds() == ["create", "deny"]


def test_exec_that_cannot_be_recorded_runs_nothing(sleeping, ran):
    sleeping.record.fault = RecordFull("no more room")
    done = sleeping.call("exec", "c1", "touch", "/ran")
    assert "[record-full]" in done.stderr
    assert not ran()
    assert not list((sleeping.folder / "run/processes").iterdir())


def test_container_that_did_not_come_through_the_gate_cannot_be_entered(standing, bundle, ran):
    configure(bundle, "/bin/sleep", "60")
    with standing.up():
        command = [RUNC, "--root", standing.root, "run", "-d", "--bundle", bundle, "c1"]
        subprocess.run(command, check=True, timeout=20, stdout=subprocess.DEVNULL)
        done = standing.call("exec", "c1", "touch", "/ran")
    assert "[unknown-container]" in done.stderr
    assert not ran()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-u", "root", "c1", "true"], "exec-unknown-option"),
        (["-g", "-1", "c1", "true"], "exec-unknown-option"),
        (["c1"], "exec-malformed"),
        (["--process", "/dev/zero", "c1"], "bundle-unreadable"),
        (["--process", "absent", "c1"], "bundle-unreadable"),
        (["--process", "/", "c1"], "bundle-unreadable"),
    ],
)
def test_exec_that_is_none_is_refused(sleeping, words, code):
    assert f"[{code}]" in sleeping.call("exec", *words).stderr


# Who asks ------------------------------------------------------------------------------------


def test_caller_with_another_view_of_the_files_is_refused(standing, bundle, ran):
    """Else the gate would check one folder and the runtime run another of the same name."""
    with standing.up():
        done = subprocess.run(
            ["unshare", "--mount", standing.wrapper, "run", "--bundle", bundle, "c1"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert "[foreign-mount-namespace]" in done.stderr
    assert not ran()


def test_wrapper_of_another_runtime_is_refused(standing, room, bundle, ran):
    other = Standing(room / "other", runtime=room / "evil")
    other.wrapper.write_text(
        other.wrapper.read_text().replace(str(other.socket), str(standing.socket))
    )
    with standing.up():
        done = other.call("run", "--bundle", bundle, "c1")
    assert "[foreign-runtime]" in done.stderr
    assert not ran()


def test_words_that_the_gate_does_not_understand_are_refused_and_recorded(standing, bundle, ran):
    with standing.up():
        done = standing.call("run", "--bundle", bundle, "--bundle", "/other", "c1")
    assert "[runtime-command-refused]" in done.stderr
    assert not ran()
    assert standing.record.kinds() == ["deny"]


# A gate that ends ----------------------------------------------------------------------------


def test_next_gate_knows_who_lives(standing, bundle):
    configure(bundle, "/bin/sleep", "60")
    with standing.up():
        standing.call("run", "-d", "--bundle", bundle, "c1")
    with standing.up():
        assert standing.call("exec", "c1", "echo", "here").stdout == "here\n"
        assert standing.call("delete", "-f", "c1").returncode == 0
        standing.record.await_kind("exit")


def test_next_gate_records_what_ended_without_one(standing, bundle):
    configure(bundle, "/bin/sleep", "60")
    with standing.up():
        standing.call("run", "-d", "--bundle", bundle, "c1")
    assert standing.call("delete", "-f", "c1").returncode == 0
    with standing.up():
        assert standing.record.kinds() == ["create", "exit"]
        assert not list((standing.folder / "run/bundles").iterdir())


def test_next_gate_waits_for_a_container_in_the_foreground(standing, bundle):
    configure(bundle, "/bin/sleep", "60")
    command = [standing.wrapper, "--root", standing.root, "run", "--bundle", bundle, "c1"]
    with standing.up():
        running = subprocess.Popen(command)
        standing.record.await_kind("create")
    with standing.up():
        assert standing.record.kinds() == ["create"]
        _await((standing.root / "c1/state.json").exists)
        subprocess.run(
            [RUNC, "--root", standing.root, "kill", "c1", "KILL"], timeout=20, check=True
        )
        running.wait(20)
        standing.record.await_kind("exit")


def test_signals_reach_the_container_as_without_the_wrapper(standing, bundle):
    configure(
        bundle, "/bin/sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    )
    command = [standing.wrapper, "--root", standing.root, "run", "--bundle", bundle, "c1"]
    with (
        standing.up(),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running,
    ):
        assert running.stdout.readline() == "ready\n"
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(20) == 7


def test_unfinished_folder_of_a_gate_that_died_is_removed(standing):
    left = standing.folder / "run/bundles/half"
    left.mkdir(parents=True)
    (left / "held.json").write_text("{")
    with standing.up():
        assert not left.exists()


def _await(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
