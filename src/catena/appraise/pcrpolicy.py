"""When an imported PCR policy explains a boot: instead of a release, and only as a whole.

A policy (``formats.pcrpolicy``) lists what *may* be measured into the PCRs that it speaks about;
it expects no order and no number. It applies if, for every one of those PCRs,

1. the replayed value is one of its raw values, which then claims all events there, or
2. every event is claimed by a digest, a pattern or a built-in rule, and at least one of them by
   the policy itself.

A pattern sees only text that the event's digest covers, and all of it. The word in front
(``grub_cmd``) is what the log says, *untrusted*: it can make a rule miss, never fit better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from catena.appraise.measured import MeasuredEvent
from catena.appraise.reference import Match, Reference, References
from catena.formats.pattern import compile_pattern
from catena.ids import HashAlg
from catena.measure.binding import GRUB_PCR, Binding
from catena.measure.reading import Reading

MAX_TEXT = 4096
MAX_TEXTS = 256 * 1024
"""How much text of one boot is held against patterns; what is beyond has no claim."""

_BLANKS = str.maketrans("\n\t", "  ")


def choose_policy(
    references: References,
    extending: Sequence[MeasuredEvent],
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> Match | None:
    """The policy that applies, or else the one with most events in common; None without any."""
    matches = [match_policy(one, extending, bank, pcrs) for one in references.pcr_policies]

    def rank(found: Match) -> tuple[bool, int, str]:
        return (found.applies, len(found.claims), found.reference.label)

    return max(matches, key=rank, default=None)


def match_policy(
    reference: Reference,
    extending: Sequence[MeasuredEvent],
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> Match:
    """Hold one policy against one boot; ``missing`` names the first rule of each unmet PCR."""
    first: dict[int, int] = {}
    for index, rule in enumerate(reference.rules):
        first.setdefault(rule.pcr, index)
    claims = _claims(reference, extending, bank, pcrs)
    met = {extending[position].pcr for position in claims}
    wrong = {
        event.pcr
        for position, event in enumerate(extending)
        if event.pcr in first and position not in claims and event.rule is None
    }
    return Match(
        reference=reference,
        claims=claims,
        repeated=frozenset(),
        missing=tuple(index for pcr, index in sorted(first.items()) if pcr not in met),
        wrong_pcrs=tuple(sorted(wrong)),
        states_bank=True,
    )


def _claims(
    reference: Reference,
    extending: Sequence[MeasuredEvent],
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> dict[int, int]:
    """Positions of events to indices of rules: the PCR's value, the digest, then the text."""
    raw = {
        rule.pcr: index
        for index, rule in enumerate(reference.rules)
        if rule.kind == "raw" and rule.value == pcrs[rule.pcr].hex()
    }
    texts = _Texts(reference)
    slots = reference.slots[bank]
    claims: dict[int, int] = {}
    for position, event in enumerate(extending):
        index = raw.get(event.pcr)
        if index is None and event.slot in slots:
            index = slots[event.slot][0]
        if index is None:
            index = texts.rule_for(event)
        if index is not None:
            claims[position] = index
    return claims


class _Texts:
    """Finds the pattern that matches an event's proven text, within ``MAX_TEXTS``."""

    def __init__(self, reference: Reference) -> None:
        self._left = MAX_TEXTS
        self._rules: dict[int, list[tuple[int, str, str]]] = {}
        for index, rule in enumerate(reference.rules):
            if rule.kind == "ascii":
                self._rules.setdefault(rule.pcr, []).append((index, rule.prefix, rule.value))

    def rule_for(self, event: MeasuredEvent) -> int | None:
        rules = self._rules.get(event.pcr)
        if rules is None:
            return None
        for word, text in _readings(event):
            self._left -= len(text)
            if self._left < 0:
                return None
            for index, prefix, pattern in rules:
                if prefix in _names(word) and compile_pattern(pattern).matches(text):
                    return index
        return None


def _readings(event: MeasuredEvent) -> Iterator[tuple[str, str]]:
    """The word in front (or none) and the text of an event, as far as its digest covers it."""
    source = event.source
    if not isinstance(source, Reading):
        return
    word, _, rest = source.event.data.partition(b" ")
    if source.binding is Binding.WHOLE:
        candidates = [(b"", source.event.data), (word, rest)]
    elif source.binding is Binding.CONTENT and event.pcr == GRUB_PCR:
        content = source.content
        candidates = [(b"", content), (word, content)]
    else:
        return
    for name, content in candidates:
        text = content.rstrip(b"\0").decode("latin-1")
        # A menu entry is logged with its block, so line feeds and tabs are text; `.` is no line feed.
        if len(text) <= MAX_TEXT and text.isascii() and text.translate(_BLANKS).isprintable():
            yield name.decode("latin-1").removesuffix(":"), text


def _names(word: str) -> tuple[str, ...]:
    """What a policy may call the word: GRUB dropped the ``grub_`` of its kernel lines in 2.04."""
    return (word, f"grub_{word}") if word else ("",)
