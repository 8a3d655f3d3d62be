"""What catena itself accounts for: quirk rules, shown beside the references that were accepted."""

from __future__ import annotations

import hashlib

import msgspec

from catena.formats.references import ExpectedEvent
from catena.ids import HashAlg
from catena.measure.quirks import Quirk, shipped
from catena.service.views import ReferenceDetail, ReferenceView

_PREFIX = "quirk:"


def views() -> tuple[ReferenceView, ...]:
    """Every quirk rule of this version."""
    return tuple(map(_view, shipped().rules))


def digest() -> str:
    """The SHA-256 over every quirk rule, in order."""
    return hashlib.sha256(msgspec.json.encode(shipped().rules)).hexdigest()


def find(name: str) -> ReferenceDetail | None:
    """The rule with this name: ``quirk:ID``, or with its version behind an ``@``."""
    for rule in shipped().rules:
        if name in {f"{_PREFIX}{rule.id}", rule.label}:
            raw = msgspec.json.decode(msgspec.json.encode(rule), type=dict[str, object])
            return ReferenceDetail(reference=_view(rule), events=_events(rule), document=raw)
    return None


def _view(rule: Quirk) -> ReferenceView:
    return ReferenceView(
        name=f"{_PREFIX}{rule.id}",
        kind="quirk",
        version=str(rule.version),
        sha256=hashlib.sha256(msgspec.json.encode(rule)).hexdigest(),
        accepted_at=None,
        events=len(rule.pcrs) * len(rule.contents()),
    )


def _events(rule: Quirk) -> tuple[ExpectedEvent, ...]:
    return tuple(
        ExpectedEvent(
            id=f"{pcr}.{index}",
            pcr=pcr,
            what=rule.title,
            digests={bank.value: bank.digest(content).hex() for bank in HashAlg},
        )
        for pcr in rule.pcrs
        for index, content in enumerate(rule.contents())
    )
