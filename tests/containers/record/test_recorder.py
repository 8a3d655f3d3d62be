from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from recording import agreed, begin, gate_of, kinds, now, recorder_of

import small_indices
from catena.containers.record import batches, room
from catena.containers.record import recorder as recorder_module
from catena.containers.record.failure import (
    ExposedRecord,
    RecorderStopped,
    RecordFull,
    RecordInUse,
)
from catena.containers.record.file import MAX_ARCHIVES, archives
from catena.containers.record.refused import (
    NoGateStart,
    NoPolicyInForce,
    NoSuchContainer,
    RecordMismatch,
)
from catena.containers.record.replay import read_record
from catena.errors import FormatError
from catena.formats import cel
from catena.formats.containerlog import Exec
from catena.ids import HashAlg
from catena.tpm.extender import open_pcr
from changed import replace
from small_records import BOOT, IMAGE, LAUNCH, create, deny, execute, leave, policy
from swtpm import needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

STORY = ["gate-start", "policy", "create", "exec", "deny", "exit"]


def tell(recorder):
    for event in (create(), execute(), deny(), leave()):
        recorder.append(event)


def test_what_is_appended_is_in_the_file_and_in_the_tpm(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        tell(recorder)
        events = agreed(path, recorder._tpm)
    assert kinds(events) == STORY
    assert {one.pcr for one in events} == {15}
    assert events[0].event.boot == BOOT
    assert events[2].event == replace(create(), at=events[2].event.at)


def test_file_and_tpm_agree_after_every_single_event(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        for count, event in enumerate((create(), execute(), deny(), leave()), 3):
            recorder.append(event)
            assert len(agreed(path, recorder._tpm)) == count


def test_another_pcr_can_be_chosen(path, machine):
    with open_pcr(machine.tcti, 15) as default:
        before = default.read(HashAlg.SHA256)
    with gate_of(path, machine.tcti, pcr=14) as recorder:
        tell(recorder)
        assert {one.pcr for one in agreed(path, recorder._tpm)} == {14}
    with open_pcr(machine.tcti, 15) as default:
        assert default.read(HashAlg.SHA256) == before


def test_a_pcr_that_others_extended_before_is_taken_over(path, machine):
    with open_pcr(machine.tcti) as tpm:
        tpm.extend({bank: bank.digest(b"machine-id") for bank in tpm.banks()})
    with gate_of(path, machine.tcti) as recorder:
        tell(recorder)
        agreed(path, recorder._tpm)


def test_an_nv_index_can_be_the_place(path, machine):
    for round_ in range(2):
        with recorder_of(path, machine.tcti, nv_index=small_indices.ONE) as recorder:
            assert begin(recorder).events == 6 * round_
            tell(recorder)
            events = agreed(path, recorder._tpm)
    assert {(one.pcr, one.nv_index) for one in events} == {(None, small_indices.ONE)}
    assert kinds(events) == STORY * 2


def test_two_tenants_write_records_of_their_own(path, machine):
    other = path.with_name("other.cel")
    with recorder_of(path, machine.tcti, nv_index=small_indices.ONE) as recorder:
        begin(recorder)
    with recorder_of(other, machine.tcti, nv_index=small_indices.TWO) as recorder:
        begin(recorder)
        tell(recorder)
        assert kinds(agreed(other, recorder._tpm)) == STORY
    with recorder_of(path, machine.tcti, nv_index=small_indices.ONE) as recorder:
        assert begin(recorder).events == 2


def test_a_record_of_another_tenant_is_refused(path, machine):
    with recorder_of(path, machine.tcti, nv_index=small_indices.ONE) as recorder:
        begin(recorder)
    with (
        recorder_of(path, machine.tcti, nv_index=small_indices.TWO) as recorder,
        pytest.raises(RecordMismatch),
    ):
        recorder.recover()


def test_an_index_begins_a_new_record_at_the_next_boot(path, machine):
    with recorder_of(path, machine.tcti, nv_index=small_indices.ONE) as recorder:
        begin(recorder)
        tell(recorder)
    machine.power_cycle()
    with recorder_of(path, machine.tcti, nv_index=small_indices.ONE, boot="b" * 36) as recorder:
        assert begin(recorder).events == 0
        assert kinds(agreed(path, recorder._tpm)) == ["gate-start", "policy"]
    assert len(archives(path)) == 1


def test_files_are_private(path, machine):
    with gate_of(path, machine.tcti):
        pass
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


def test_any_launch_can_be_recorded(path, machine):
    argv = ("x" * 10_000,) * 100
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create(launch=replace(LAUNCH, argv=argv, argv_total=len(argv))))
        recorder.append(deny(message="\udc80" * 1000, container="\0" * 3000))
        events = agreed(path, recorder._tpm)
    assert events[2].event.launch.abridged


# Times -------------------------------------------------------------------------------------


def test_events_have_the_time_of_recording(path, machine):
    before = now()
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create(-10_000))
        events = agreed(path, recorder._tpm)
    assert all(before <= one.event.at <= now() for one in events)


