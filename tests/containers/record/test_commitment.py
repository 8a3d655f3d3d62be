from __future__ import annotations

import hashlib
import hmac
import os
import stat

import pytest
from recording import agreed, gate_of

from catena.containers.record.commitment import KEY_FILE, boot_key, commitments
from catena.containers.record.failure import ExposedRecord, RecordUnwritable
from changed import replace
from small_records import LAUNCH, create, execute
from swtpm import needs_swtpm

KEY = bytes(range(32))
CANARY = "canary-3f9a-of-a-secret"


def test_a_commitment_is_keyed_over_name_and_value():
    wanted = hmac.new(KEY, b"TOKEN=hunter2", hashlib.sha256).hexdigest()
    assert commitments(KEY, ["TOKEN=hunter2"]) == {"TOKEN": wanted}


def test_the_same_value_is_recognised_and_another_told_apart():
    one, same, other = (commitments(KEY, [entry])["A"] for entry in ("A=x", "A=x", "A=y"))
    assert one == same != other


def test_names_values_and_keys_matter():
    seen = [
        commitments(KEY, ["A=x"])["A"],
        commitments(KEY, ["B=x"])["B"],
        commitments(KEY[::-1], ["A=x"])["A"],
        commitments(KEY, ["A"])["A"],
        commitments(KEY, ["A="])["A"],
        commitments(KEY, ["A=x", "A=y"])["A"],
        commitments(KEY, ["A=y", "A=x"])["A"],
    ]
    assert len(set(seen)) == len(seen)


def test_a_value_may_hold_anything():
    assert list(commitments(KEY, ["A=b=c", "B=\udc80", "=x"])) == ["A", "B", ""]


def test_a_boot_has_one_private_key(tmp_path):
    key = boot_key(tmp_path)
    assert len(key) == 32
    assert boot_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [KEY_FILE]


def test_two_boots_have_two_keys(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert boot_key(tmp_path / "a") != boot_key(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path, mode):
    boot_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(ExposedRecord):
        boot_key(tmp_path)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_size_is_refused(tmp_path, content):
    (tmp_path / KEY_FILE).touch(0o600)
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(ExposedRecord):
        boot_key(tmp_path)


def test_a_key_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").write_bytes(KEY)
    (tmp_path / KEY_FILE).symlink_to("elsewhere")
    with pytest.raises(RecordUnwritable):
        boot_key(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecordUnwritable):
        boot_key(tmp_path / "none")


@pytest.mark.tpm
@needs_swtpm
def test_no_value_of_the_environment_is_in_any_file(path, machine):
    key = boot_key(path.parent.parent)
    env = commitments(key, ["PATH=/bin", f"TOKEN={CANARY}", f"TOKEN={CANARY}"])
    launch = replace(LAUNCH, env=env)
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create(launch=launch))
        recorder.append(execute(launch=launch))
        events = agreed(path, recorder._tpm)
    assert events[2].event.launch.env["TOKEN"] == env["TOKEN"]
    written = [
        os.path.join(folder, name)  # noqa: PTH118 - as os.walk gives them
        for folder, _, names in os.walk(path.parent.parent)
        for name in names
    ]
    assert len(written) == 3
    for name in written:
        with open(name, "rb") as stream:  # noqa: PTH123 - as above
            assert CANARY.encode() not in stream.read()
