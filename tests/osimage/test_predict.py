from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from catena.errors import FormatError
from catena.formats import pe, tcglog
from catena.formats.gpt import Partition, PartitionTable
from catena.formats.references import ExpectedEvent
from catena.ids import HashAlg
from catena.osimage import predict, uki
from catena.osimage.predict import IncompleteUki, UnknownStub
from catena.osimage.uki import Part
from small_images import SDMAGIC, small_kernel, small_stub

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/boots"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")

PARTITION = Partition(uuid.UUID(int=1), uuid.UUID(int=2), 2048, 4095, 0, "esp")
TABLE = PartitionTable(uuid.UUID(int=3), 8192, (PARTITION,))


def image_of(*names, stub=None, cmdline=b"quiet"):
    contents = {
        ".osrel": b"ID=x\n",
        ".cmdline": cmdline,
        ".initrd": b"initrd",
        ".linux": small_kernel(),
        ".uname": b"6.1",
    }
    parts = [Part(name, contents[name]) for name in names]
    return pe.parse(uki.assemble(stub or small_stub(), parts))


ALL = (".osrel", ".cmdline", ".initrd", ".linux")


@needs_corpus
def test_formulas_reproduce_a_real_boot():
    """Boot B was a direct UKI boot with stub 252. Its image is gone, its measurements are not:
    what the log says of gpt, image, kernel and initrd, and the known command line, must
    combine to the PCRs that the TPM had, in the order that is predicted."""
    state = json.loads((CORPUS / "B_sb_own_uki/state.json").read_text())
    log = tcglog.parse((CORPUS / "B_sb_own_uki/eventlog.bin").read_bytes())
    predicted = predict.release_events(image_of(*ALL, cmdline=state["cmdline"].encode()), TABLE)
    from_image = {"gpt", "uki", "initrd", "section:.linux", "section:.osrel", "section:.initrd"}
    for bank in (HashAlg.SHA256,):
        measured = _by_identifier(log, bank)
        events = [
            ExpectedEvent(
                id=event.id,
                pcr=event.pcr,
                what=event.what,
                digests={
                    one.value: (
                        measured[event.id] if event.id in from_image else event.digests[one]
                    )
                    if one is bank
                    else "00" * one.size
                    for one in predict.BANKS
                },
            )
            for event in predicted
        ]
        values = predict.pcr_values(events)[bank]
        assert values == {str(pcr): state["pcrs"][bank][str(pcr)] for pcr in predict.RELEASE_PCRS}


def _by_identifier(log, bank):
    """Digests of the events that depend on files the corpus does not have."""

    def digests(pcr, *types):
        return [
            one.digests[bank].hex() for one in log.events if one.pcr == pcr and one.type in types
        ]

    sections = digests(11, 0xD)
    return {
        "gpt": digests(5, 0x80000006)[0],
        "uki": digests(4, 0x80000003)[0],
        "initrd": digests(9, 0x6)[1],
        "section:.linux": sections[1],
        "section:.osrel": sections[3],
        "section:.initrd": sections[7],
    }


def test_sections_are_predicted_in_the_stubs_order():
    events = predict.release_events(image_of(*ALL), TABLE)
    assert [event.id for event in events if event.pcr == 11] == [
        f"{kind}:{name}"
        for name in (".linux", ".osrel", ".cmdline", ".initrd")
        for kind in ("section-name", "section")
    ]
    name = next(event for event in events if event.id == "section-name:.cmdline")
    assert name.digests["sha256"] == HashAlg.SHA256.digest(b".cmdline\0").hex()


def test_sections_that_the_stub_skips_are_not_predicted():
    events = predict.release_events(image_of(*ALL, ".uname"), TABLE)
    assert not any(".uname" in event.id or ".sbat" in event.id for event in events)


def test_kernel_receives_the_command_line_in_utf_16_with_nul():
    image = image_of(*ALL, cmdline=b"a b")
    assert predict.load_options(image) == b"a\0 \0b\0\0\0"


def test_every_bank_is_predicted():
    events = predict.release_events(image_of(*ALL), TABLE)
    assert all(set(event.digests) == {"sha256", "sha384"} for event in events)
    assert all(len(event.digests["sha384"]) == 96 for event in events)
    pcrs = predict.pcr_values(events)
    assert set(pcrs) == {"sha256", "sha384"}
    assert set(pcrs["sha256"]) == {"4", "5", "9", "11", "12"}
    assert set(pcrs["sha256"]["12"]) == {"0"}


def test_identifiers_are_unique():
    identifiers = [event.id for event in predict.release_events(image_of(*ALL), TABLE)]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize(
    "magic",
    [
        b"",
        b"systemd-stub 252",
        SDMAGIC.replace(b"252", b"999"),
        SDMAGIC.replace(b"systemd-stub", b"systemd-boot"),
        SDMAGIC + SDMAGIC,
    ],
)
def test_unknown_stubs_are_refused(magic):
    with pytest.raises(UnknownStub):
        predict.release_events(image_of(*ALL, stub=small_stub(magic)), TABLE)


def test_stub_names_itself():
    assert predict.stub_version(image_of(*ALL)) == "systemd-stub 252.39-1"


@pytest.mark.parametrize("missing", [".cmdline", ".initrd"])
def test_image_without_a_needed_section_is_refused(missing):
    names = [name for name in ALL if name != missing]
    with pytest.raises(IncompleteUki):
        predict.release_events(image_of(*names), TABLE)
    assert issubclass(IncompleteUki, FormatError)