def test_a_clock_that_goes_back_does_not_take_the_record_along(path, machine):
    clock = iter([now() + timedelta(hours=hours) for hours in (0, 5, 3, 1, -3, 6)])
    with gate_of(path, machine.tcti, now=lambda: next(clock)) as recorder:
        recorder.append(create())
        recorder.append(leave())
        times = [one.event.at for one in agreed(path, recorder._tpm)]
    assert times == sorted(times)


# Order -------------------------------------------------------------------------------------


def test_nothing_is_recorded_before_recovery(path, machine):
    with recorder_of(path, machine.tcti) as recorder, pytest.raises(RecorderStopped):
        recorder.append(deny())
    assert not path.exists()


def test_a_gate_begins_with_gate_start_every_time(path, machine):
    for _ in range(2):
        with recorder_of(path, machine.tcti) as recorder:
            recorder.recover()
            with pytest.raises(NoGateStart):
                recorder.append(deny())
            begin(recorder)
            agreed(path, recorder._tpm)


@pytest.mark.parametrize(
    ("event", "refusal"),
    [
        (create(policy="00" * 32), NoPolicyInForce),
        (execute(), NoSuchContainer),
        (leave(), NoSuchContainer),
        (create(root="no digest"), FormatError),
        (create(policy="\udc80"), FormatError),
    ],
)
def test_what_does_not_follow_leaves_nothing_behind(path, machine, event, refusal):
    with gate_of(path, machine.tcti) as recorder:
        with pytest.raises(refusal):
            recorder.append(event)
        assert kinds(agreed(path, recorder._tpm)) == ["gate-start", "policy"]
        tell(recorder)
        assert kinds(agreed(path, recorder._tpm)) == STORY


def test_running_containers_are_known_across_gates(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        recorder.append(create(container="db"))
        recorder.append(leave(container="db"))
        assert (recorder.is_live("web"), recorder.is_live("db")) == (True, False)
    with recorder_of(path, machine.tcti) as recorder:
        assert begin(recorder).live == {"web": IMAGE}
        recorder.append(execute())
        recorder.append(leave())
        agreed(path, recorder._tpm)


# Many at once ------------------------------------------------------------------------------


def test_concurrent_events_are_all_recorded(path, machine):
    names = [f"c{number}" for number in range(200)]
    with gate_of(path, machine.tcti) as recorder, ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda name: recorder.append(create(container=name)), names))
        events = agreed(path, recorder._tpm)
    assert sorted(one.event.container for one in events[2:]) == sorted(names)


def test_concurrent_events_share_a_write(path, machine, monkeypatch):
    syncs, release = [], threading.Event()

    def slow(descriptor):
        syncs.append(descriptor)
        release.wait(10)
        os.fsync(descriptor)

    with gate_of(path, machine.tcti) as recorder, ThreadPoolExecutor(20) as pool:
        monkeypatch.setattr(os, "fdatasync", slow)
        waiting = [pool.submit(recorder.append, create(container=f"c{n}")) for n in range(20)]
        while len(syncs) < 1 or len(recorder._batches._waiting) < 19:
            pass
        release.set()
        for one in waiting:
            one.result()
        agreed(path, recorder._tpm)
    assert len(syncs) == 2


def test_a_refused_event_does_not_take_its_batch_along(path, machine):
    events = [create(container=f"c{n}", policy=("ab", "00")[n % 2] * 32) for n in range(40)]

    def outcome(event):
        try:
            recorder.append(event)
        except NoPolicyInForce:
            return "refused"
        return "recorded"

    with gate_of(path, machine.tcti) as recorder, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(outcome, events)) == ["recorded", "refused"] * 20
        assert len(agreed(path, recorder._tpm)) == 22


