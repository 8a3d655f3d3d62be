from __future__ import annotations

from collections.abc import Callable

import pytest
from recorded_boots import BOOTS, CORPUS, load_boot

from catena.formats.tcglog import Event, EventLog, EventType
from catena.ids import HashAlg
from changed import replace


@pytest.fixture
def corpus():
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus at {CORPUS}")
    return CORPUS


@pytest.fixture(params=BOOTS)
def boot(request, corpus):
    """Each of the six boots whose PCRs were read from the TPM."""
    return load_boot(request.param)


@pytest.fixture
def log(corpus):
    """The log of an own-key boot with Secure Boot on: what the forgeries start from."""
    return load_boot("B_sb_own_uki").log


@pytest.fixture
def edit() -> Callable[..., EventLog]:
    """Forge: replace events of a log, renumbering them."""

    def forged(log, events):
        numbered = tuple(replace(event, index=index) for index, event in enumerate(events))
        return replace(log, events=numbered)

    return forged


@pytest.fixture
def measured() -> Callable[..., Event]:
    """Forge: an event whose digests are the hash of its data, or of ``hashed``."""

    def make(pcr, event_type, data, hashed=None):
        content = data if hashed is None else hashed
        digests = {bank: bank.digest(content) for bank in list(HashAlg)[:3]}
        return Event(0, pcr, event_type, digests, data, 0)

    return make


@pytest.fixture
def no_action() -> Callable[..., Event]:
    """Forge: an EV_NO_ACTION with blank digests."""

    def make(data, pcr=0):
        digests = {bank: bytes(bank.size) for bank in list(HashAlg)[:3]}
        return Event(0, pcr, EventType.EV_NO_ACTION, digests, data, 0)

    return make
