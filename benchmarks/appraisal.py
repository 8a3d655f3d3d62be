"""CPU time of judging a boot: the first time a log is seen, and every time after that.

The log is a real own-key boot, made longer to 150 events as laptops have them: firmware blobs,
boot variables, a dbx of 200 hashes, lines of a boot loader. Its references claim every event. "First time" is
everything behind parsing and replaying (facts, claims, grammar, policy), with nothing remembered,
neither certificates nor verdicts of the policy. "Seen before" is a whole appraisal of the same
boot under a new quote: structure, signature, binding, nonce, PCRs, clock, policy. The request for
a certificate that comes with it has a signature of its own, which is no part of the quote: one
figure is without it (the request's key taken as read), one with it. The last figures are of a node
whose container gate has recorded 1,000 events.

    python benchmarks/appraisal.py [-o json] [--rounds N]

Needs the corpus of real boots beside the project's folder. Ends with 1 if a limit is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from appraise.forged import (
    AK_PUBLIC,
    POLICY,
    SHA256,
    Boot,
    Exchange,
    corpus_boot,
    judge,
    measured,
    rebuilt,
    references_of,
)
from appraise.gatelog import BANKS, Recording
from appraise.gatelog import POLICY as CONTAINER_POLICY
from catena.appraise import appraisal, policy
from catena.appraise.boot import Question, examine
from catena.appraise.csr import read_csr
from catena.evidence import Evidence
from catena.formats import efi, tcglog, tpm2
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import Event, EventType
from catena.measure import signers
from catena.measure.replay import replay
from figures import Figure, cheapest, command, milliseconds

BOOT = "B_sb_own_uki"
EVENTS = 150


def long_boot() -> Boot:
    """The real boot with as many events as a laptop's."""

    def longer(events: list[Event]) -> list[Event]:
        at = next(i for i, one in enumerate(events) if one.type == EventType.EV_SEPARATOR)
        dbx = next(i for i, one in enumerate(events) if b"d\0b\0x\0" in one.data)
        before = [*events[:dbx], _dbx(), *events[dbx + 1 : at]]
        after = events[at:]
        missing = EVENTS - 1 - len(before) - len(after)
        early = [_early(number) for number in range(missing // 2)]
        late = [_late(number) for number in range(missing - len(early))]
        return [*before, *early, *after, *late]

    return rebuilt(corpus_boot(BOOT), longer)


def _dbx() -> Event:
    entries = (efi.SignatureEntry(OWNER, SHA256.digest(b"%d" % n)) for n in range(200))
    content = efi.SignatureList(efi.EFI_CERT_SHA256, tuple(entries)).encode()
    data = VariableData(efi.IMAGE_SECURITY_DATABASE, "dbx", content).encode()
    return measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, data)


OWNER = efi.SHIM_LOCK


def _early(number: int) -> Event:
    """Firmware's own: blobs that only their digest tells, and boot variables."""
    if number % 2:
        kind = EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB
        return measured(0, kind, bytes(16), b"firmware volume %d" % number)
    name = f"Boot{number:04X}"
    content = b"\1\0\0\0" + f"entry {number}\0".encode("utf-16-le") * 4
    variable = VariableData(EFI_GLOBAL_VARIABLE, name, content).encode()
    return measured(1, EventType.EV_EFI_VARIABLE_BOOT, variable, content)


def _late(number: int) -> Event:
    """A boot loader's: lines and files."""
    text = b"grub_cmd: search --fs-uuid --set=root %d" % number
    return measured(8, EventType.EV_IPL, text, text.partition(b": ")[2])


def forget() -> None:
    """As if this process had never seen a certificate or judged a boot."""
    signers._subject.cache_clear()
    policy._failing.cache_clear()


def figures(rounds: int) -> Iterator[Figure]:
    """Everything, in one run."""
    boot = long_boot()
    references = references_of(boot)
    evidence = Exchange(boot).evidence()
    first = judge(evidence, references)
    if first.facts.unclaimed_events or len(first.boot.firmware.events) != EVENTS:
        raise SystemExit(f"not the boot that is to be measured: {first.reasons[:2]}")
    question = Question(evidence.manifest, evidence.pcrs, SHA256, references)

    def new() -> None:
        forget()
        examined = examine(question, evidence.logs)
        POLICY.judge(first.facts)
        assert examined.explanation.unclaimed == 0

    reading = cheapest(rounds, lambda: replay(tcglog.parse(boot.log), SHA256))
    yield milliseconds("boot log of 150 events: parse and replay", reading)
    judged = cheapest(rounds, new) - reading
    yield milliseconds("first time: facts, claims, grammar, policy", judged, limit=1.5)
    yield from _seen(msgspec.structs.replace(evidence, logs={}), references, first.boot, rounds)
    yield from _contained(boot, rounds)


def _contained(boot: Boot, rounds: int) -> Iterator[Figure]:
    """A node whose gate has recorded 1,000 events, and then one more."""
    references = references_of(boot, container_policies=(CONTAINER_POLICY,))
    recording = Recording().begun()
    for number in range(499):
        recording.create(f"c{number}").exit(f"c{number}")
    evidence = _ran(boot, recording)
    known = judge(evidence, references).boot
    first = cheapest(rounds // 10, lambda: judge(evidence, references))
    boot_alone = judge(Exchange(boot).evidence(), references).boot
    more = cheapest(rounds // 10, lambda: judge(evidence, references, known=boot_alone))
    yield milliseconds("first time, with 1,000 container records", first)
    yield milliseconds("1,000 container records, the boot seen before", more)
    new = _ran(boot, recording.create("one-more"))
    yield milliseconds(
        "one container record more", cheapest(rounds, lambda: judge(new, references, known=known))
    )
    seen = msgspec.structs.replace(evidence, logs={})
    requested = read_csr(evidence.csr)
    with patch.object(appraisal, "read_csr", lambda _: requested):
        quote = cheapest(rounds * 10, lambda: judge(seen, references, known=known))
    yield milliseconds("seen before, with 1,000 container records", quote, 0.15)


def _ran(boot: Boot, recording: Recording) -> Evidence:
    values = tuple(recording.values[bank] for bank in BANKS)
    return Exchange(replace(boot, containers=recording.data, container_values=values)).evidence()


def _seen(evidence, references, known, rounds: int) -> Iterator[Figure]:  # noqa: ANN001 - as above
    key = tpm2.parse_public(AK_PUBLIC).key()
    signature = tpm2.parse_signature(evidence.signature).signature_bytes()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    algorithm = ec.ECDSA(hashes.SHA256())
    many = rounds * 10
    bare = cheapest(many, lambda: key.verify(signature, evidence.quote, algorithm))
    whole = cheapest(many, lambda: judge(evidence, references, known=known))
    requested = read_csr(evidence.csr)
    with patch.object(appraisal, "read_csr", lambda _: requested):
        quote = cheapest(many, lambda: judge(evidence, references, known=known))
    yield milliseconds("seen before: quote, its signature, policy", quote, 0.15, bare)
    yield milliseconds(
        "seen before, with the certificate request's signature", whole, bare=2 * bare
    )


if __name__ == "__main__":
    command(__doc__, figures, rounds=100)