def test_a_batch_is_no_longer_than_recovery_completes(path, machine, monkeypatch):
    sizes = []

    class Counting(batches.Batches):
        def __init__(self, commit):
            super().__init__(lambda batch: (sizes.append(len(batch)), commit(batch)))

    monkeypatch.setattr(recorder_module, "Batches", Counting)
    with gate_of(path, machine.tcti) as recorder, ThreadPoolExecutor(150) as pool:
        list(pool.map(lambda n: recorder.append(create(container=f"c{n}")), range(450)))
    assert max(sizes) <= batches.MAX_BATCH
    assert sum(sizes) == 452


# Bounds and other writers ------------------------------------------------------------------


def test_a_full_record_takes_exits_but_no_launches(path, machine, monkeypatch):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        monkeypatch.setattr(cel, "MAX_LOG", room.RESERVE + path.stat().st_size)
        for event in (create(container="db"), execute(), deny()):
            with pytest.raises(RecordFull):
                recorder.append(event)
        recorder.append(leave())
        assert kinds(agreed(path, recorder._tpm)) == ["gate-start", "policy", "create", "exit"]


def append_again_and_again(recorder, event):
    for count in range(100):
        launch = replace(LAUNCH, config=f"{count:064x}")
        recorder.append(replace(event, launch=launch) if isinstance(event, Exec) else event)


@pytest.mark.parametrize("event", [deny(), execute()])
def test_refusals_and_commands_cannot_fill_a_record(path, machine, monkeypatch, event):
    monkeypatch.setattr(cel, "MAX_LOG", room.RESERVE + 20_000)
    share = 20_000 * room.SHARES[type(event)]
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        before = path.stat().st_size
        with pytest.raises(RecordFull, match="no room for more"):
            append_again_and_again(recorder, event)
        assert share - 2000 < path.stat().st_size - before <= share
    with gate_of(path, machine.tcti) as recorder:
        with pytest.raises(RecordFull, match="no room for more"):
            append_again_and_again(recorder, event)
        recorder.append(create(container="db"))
        agreed(path, recorder._tpm)


def without_room_for_commands(recorder, monkeypatch):
    recorder.append(create())
    recorder.append(execute())
    monkeypatch.setattr(room, "SHARES", {Exec: 0})
    return recorder.path.stat().st_size


def test_a_known_command_runs_when_there_is_no_room_to_record_it_again(path, machine, monkeypatch):
    with gate_of(path, machine.tcti) as recorder:
        size = without_room_for_commands(recorder, monkeypatch)
        recorder.append(execute())
        assert path.stat().st_size == size
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(execute())
        assert kinds(agreed(path, recorder._tpm)).count("exec") == 1


def other_command(recorder):
    recorder.append(execute(launch=replace(LAUNCH, config="00" * 32)))


def other_container(recorder):
    recorder.append(create(container="db"))
    recorder.append(execute(container="db"))


def other_policy(recorder):
    recorder.append(policy(digest="00" * 32))
    recorder.append(execute(policy="00" * 32))


def started_again(recorder):
    recorder.append(create())
    recorder.append(execute())


@pytest.mark.parametrize("change", [other_command, other_container, other_policy, started_again])
def test_another_command_does_not(path, machine, monkeypatch, change):
    with gate_of(path, machine.tcti) as recorder:
        without_room_for_commands(recorder, monkeypatch)
        with pytest.raises(RecordFull):
            change(recorder)


def test_a_known_command_is_refused_where_any_command_is(path, machine, monkeypatch):
    with gate_of(path, machine.tcti) as recorder:
        without_room_for_commands(recorder, monkeypatch)
        recorder.append(policy(digest="00" * 32))
        with pytest.raises(NoPolicyInForce):
            recorder.append(execute())
        recorder.append(policy())
        recorder.append(leave())
        with pytest.raises(RecordFull):
            recorder.append(execute())
    with recorder_of(path, machine.tcti) as recorder:
        recorder.recover()
        with pytest.raises(NoGateStart):
            recorder.append(deny())


