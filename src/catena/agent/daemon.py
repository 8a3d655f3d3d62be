"""The node daemon: attest, deliver, wait, again; and take everything back when trust ends.

::

                    ┌────────── unknown-node: withdraw, enrol ─────────┐
                    ▼                                                  │
    start ──▶ attest round ──▶ trusted:   deliver ──▶ wait interval ───┤
                    ▲      └─▶ untrusted: withdraw ─▶ wait interval ───┤
                    │      └─▶ pending:   withdraw ─▶ wait interval ───┤
                    │      └─▶ failure:   wait longer each time ───────┤
                    └──────────────────────────────────────────────────┘

While it waits, a certificate that expires takes key and secrets with it: silence is distrust.
A failure, here or at the server, changes nothing before that. The end of the agent withdraws
too, since nobody would watch the expiry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
from cryptography import x509

from catena.agent import receipts, status, trust
from catena.agent.attestation import Attester, Round
from catena.agent.client import RetiredNode, ServerFailing, TrustClient, UnknownNode
from catena.agent.config import AgentConfig
from catena.agent.delivery import Delivery, copy_sealed, open_sealed, safe_name
from catena.agent.enrolment import enrol, node_id
from catena.agent.events import Emit, notify, timestamp
from catena.agent.identity import Identity
from catena.agent.status import AgentStatus, Failure
from catena.errors import CatenaError
from catena.formats.nodeapi import JITTER, AttestResult, SealedSecret
from catena.ids import NodeId
from catena.tpm.device import Tpm, open_tpm

FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0
MIN_INTERVAL = 1
MAX_INTERVAL = 3600


@dataclass(slots=True)
class Backoff:
    """Delays that double up to a limit, each scattered over its upper half.

    A fleet whose server was down does not come back in one instant.
    """

    random: Callable[[], float]
    _next: float = FIRST_RETRY

    def delay(self, asked: float = 0) -> float:
        """Seconds to wait after one more failure; not less than the server ``asked`` for.

        It is never obeyed for longer than this machine would wait by itself.
        """
        longest, self._next = self._next, min(self._next * 2, LONGEST_RETRY)
        least = min(asked, LONGEST_RETRY)
        return max(longest * (1 + self.random()) / 2, least * (1 + self.random() / 2))

    def reset(self) -> None:
        """Start over after a success."""
        self._next = FIRST_RETRY


def jittered(interval: float, random: Callable[[], float]) -> float:
    """An interval up to a tenth longer or shorter: machines that started together drift apart."""
    return interval * (1 + JITTER * (2 * random() - 1))


@dataclass(slots=True)
class Daemon:
    """The agent's loop. ``random`` gives numbers in [0, 1); ``stop`` ends ``run``."""

    config: AgentConfig
    emit: Emit
    now: Callable[[], datetime]
    random: Callable[[], float]
    stop: threading.Event = field(default_factory=threading.Event)
    status: AgentStatus = field(init=False)
    _delivery: Delivery = field(init=False)
    _backoff: Backoff = field(init=False)
    _attester: Attester | None = field(init=False, default=None)
    _poll: int = field(init=False, default=0)
    """Seconds between two questions whether an attestation is demanded; 0: do not ask."""

    def __post_init__(self) -> None:
        self.status = AgentStatus(updated_at=self.now())
        self._delivery = Delivery(self.config.runtime_dir, allow_disk=self.config.allow_disk)
        self._backoff = Backoff(self.random)

    def run(self) -> None:
        """Attest until told to stop; then leave nothing behind."""
        self._delivery.prepare()
        self.emit("started", server=self.config.server)
        notify("READY=1")
        try:
            while not self.stop.is_set():
                self._wait(self.step())
        finally:
            notify("STOPPING=1")
            self._withdraw("the agent stops")
            self.emit("stopped")

    def prepare(self) -> None:
        """What ``run`` does first, for a caller that makes single steps."""
        self._delivery.prepare()

    def step(self) -> float:
        """One round with all its effects; returns the seconds until the next."""
        try:
            delay = self._attest()
        except CatenaError as error:
            asked = error.retry_after if isinstance(error, ServerFailing) else 0
            delay = self._backoff.delay(asked)
            self._failed(error, delay)
        else:
            self._backoff.reset()
        self._record(next_attempt_at=self.now() + timedelta(seconds=delay))
        return delay

    # One round ------------------------------------------------------------------------------

    def _attest(self) -> float:
        with open_tpm(self.config.tcti, self.config.keys) as tpm:
            believed = trust.authorities_file(self.config.ca, self.config.runtime_dir)
            attester = self._attester or self._new_attester(tpm, trust.load(believed))
            with TrustClient(self.config.server, believed) as client:
                try:
                    answer = attester.attest(tpm, client)
                except RetiredNode:
                    self._withdraw("the trust service has retired this node")
                    raise
                except UnknownNode:
                    self._withdraw("the trust service does not know this node")
                    self._enrol(tpm, client)
                    answer = attester.attest(tpm, client)
            return self._take_effect(tpm, answer)

    def _new_attester(self, tpm: Tpm, believed: tuple[x509.Certificate, ...]) -> Attester:
        self._attester = Attester(
            node_id=node_id(tpm.ek_public()),
            bank=self.config.hash_alg,
            event_log=self.config.event_log,
            ima_log=self.config.ima_log,
            container_records=self.config.container_records,
            authorities=believed,
            audiences=self.config.audiences,
            now=self.now,
        )
        self._record(node_id=self._attester.node_id)
        return self._attester

    def _enrol(self, tpm: Tpm, client: TrustClient) -> None:
        result = enrol(tpm, client, name_hint=self.config.name_hint)
        self._record(name=result.name, state=result.state)
        self.emit("enrolled", node_id=result.node_id, state=result.state, name=result.name)

    def _take_effect(self, tpm: Tpm, answer: Round) -> float:
        result, identity = answer.result, answer.identity
        entry, *_ = receipts.indices(result)
        if result.bundle is not msgspec.UNSET and trust.keep(
            self.config.ca, self.config.runtime_dir, result.bundle
        ):
            self.emit("authorities-changed", count=len(trust.parse(result.bundle.encode())))
        try:
            receipts.keep(self.config.runtime_dir, result.receipts)
        except OSError as error:
            self.emit("receipts-not-kept", error=error.strerror)
        if identity is None or result.verdict != "trusted":
            self._withdraw(f"verdict {result.verdict}, state {result.state}")
            identity = None
        else:
            self._deliver(tpm, identity, result)
        interval = self.config.interval or min(max(result.interval, MIN_INTERVAL), MAX_INTERVAL)
        self._poll = 0 if result.poll is msgspec.UNSET else max(result.poll, MIN_INTERVAL)
        self._attested(result, identity, interval=interval, entry=entry)
        return jittered(interval, self.random)

    def _deliver(self, tpm: Tpm, identity: Identity, result: AttestResult) -> None:
        """Hand over identity and secrets; one secret that does not open stops no other."""
        opened: dict[str, bytes] = {}
        versions: dict[str, int] = {}
        for sealed in result.secrets:
            try:
                safe_name(sealed.name)
                if not self._delivery.has(sealed):
                    self._copy(sealed)
                    opened[sealed.name] = open_sealed(tpm, sealed)
            except CatenaError as error:
                self.emit("secret-unopened", name=sealed.name[:128], code=error.code)
            else:
                versions[sealed.name] = sealed.version
        tokens = () if result.tokens is msgspec.UNSET else result.tokens
        for audience in sorted(set(self.config.audiences) - {one.audience for one in tokens}):
            self.emit("token-withheld", audience=audience)
        self._delivery.deliver(identity, opened, versions, tokens)

    def _copy(self, sealed: SealedSecret) -> None:
        if self.config.sealed_copy is None:
            return
        try:
            copy_sealed(self.config.sealed_copy, sealed)
        except CatenaError as error:
            self.emit("copy-failed", name=sealed.name[:128], code=error.code)

    # What is told ---------------------------------------------------------------------------

    def _attested(
        self, result: AttestResult, identity: Identity | None, *, interval: int, entry: int
    ) -> None:
        until = None if identity is None else identity.not_after
        self._record(
            name=result.name,
            state=result.state,
            verdict=result.verdict,
            reasons=result.reasons,
            attested_at=self.now(),
            certificate_until=until,
            secrets=dict(self._delivery.held),
            failure=None,
        )
        self.emit(
            "attested",
            verdict=result.verdict,
            state=result.state,
            name=result.name,
            reasons=[reason.code for reason in result.reasons],
            certificate_until=None if until is None else timestamp(until),
            secrets=sorted(self._delivery.held),
            entry=entry,
            next_in=interval,
        )

    def _failed(self, error: CatenaError, delay: float) -> None:
        self._record(failure=Failure(code=error.code, message=str(error)))
        fields = {key: value for key, value in error.as_dict().items() if key != "remedy"}
        self.emit("failed", **fields, retry_in=round(delay, 1))

    def _withdraw(self, why: str) -> None:
        if self._delivery.withdraw():
            self.emit("withdrawn", why=why)
        self._record(certificate_until=None, secrets={})

    def _record(self, **changes: object) -> None:
        fields = {name: getattr(self.status, name) for name in self.status.__struct_fields__}
        self.status = AgentStatus(**{**fields, **changes, "updated_at": self.now()})
        status.write(self.config.runtime_dir, self.status)

    # Waiting --------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Wait for the next round, or for the certificate to expire in the meantime."""
        end = self.now() + timedelta(seconds=seconds)
        until = self.status.certificate_until
        if until is not None and until < end:
            if self._pause(until):
                return
            if not self.stop.is_set():
                self._withdraw("the certificate expired")
        self._pause(end)

    def _pause(self, until: datetime) -> bool:
        """Wait; True if the server wants an attestation before the time is over."""
        while not self.stop.is_set():
            left = max((until - self.now()).total_seconds(), 0)
            if not 0 < self._poll < left:
                self.stop.wait(left)
                return False
            self.stop.wait(self._poll)
            if not self.stop.is_set() and self._is_demanded():
                return True
        return False

    def _is_demanded(self) -> bool:
        """A question that fails is asked again later; the round after it tells of the failure."""
        node = self.status.node_id
        if node is None:
            return False
        try:
            believed = trust.authorities_file(self.config.ca, self.config.runtime_dir)
            with TrustClient(self.config.server, believed) as client:
                demanded = client.is_demanded(NodeId(node))
        except CatenaError:
            return False
        if demanded:
            self.emit("demanded")
        return demanded
