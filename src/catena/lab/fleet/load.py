"""The load generator: honest attestations and attacks over a few connections, each answer checked.

Closed: every connection sends the next request when it has its answer. With a rate: arrivals keep their
times whatever the server does, and latency counts from the time that was meant (so a server that
stalls is not spared the requests it kept from coming).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from catena.evidence import Evidence
from catena.formats.nodeapi import (
    AttestResult,
    EnrollChallenge,
    EnrollResult,
    ErrorBody,
    NonceRequest,
    NonceResponse,
)
from catena.lab.fleet.hostile import ENROLMENT_CASE, ENROLMENT_CODE, Case, Exchange
from catena.lab.fleet.node import FleetNode
from catena.lab.fleet.source import Source
from catena.lab.fleet.wire import Answer, Line, ServerSilent

_OK = 200
_FAULT = 500
_SHOWN = 5


@dataclass(slots=True)
class Tally:
    """What happened: not frozen, every connection adds to it."""

    latencies: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    examples: list[str] = field(default_factory=list)

    def complain(self, what: str, answer: Answer) -> None:
        """Something ended otherwise than it must."""
        self.wrong[what] += 1
        self.faults += answer.status >= _FAULT
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{what}: {answer.status} {answer.body[:200]!r}")


async def enrol(connection: Line, node: FleetNode, source: Source) -> str:
    """TRUST, enrolment; the state that the server gives the node. Raises ``ServerSilent``."""
    answer = await connection.post("/v1/enroll", msgspec.json.encode(node.tpm.enrolment()))
    if answer.status != _OK:
        raise ServerSilent("enrolment was refused", got=answer.body[:200].decode(errors="replace"))
    challenge = msgspec.json.decode(answer.body, type=EnrollChallenge)
    node.node_id = challenge.node_id
    activation = msgspec.json.encode(await source.run(lambda: node.tpm.activate(challenge)))
    answer = await connection.post("/v1/enroll/activate", activation)
    if answer.status != _OK:
        raise ServerSilent("activation was refused", got=answer.body[:200].decode(errors="replace"))
    return msgspec.json.decode(answer.body, type=EnrollResult).state


@dataclass(frozen=True, slots=True)
class Part:
    """What one connection works with; no other touches these nodes.

    ``honest`` nodes attest by turns, ``bad`` ones make the attacks that end in a verdict, and
    ``unrestricted`` has an AK that must not be enrolled.
    """

    honest: Sequence[FleetNode]
    bad: Sequence[FleetNode]
    unrestricted: FleetNode | None
    chance: random.Random


class Generator:
    """Sends one part's requests over one connection."""

    def __init__(self, connection: Line, part: Part, tally: Tally, source: Source) -> None:
        self._connection = connection
        self._source = source
        self._part = part
        self._tally = tally
        self._turn = itertools.cycle(part.honest)
        cases: list[Case | None] = [*source.cases, None]
        part.chance.shuffle(cases)
        self._cases = itertools.cycle(cases)
        self._sent: dict[str, Evidence] = {}

    async def attest(self, node: FleetNode, since: float | None = None) -> None:
        """One honest attestation, which must be trusted."""
        start = time.perf_counter() if since is None else since
        nonce = await self._nonce(node)
        if nonce is None:
            return
        whole = not node.attested
        evidence = await self._source.run(lambda: node.evidence(nonce))
        answer = await self._post(evidence)
        if answer.status != _OK:
            self._tally.complain("honest evidence was refused", answer)
            return
        result = msgspec.json.decode(answer.body, type=AttestResult)
        if result.verdict != "trusted" or result.certificate is None:
            self._tally.complain("an honest node was not trusted", answer)
            return
        node.attested = True
        self._sent[node.node_id] = evidence
        (self._tally.first if whole else self._tally.latencies).append(time.perf_counter() - start)

    async def next(self, since: float | None = None) -> None:
        """The next node's attestation."""
        await self.attest(next(self._turn), since)

    async def attack(self) -> None:
        """The next hostile request, which must end as it must."""
        case = next(self._cases)
        if case is None:
            await self._enrol_unrestricted()
            return
        nodes = self._part.bad if case.verdict else self._part.honest
        node = self._part.chance.choice(nodes)
        other = self._part.chance.choice([one for one in self._part.honest if one is not node])
        nonce, other_nonce = await self._nonce(node), await self._nonce(other)
        if nonce is None or other_nonce is None:
            return
        exchange = Exchange(node, nonce, other, other_nonce, self._sent.get(node.node_id))
        evidence = await self._source.run(lambda: case.make(exchange))
        self._judge(case, await self._post(evidence))

    def _judge(self, case: Case, answer: Answer) -> None:
        found = ""
        if case.verdict and answer.status == _OK:
            result = msgspec.json.decode(answer.body, type=AttestResult)
            if result.verdict == "untrusted" and result.certificate is None and not result.secrets:
                found = result.reasons[0].code
        elif not case.verdict and _OK < answer.status < _FAULT:
            found = msgspec.json.decode(answer.body, type=ErrorBody).code
        if found in case.codes:
            self._tally.refused[case.name] += 1
        else:
            self._tally.complain(f"hostile request got through: {case.name}", answer)

    async def _enrol_unrestricted(self) -> None:
        node = self._part.unrestricted
        if node is None:
            return
        request = msgspec.json.encode(node.tpm.enrolment())
        answer = await self._connection.post("/v1/enroll", request)
        refused = _OK < answer.status < _FAULT
        if refused and msgspec.json.decode(answer.body, type=ErrorBody).code == ENROLMENT_CODE:
            self._tally.refused[ENROLMENT_CASE] += 1
        else:
            self._tally.complain(f"hostile request got through: {ENROLMENT_CASE}", answer)

    async def _nonce(self, node: FleetNode) -> bytes | None:
        body = msgspec.json.encode(NonceRequest(node_id=node.node_id))
        answer = await self._connection.post("/v1/nonce", body)
        if answer.status != _OK:
            self._tally.complain("no nonce for an enrolled node", answer)
            return None
        return msgspec.json.decode(answer.body, type=NonceResponse).nonce

    async def _post(self, evidence: Evidence) -> Answer:
        return await self._connection.post("/v1/attest", msgspec.json.encode(evidence))


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how hard, how hostile. ``rate`` is attestations a second, None for all that go."""

    seconds: float
    hostile: float = 0.0
    rate: float | None = None


async def drive(generators: Sequence[Generator], parts: Sequence[Part], plan: Plan) -> float:
    """Keep all connections busy for the plan's time; seconds that it took."""
    start = time.perf_counter()
    end = start + plan.seconds
    if plan.rate is None:
        works = [_closed(one, part, plan, end) for one, part in zip(generators, parts, strict=True)]
        await asyncio.gather(*works)
    else:
        await _open(generators, plan.rate, start, end)
    return time.perf_counter() - start


async def _closed(generator: Generator, part: Part, plan: Plan, end: float) -> None:
    while time.perf_counter() < end:
        if part.chance.random() < plan.hostile:
            await generator.attack()
        else:
            await generator.next()


async def _open(generators: Sequence[Generator], rate: float, start: float, end: float) -> None:
    """Every connection takes arrivals by turns; one that is late goes on with the next at once."""
    gap = len(generators) / rate

    async def keep(number: int, generator: Generator) -> None:
        due = start + number / rate
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await generator.next(due)
            due += gap

    await asyncio.gather(*(keep(number, one) for number, one in enumerate(generators)))


async def watch(
    tally: Tally, seconds: float, tell: Callable[[float, int], None], every: float = 0.5
) -> None:
    """Tell how far it is, until it is cancelled."""
    start = time.perf_counter()
    while True:
        tell(min(time.perf_counter() - start, seconds), len(tally.latencies))
        await asyncio.sleep(every)
