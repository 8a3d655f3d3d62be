"""Logs of a running system, listed: what is proven, and what only says so."""

from __future__ import annotations

import msgspec
import pytest

from catena.formats import cel
from catena.ids import HashAlg
from catena.measure import logfile
from catena.measure.listing import list_ima, list_records
from changed import replace
from small_logs import CEL_RECORDS, CEL_TLV, IMA_ENTRIES, ima_entry


def test_files_are_listed_with_their_digests():
    listing = list_ima(IMA_ENTRIES)
    assert (listing.events, listing.unproven, listing.violations) == (2, 0, 0)
    first = listing.entries[0]
    assert (first.pcr, first.kind, first.words) == (10, "ima-ng", "/init")
    assert first.digest == f"sha256:{HashAlg.SHA256.digest(b'/init').hex()}"


def test_a_path_that_no_digest_covers_is_not_proven():
    forged = msgspec.structs.replace(IMA_ENTRIES[0], template_digest=b"\1" * 20)
    (entry,) = list_ima([forged]).entries
    assert (entry.proven, entry.violation) == (False, False)


def test_a_violation_proves_no_file():
    torn = msgspec.structs.replace(IMA_ENTRIES[0], template_digest=bytes(20))
    listing = list_ima([torn])
    assert (listing.unproven, listing.violations) == (1, 1)
    assert listing.entries[0].violation


@pytest.mark.parametrize(
    ("buffer", "words"),
    [(b"root=/dev/vda\0", "kexec-cmdline: root=/dev/vda"), (b"\1\2", "kexec-cmdline: 0102")],
)
def test_a_measured_buffer_is_shown(buffer, words):
    (entry,) = list_ima([ima_entry(0, b"kexec-cmdline", buffer, template="ima-buf")]).entries
    assert entry.words == words


def test_a_path_cannot_control_a_terminal():
    (entry,) = list_ima([ima_entry(0, b"/a\n\x1b[2J\xff")]).entries
    assert entry.words.isprintable()


def test_records_are_proven_only_if_all_banks_cover_their_text():
    assert list_records(cel.parse_tlv(CEL_TLV)).unproven == 0
    digests = {**CEL_RECORDS[0].digests, HashAlg.SHA1: bytes(20)}
    (entry,) = list_records([replace(CEL_RECORDS[0], digests=digests)]).entries
    assert not entry.proven
    (nowhere,) = list_records([replace(CEL_RECORDS[0], digests={})]).entries
    assert (nowhere.proven, nowhere.digest) == (False, "")


def test_every_real_ima_log_is_listed(corpus):
    listed = 0
    for file in sorted((corpus / "ima").glob("*runtime_measurements")):
        kind, log = logfile.parse(file.read_bytes())
        listing = list_ima(log)
        assert kind == "ima"
        assert listing.events == len(listing.entries) > 0
        assert all(one.words.isprintable() for one in listing.entries)
        listed += 1
    assert listed
