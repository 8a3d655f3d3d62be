from __future__ import annotations

import base64

import pytest

from catena.formats import gpt
from catena.ids import HashAlg
from catena.lab import probe
from catena.lab.probe import ProbeGarbled, ProbeSilent, read_report
from catena.osimage import boot_inputs
from small_images import read_cpio


def told(*, log=b"log", end="done"):
    def file(name, content):
        return f"file {name}\r\n{base64.encodebytes(content).decode()}end\n"

    return (
        file("binary_bios_measurements", log)
        + file("binary_runtime_measurements", b"i" * 100)
        + file("command_line", b"quiet\n")
        + f"pcr sha1 0 {'AB' * 20}\npcr sha256 15 {'cd' * 32}\n{end}\n"
    ).encode()


def test_a_report_is_read():
    report = read_report(told(), "x")
    assert (report.event_log, report.ima_log, report.command_line) == (b"log", b"i" * 100, "quiet")
    assert report.pcrs == {
        HashAlg.SHA1: {0: b"\xab" * 20},
        HashAlg.SHA256: {15: b"\xcd" * 32},
    }


def test_what_firmware_prints_before_a_report_is_no_part_of_it():
    noise = b"BdsDxe: starting Boot0001\r\n\r\n"
    assert read_report(noise + told(), "x") == read_report(told(), "x")


@pytest.mark.parametrize("content", [b"", told()[:-5], told(end="")])
def test_a_report_without_an_end_is_none(content):
    with pytest.raises(ProbeSilent, match="told nothing, or not all") as caught:
        read_report(content, "x", "console: Access Denied")
    assert caught.value.got == "console: Access Denied"


@pytest.mark.parametrize(
    "change",
    [
        (b"bG9n", b"bG9"),
        (b"pcr sha1", b"pcr md5"),
        (b"pcr sha1", b"pcr"),
        (b"file command_line", b"file other"),
    ],
)
def test_a_garbled_report_is_refused(change):
    with pytest.raises(ProbeGarbled):
        read_report(told().replace(*change), "x")


def test_the_probes_system_is_one_program_and_one_script(tmp_path):
    from catena.osimage.tool import ZSTD, run

    files = read_cpio(run(ZSTD, ("-d", "-q", "-c"), content=probe.initrd()))
    assert {"init", "bin/busybox", "bin/sh"} <= set(files)
    assert files["init"][2].startswith(b"#!/bin/sh\n")


def test_a_probes_disk_holds_its_files(tmp_path):
    disk = tmp_path / "disk.img"
    contents = {"/EFI/BOOT/BOOTX64.EFI": b"x" * 5000, "/loader/Entries/a b.conf": b"text"}
    probe.make_disk(disk, "name", contents)
    table = gpt.parse_event(gpt.measured_data(disk.read_bytes()[:65536]))
    (esp,) = table.partitions
    files = boot_inputs._copy_esp(disk, esp, tmp_path)
    assert files.read("/efi/boot/bootx64.efi") == b"x" * 5000
    assert files.read("/LOADER/ENTRIES/A B.conf") == b"text"
    again = tmp_path / "again.img"
    probe.make_disk(again, "name", contents)
    assert again.read_bytes() == disk.read_bytes()
