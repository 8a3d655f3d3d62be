"""Silence: trusted nodes that stopped attesting become stale, each with an entry.

Any replica does it, one at a time: a round belongs to the replica that moves the round's time in the
database (compare and swap). Until a round comes by, whoever looks is told ``stale`` all the same
(``states.shown_state``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from catena.audit.entries import Transition
from catena.service import states
from catena.service.pseudonyms import SERVER
from catena.service.setting import Setting
from catena.service.states import Rhythm
from catena.store.nodes import Node

ROUND: Final = "staleness"
PERIOD: Final = timedelta(seconds=10)
"""Not more than one round in this time, however many replicas there are."""
BATCH: Final = 256


class Staleness:
    """The verb *notice*. ``since`` is when this server began to listen.

    Nobody can attest to a server that is down: silence is only held against nodes from then on.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._since: datetime | None = None

    def notice(self) -> int:
        """One round, if one is due: how many nodes became stale. Raises as ``Journal.record``."""
        now = self._setting.now()
        if self._since is None:
            self._since = now
        rhythm = self._setting.rhythm
        if now - self._since < rhythm.shortest or not self._is_mine(now):
            return 0
        return sum(self._become_stale(batch, now) for batch in self._silent(now, rhythm) if batch)

    def _silent(self, now: datetime, rhythm: Rhythm) -> Iterator[Sequence[Node]]:
        """Those that are stale as of now, in batches: a whole fleet may be cut off at once."""
        after = ""
        while True:
            with self._setting.database.snapshot() as rows:
                found = rows.nodes.silent(
                    states.TRUSTED, now - rhythm.shortest, now, after=after, limit=BATCH
                )
            yield [node for node in found if states.why_stale(node, now, rhythm) is not None]
            if len(found) < BATCH:
                return
            after = found[-1].id

    def _is_mine(self, now: datetime) -> bool:
        with self._setting.database.transaction() as rows:
            return rows.rounds.take(ROUND, now, not_after=now - PERIOD)

    def _become_stale(self, nodes: Sequence[Node], now: datetime) -> int:
        """Recorded together; a node that attests at this moment keeps its state."""
        rhythm = self._setting.rhythm
        whys = [states.why_stale(node, now, rhythm) or "" for node in nodes]
        self._setting.journal.record(
            *(
                Transition(
                    at=now,
                    actor=SERVER,
                    node_id=node.id,
                    node_name=node.name,
                    before=states.TRUSTED,
                    state=states.STALE,
                    reason=why,
                    last_attested=node.last_attested,
                )
                for node, why in zip(nodes, whys, strict=True)
            )
        )
        with self._setting.journal.effect() as rows:
            return sum(
                rows.nodes.become_stale(node, why, now)
                for node, why in zip(nodes, whys, strict=True)
            )
