"""CPU time of reading and replaying logs, each figure beside its limit and its bare minimum.

The logs are made here, so nothing but the package is needed: a firmware log of 150 events in
three banks, with data as long as real boots have it, and IMA logs of 10,000 and 100,000 entries.
"Bare" is the same work without a parser: the same bytes unpacked with ``struct`` at places known
beforehand, and the same number of hashes. It is what no Python code can do without.

    python benchmarks/eventlog.py [-o json] [--rounds N]

Ends with exit code 1 if a figure misses its limit.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from catena.formats import ima, tcglog
from catena.ids import HashAlg
from catena.measure.ima_replay import ImaState, advance, at_boot
from catena.measure.replay import replay
from figures import Figure, cheapest, command, milliseconds, peak

BANK = HashAlg.SHA256
BANKS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384)
EVENTS = 150
EVENT_SIZES = (4, 16, 36, 66, 120, 240, 1600)
EV_EVENT_TAG = 6
ENTRIES = 100_000
ROUND = 1_000
"""IMA entries that are new in one round of a node that attests again and again."""


def firmware_log() -> bytes:
    """150 events, the Spec ID event among them."""
    algorithms = b"".join(struct.pack("<HH", bank.tpm_id, bank.size) for bank in BANKS)
    spec_id = tcglog.SPEC_ID_03 + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(BANKS))
    spec_id += algorithms + b"\0"
    first = struct.pack("<II20sI", 0, tcglog.NO_ACTION, bytes(20), len(spec_id)) + spec_id
    return first + b"".join(_event(index) for index in range(1, EVENTS))


def _event(index: int) -> bytes:
    data = bytes([index]) * EVENT_SIZES[index % len(EVENT_SIZES)]
    digests = b"".join(struct.pack("<H", bank.tpm_id) + bank.digest(data) for bank in BANKS)
    head = struct.pack("<III", index % 10, EV_EVENT_TAG, len(BANKS))
    return head + digests + struct.pack("<I", len(data)) + data


def firmware_figures(rounds: int) -> Iterator[Figure]:
    """Parsing and replaying a firmware log, in the one bank that is quoted."""
    log = firmware_log()
    parsed = tcglog.parse(log)
    if len(parsed.events) != EVENTS:
        raise SystemExit("the generated log is not what it should be")
    places = [event.offset for event in parsed.events[1:]]
    parse = cheapest(rounds, lambda: tcglog.parse(log))
    play = cheapest(rounds, lambda: replay(parsed, BANK))
    both = cheapest(rounds, lambda: replay(tcglog.parse(log), BANK))
    bare = cheapest(rounds, lambda: bare_firmware(log, places))
    yield milliseconds("firmware log: parse", parse)
    yield milliseconds("firmware log: replay", play)
    yield milliseconds("firmware log: parse and replay", both, limit=0.35, bare=bare)


def bare_firmware(log: bytes, places: list[int]) -> bytes:
    """Every event's head unpacked where it is known to be, and one PCR extended with it."""
    layout = struct.Struct("<IIIH20sH32sH48sI")
    value = bytes(32)
    for place in places:
        value = hashlib.sha256(value + layout.unpack_from(log, place)[6]).digest()
    return value


def ima_log(entries: int, start: int = 0) -> bytes:
    """Entries as ``ima-ng`` makes them."""
    return b"".join(map(_ima_entry, range(start, start + entries)))


def _ima_entry(index: int) -> bytes:
    path = b"/usr/lib/x86_64-linux-gnu/library-%d.so" % index
    data = ima.encode_fields(b"sha256:\0" + hashlib.sha256(path).digest(), path + b"\0")
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return ima.encode(ima.ImaEntry(index, 10, digest, "ima-ng", data, ()))


def ima_figures(rounds: int) -> Iterator[Figure]:
    """Replaying IMA's log as a whole, and piece by piece as it grows."""
    log, tenth = ima_log(ENTRIES), ima_log(ENTRIES // 10)
    known = advance(at_boot(BANK), log)
    news = ima_log(ROUND, start=ENTRIES)
    contents = [content for _, content, _ in ima.measurements(log) if content is not None]
    whole = cheapest(rounds, lambda: advance(at_boot(BANK), log))
    bare = cheapest(rounds, lambda: bare_ima(contents))
    again = cheapest(rounds * 10, lambda: advance(known, news))
    yield _us("IMA: replay, 100,000 entries, each", whole / ENTRIES, 2.5, bare / ENTRIES)
    yield _us("IMA: replay of 1,000 new behind 100,000, each", again / ROUND, 2.5, bare / ENTRIES)
    base = peak(lambda: advance(at_boot(BANK), tenth))
    yield _kib("IMA: memory of replay, 10,000 entries", base)
    yield _kib(
        "IMA: memory of replay, 100,000 entries", peak(lambda: advance(at_boot(BANK), log)), 64
    )
    yield _kib("IMA: memory of 100 rounds of 1,000 entries", peak(lambda: in_rounds(news)), 64)


def bare_ima(contents: list[bytes]) -> bytes:
    """Two hashes for each entry: its content's, and the PCR's."""
    value, sha256 = bytes(32), hashlib.sha256
    for content in contents:
        value = sha256(value + sha256(content).digest()).digest()
    return value


def in_rounds(segment: bytes) -> ImaState:
    """A node that attests a hundred times, with as much news each time."""
    state = at_boot(BANK)
    for _ in range(ENTRIES // ROUND):
        state = advance(state, segment)
    return state


def _us(name: str, seconds: float, limit: float, bare: float) -> Figure:
    value, floor = round(seconds * 1e6, 3), round(bare * 1e6, 3)
    return Figure(name=name, value=value, unit="µs", limit=limit, bare=floor)


def _kib(name: str, value: float, limit: float | None = None) -> Figure:
    return Figure(name=name, value=round(value, 1), unit="KiB", limit=limit)


def figures(rounds: int) -> Iterator[Figure]:
    """Everything, in one run."""
    yield from firmware_figures(rounds * 20)
    yield from ima_figures(rounds)


if __name__ == "__main__":
    command(__doc__, figures, rounds=5)