def test_a_record_that_is_quite_full_takes_nothing(path, machine, monkeypatch):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        monkeypatch.setattr(cel, "MAX_LOG", path.stat().st_size)
        for event in (leave(), policy(), recorder.gate_start("test")):
            with pytest.raises(RecordFull):
                recorder.append(event)


def test_the_number_of_events_is_bounded(path, machine, monkeypatch):
    monkeypatch.setattr(cel, "MAX_RECORDS", 3)
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        with pytest.raises(RecordFull):
            recorder.append(leave())


def test_two_gates_cannot_record_at_once(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        other = recorder_module.Recorder(path, recorder._tpm, now, boot=BOOT)
        with pytest.raises(RecordInUse):
            other.recover()
        with pytest.raises(RecorderStopped):
            other.append(deny())
        tell(recorder)
        agreed(path, recorder._tpm)


def test_a_recorder_that_was_closed_records_nothing(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder.close()
        with pytest.raises(RecorderStopped, match="closed"):
            recorder.append(deny())


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "replaced"])
def test_a_file_that_somebody_else_changed_stops_the_recorder(path, machine, change):
    with gate_of(path, machine.tcti) as recorder:
        wire = path.read_bytes()
        if change in {"gone", "replaced"}:
            path.unlink()
        if change != "gone":
            path.write_bytes(wire + b"x" if change == "longer" else wire[:-1])
        for _ in range(2):
            with pytest.raises(RecorderStopped, match="somebody else"):
                recorder.append(create())


def damage_link(path):
    path.parent.mkdir(mode=0o700)
    path.symlink_to("/dev/null")


def damage_mode(path):
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o644)


def damage_folder(path):
    path.parent.mkdir()
    path.parent.chmod(0o777)


def damage_pipe(path):
    path.parent.mkdir(mode=0o700)
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("damage", [damage_link, damage_mode, damage_folder, damage_pipe])
def test_a_record_that_others_could_have_written_is_refused(path, machine, damage):
    damage(path)
    with recorder_of(path, machine.tcti) as recorder:
        with pytest.raises(ExposedRecord):
            recorder.recover()
        with pytest.raises(RecorderStopped):
            recorder.append(deny())


# Boots -------------------------------------------------------------------------------------


def boot_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def test_a_new_boot_begins_a_new_record_and_keeps_the_old(path, machine):
    with gate_of(path, machine.tcti, boot=boot_id(1)) as recorder:
        tell(recorder)
    old = path.read_bytes()
    machine.power_cycle()
    with recorder_of(path, machine.tcti, boot=boot_id(2)) as recorder:
        assert begin(recorder).events == 0
        assert len(agreed(path, recorder._tpm)) == 2
    assert path.with_name(f"record-{boot_id(1)}.cel").read_bytes() == old


def test_earlier_boots_are_bounded(path, machine):
    for number in range(MAX_ARCHIVES + 4):
        with recorder_of(path, machine.tcti, boot=boot_id(number)) as recorder:
            begin(recorder)
    kept = [read_record(one.read_bytes())[0].event.boot for one in archives(path)]
    assert sorted(kept) == [boot_id(number) for number in range(3, MAX_ARCHIVES + 3)]


@pytest.mark.parametrize("boot", ["../../evil", "a/b", "", "x" * 400])
def test_the_name_of_a_boot_does_not_leave_the_folder(path, machine, boot):
    with recorder_of(path, machine.tcti, boot=boot or "?") as recorder:
        begin(recorder)
    with recorder_of(path, machine.tcti) as recorder:
        begin(recorder)
    names = sorted(one.name for one in path.parent.iterdir())
    assert names == ["record-unknown.cel", "record.cel", "record.lock"]


def test_a_tpm_that_was_reset_in_the_same_boot_is_a_mismatch(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        tell(recorder)
    machine.power_cycle()
    with recorder_of(path, machine.tcti) as recorder, pytest.raises(RecordMismatch):
        recorder.recover()


def test_the_boot_is_the_kernels(path, machine):
    with recorder_of(path, machine.tcti, boot="") as recorder:
        begin(recorder)
        (first, *_) = agreed(path, recorder._tpm)
    with open("/proc/sys/kernel/random/boot_id") as kernel:  # noqa: PTH123 - read like a user
        assert first.event.boot == kernel.read().strip()
