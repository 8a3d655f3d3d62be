from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import ima
from catena.ids import HashAlg
from changed import replace

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")


def entry(fields, *, template="ima-ng", pcr=10, index=0, violation=False):
    if template == "ima":
        data = fields[0] + len(fields[1]).to_bytes(4, "little") + fields[1]
        hashed = fields[0] + fields[1].ljust(256, b"\0")
    else:
        data = hashed = ima.encode_fields(*fields)
    digest = bytes(20) if violation else hashlib.sha1(hashed).digest()
    return ima.ImaEntry(index, pcr, digest, template, data, tuple(fields))


NG = entry([b"sha256:\0" + b"h" * 32, b"/usr/bin/true\0"])
SIG = entry([b"sha256:\0" + b"h" * 32, b"/usr/bin/true\0", b"\3\2" + b"s" * 30], template="ima-sig")
OLD = entry([b"h" * 20, b"boot_aggregate"], template="ima")
VIOLATION = entry([b"sha1:\0" + bytes(20), b"/var/log/x\0"], violation=True)
LOG = b"".join(map(ima.encode, (NG, SIG, OLD, VIOLATION)))


def test_every_template_is_read_back():
    entries = ima.parse(LOG)
    expected = (NG, replace(SIG, index=1), replace(OLD, index=2), replace(VIOLATION, index=3))
    assert entries == expected
    assert b"".join(map(ima.encode, entries)) == LOG


def test_empty_log_has_no_entries():
    assert ima.parse(b"") == ()


def test_file_and_digest_are_shown():
    assert (NG.path, NG.file_digest) == ("/usr/bin/true", ("sha256", b"h" * 32))
    assert (OLD.path, OLD.file_digest) == ("boot_aggregate", ("sha1", b"h" * 20))
    assert entry([b"bare", b"\xff\0"]).file_digest == ("", b"bare")
    assert entry([b"bare", b"\xff\0"]).path == "\\xff"


def test_other_banks_extend_their_own_hash_of_the_template_data():
    assert ima.replay_digest(NG, HashAlg.SHA256) == hashlib.sha256(NG.template_data).digest()
    assert ima.replay_digest(NG, HashAlg.SHA1) == NG.template_digest


def test_old_template_hashes_the_path_padded():
    assert ima.replay_digest(OLD, HashAlg.SHA1) == OLD.template_digest


def test_violation_extends_ones():
    assert VIOLATION.is_violation
    assert ima.replay_digest(VIOLATION, HashAlg.SHA256) == b"\xff" * 32


def test_lying_template_digest_changes_nothing():
    lie = replace(NG, template_digest=b"l" * 20)
    assert ima.replay_digest(lie, HashAlg.SHA256) == ima.replay_digest(NG, HashAlg.SHA256)


def test_log_truncated_inside_an_entry_is_malformed():
    ends = [0]
    for one in ima.parse(LOG):
        ends.append(ends[-1] + len(ima.encode(one)))
    for size in range(len(LOG)):
        if size in ends:
            assert len(ima.parse(LOG[:size])) == ends.index(size)
            continue
        with pytest.raises(FormatError) as refused:
            ima.parse(LOG[:size])
        assert 0 <= refused.value.offset <= size


def test_log_with_a_flipped_bit_parses_or_is_malformed():
    assert all(refuses_cleanly(ima.parse, flipped) for flipped in bit_flips(LOG))


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (ima.encode(replace(NG, pcr=24)), "PCR is out of range"),
        (bytes(4) + bytes(20) + b"\0\0\0\0", "printable"),
        (ima.encode(replace(NG, template_name="a\x1bb")), "printable"),
        (bytes(4) + bytes(20) + b"\xff\xff\xff\xff", "too long"),
        (bytes(24) + b"\x06\0\0\0ima-ng\xff\xff\xff\x7f", "too long"),
        (ima.encode(replace(NG, template_data=b"\1\0\0\0a")), "number of fields"),
        (ima.encode(replace(NG, template_data=b"\0\0\0\0" * 17)), "number of fields"),
        (ima.encode(replace(NG, template_data=b"\1\0\0\0a\1\0\0")), "field length runs past"),
        (ima.encode(replace(NG, template_data=b"\xff\xff\xff\xffa")), "field is too long"),
        (ima.encode(replace(NG, template_data=b"\2\0\0\0a")), "field runs past"),
        (bytes(24) + b"\3\0\0\0ima" + bytes(20) + (256).to_bytes(4, "little"), "too long"),
        (bytes(ima.MAX_LOG + 1), "too large"),
    ],
)
def test_malformed_log_is_refused(wire, fault):
    with pytest.raises(FormatError, match=fault):
        ima.parse(wire)


def test_number_of_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(ima, "MAX_ENTRIES", 3)
    with pytest.raises(FormatError, match="too many"):
        ima.parse(LOG)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data):
    assert refuses_cleanly(ima.parse, data)
    assert refuses_cleanly(ima.parse, LOG + data)


@given(
    fields=st.lists(st.binary(max_size=60), min_size=2, max_size=6),
    pcr=st.integers(0, 23),
    violation=st.booleans(),
)
def test_any_entry_round_trips(fields, pcr, violation):
    made = entry(fields, template="ima-buf", pcr=pcr, violation=violation)
    assert ima.parse(ima.encode(made)) == (made,)


@needs_corpus
def test_real_log_agrees_with_the_kernels_own_text_form():
    folder = CORPUS / "ima"
    name = "Fraunhofer-SIT+charra__logs__ima__{}_runtime_measurements"
    entries = ima.parse((folder / name.format("binary")).read_bytes())
    lines = (folder / name.format("ascii")).read_text().splitlines()
    shared = min(len(entries), len(lines))
    assert shared > 500
    for one, line in zip(entries[:shared], lines[:shared], strict=True):
        pcr, digest, template, file_digest, path = line.split(" ", 4)
        algorithm, content = one.file_digest
        assert (one.pcr, one.template_digest.hex()) == (int(pcr), digest)
        assert (one.template_name, one.path) == (template, path)
        assert f"{algorithm}:{content.hex()}" == file_digest


@needs_corpus
@pytest.mark.parametrize(
    ("name", "size"),  # the fixtures end in a stray newline or a cut entry
    [
        ("Fraunhofer-SIT+charra__logs__ima__binary_runtime_measurements", None),
        ("tpm2-software+tpm2-tss__test__data__fapi__eventlog__sml-ima-ng-sha1.bin", 558),
        ("tpm2-software+tpm2-tss__test__data__fapi__eventlog__sml-ima-sha1.bin", 916),
        ("tpm2-software+tpm2-tss__test__data__fapi__eventlog__sml-ima-sig-sha256.bin", 987),
    ],
)
def test_real_template_digests_are_the_hash_of_their_data(name, size):
    entries = ima.parse((CORPUS / "ima" / name).read_bytes()[:size])
    assert entries
    for one in entries:
        assert one.is_violation or ima.replay_digest(one, HashAlg.SHA1) == one.template_digest


@needs_corpus
@pytest.mark.parametrize("boot", ["A_nosb_uki", "B_sb_own_uki"])
def test_log_of_a_real_boot_starts_with_the_boot_aggregate(boot):
    state = json.loads((CORPUS / "boots" / boot / "state.json").read_text())
    entries = ima.parse(base64.b64decode(state["ima_b64"]))
    assert (entries[0].path, entries[0].template_name) == ("boot_aggregate", "ima-sig")
