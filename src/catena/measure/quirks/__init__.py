"""Quirk rules: what real firmware does against the specification, and how far it is let.

Each rule is a data file beside this module. It names exact contents in exact PCRs, so that what
it allows can be recognised by digest and nothing else passes with it; it may account for an event
(*claim*), let it stand behind its PCR's separator, or both. A rule whose content says that a
protection is off is a *weakness*: it is let pass here, and named to the policy, which decides::

    id, version, title, weakness        kebab-case name, number, one sentence, bool
    documents                           where it is described, at least one
    log                                 a real log that has it (a file of the corpus)
    [condition] pcr or pcrs             PCR index, or several
                contents                texts that are measured as they are
                variables               {name, data}: UEFI global variables measured as a whole
    [allows]    claim, after_separator  bools, at least one true
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.ids import HashAlg

MAX_FILE = 16 * 1024
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

Sentence = Annotated[str, msgspec.Meta(min_length=8, max_length=400)]
PcrIndex = Annotated[int, msgspec.Meta(ge=0, le=15)]


class QuirkError(FormatError):
    """A data file that is no quirk rule."""

    code = "malformed-quirk"
    remedy = "Correct the rule; the docstring of catena.measure.quirks says what it needs."


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the file's tables."""


class QuirkVariable(_Strict, frozen=True, kw_only=True):
    """A global variable with this content, in hex."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    data: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*\Z")]


class Condition(_Strict, frozen=True, kw_only=True):
    """What must have been measured, and where."""

    pcr: PcrIndex | None = None
    pcrs: tuple[PcrIndex, ...] = ()
    contents: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    variables: tuple[QuirkVariable, ...] = ()


class Allowance(_Strict, frozen=True, kw_only=True):
    """What is let pass."""

    claim: bool
    after_separator: bool


class Quirk(_Strict, frozen=True, kw_only=True):
    """One rule, as its file has it."""

    id: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    title: Sentence
    weakness: bool
    documents: Annotated[tuple[Sentence, ...], msgspec.Meta(min_length=1)]
    log: Annotated[str, msgspec.Meta(min_length=1)]
    condition: Condition
    allows: Allowance

    @property
    def label(self) -> str:
        """``quirk:dma-protection-disabled@1``, as claims name it."""
        return f"quirk:{self.id}@{self.version}"

    @property
    def pcrs(self) -> tuple[int, ...]:
        """The PCRs it speaks of."""
        own = self.condition.pcr
        return self.condition.pcrs if own is None else (own,)

    def contents(self) -> tuple[bytes, ...]:
        """Every content that it recognises."""
        variables = (
            VariableData(EFI_GLOBAL_VARIABLE, one.name, bytes.fromhex(one.data)).encode()
            for one in self.condition.variables
        )
        return (*(one.encode() for one in self.condition.contents), *variables)


@dataclass(frozen=True, slots=True)
class Quirks:
    """Rules ready for use: by PCR and digest."""

    rules: tuple[Quirk, ...] = ()
    _slots: Mapping[HashAlg, Mapping[tuple[int, bytes], Quirk]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def find(self, pcr: int, digest: bytes | None, bank: HashAlg) -> Quirk | None:
        """The rule that recognises this measurement, if one does."""
        slots = self._slots.get(bank)
        return None if slots is None or digest is None else slots.get((pcr, digest))


NONE = Quirks()
"""No rule at all: firmware must follow the specification to the letter."""


def prepare(rules: Iterable[Quirk]) -> Quirks:
    """Index rules. Raises ``QuirkError`` if two recognise the same measurement."""
    chosen = tuple(rules)
    slots: dict[HashAlg, dict[tuple[int, bytes], Quirk]] = {bank: {} for bank in HashAlg}
    for rule in chosen:
        for content in rule.contents():
            for bank in HashAlg:
                digest = bank.digest(content)
                for pcr in rule.pcrs:
                    other = slots[bank].setdefault((pcr, digest), rule)
                    if other is not rule:
                        raise QuirkError(f"quirks {other.id} and {rule.id} are about the same")
    return Quirks(chosen, slots)


def parse(text: str) -> Quirk:
    """Read one rule's file. Raises ``QuirkError``."""
    if len(text) > MAX_FILE:
        raise QuirkError("quirk rule is too long", expected=f"{MAX_FILE}", got=f"{len(text)}")
    try:
        rule = msgspec.convert(tomllib.loads(text), Quirk)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise QuirkError(f"not a quirk rule: {error}") from error
    if not _ID.fullmatch(rule.id):
        raise QuirkError("a quirk's id is in kebab-case", got=ascii(rule.id[:60]))
    if (rule.condition.pcr is None) == (not rule.condition.pcrs):
        raise QuirkError(f"quirk {rule.id} needs one of pcr and pcrs")
    if not rule.contents():
        raise QuirkError(f"quirk {rule.id} recognises nothing")
    if not (rule.allows.claim or rule.allows.after_separator):
        raise QuirkError(f"quirk {rule.id} allows nothing")
    return rule


@cache
def shipped() -> Quirks:
    """The rules that catena ships, by id; read once."""
    files = (one for one in resources.files(__name__).iterdir() if one.name.endswith(".toml"))
    return prepare(parse(one.read_text("utf-8")) for one in sorted(files, key=lambda one: one.name))
