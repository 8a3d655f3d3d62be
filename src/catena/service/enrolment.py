"""Enrolment: a TPM becomes a node (TRUST, "Enrolment", steps 1 to 7).

Steps 1 to 4 are ``begin``, 5 to 7 ``finish``. Between them the server remembers nothing: the
ticket does. A node may enrol again at any boot, because it needs no writable disk; with the same
keys, vouched for as before, nothing is new and nothing is logged.
"""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import datetime

import msgspec

from catena.appraise.attestation_key import check_attestation_key
from catena.appraise.endorsement import Endorsement, EndorsementKind, endorse
from catena.audit.entries import Approval, Entry
from catena.audit.entries import Enrolment as EnrolmentEntry
from catena.errors import Refusal
from catena.formats.certificate import issuer_and_serial
from catena.formats.nodeapi import (
    ActivateRequest,
    EnrollChallenge,
    EnrollRequest,
    EnrollResult,
    NodeState,
)
from catena.formats.tpm2 import Public, parse_public
from catena.ids import NodeId, NodeName, Sha256Hex
from catena.keys.protect import make_credential
from catena.service import states
from catena.service.denials import Denials
from catena.service.endorsements import Endorsements
from catena.service.inventory import ListedNameTaken, expected_for
from catena.service.pseudonyms import SERVER
from catena.service.rejudging import Rejudging
from catena.service.setting import Mode, Setting
from catena.service.states import RetiredNode
from catena.service.ticket import Memory, TicketOffice, expiry
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.inventory import ExpectedMachine
from catena.store.nodes import Node, Reenrolment

SECRET_SIZE = 32


class Enrolment:
    """The verb *enrol*."""

    def __init__(
        self,
        setting: Setting,
        denials: Denials,
        endorsements: Endorsements,
        rejudging: Rejudging,
    ) -> None:
        self._setting = setting
        self._denials = denials
        self._endorsements = endorsements
        self._rejudging = rejudging
        self._tickets = TicketOffice(setting.keys.ticket())

    def begin(self, request: EnrollRequest) -> EnrollChallenge:
        """Steps 1 to 4: judge EK and AK, and challenge the TPM to hold both.

        Raises ``FormatError``, an ``EndorsementRefusal``, an ``AttestationKeyRefusal`` or
        ``UnsupportedEndorsementKey``.
        """
        # (1) What the node says about itself.
        ek, ak = parse_public(request.ek_public), parse_public(request.ak_public)
        node_id = NodeId(hashlib.sha256(ek.raw).hexdigest())
        try:
            # (2) Who vouches for the EK.
            endorsement = endorse(
                request.ek_certificates, ek, self._endorsements.roots(), self._setting.now()
            )
            # (3) Whether the AK is an attestation key at all.
            check_attestation_key(ak)
            # (4) A challenge that exactly this EK opens, for exactly this AK.
            return self._challenge(node_id, ek, ak, endorsement, request)
        except Refusal as refusal:
            digest = hashlib.sha256(ek.raw + ak.raw).hexdigest()
            self._denials.record("enroll", Sha256Hex(digest), refusal, node_id)
            raise

    def finish(self, request: ActivateRequest) -> EnrollResult:
        """Steps 5 to 7: the TPM met the challenge; it becomes, or already is, a node.

        Raises ``ForgedTicket``, ``ExpiredTicket``, ``WrongActivationSecret``, ``RetiredNode``, and in the
        mode ``inventory`` ``NotExpected``, ``ListedTwice``, ``AlreadyArrived`` or ``ListedNameTaken``.
        """
        now = self._setting.now()
        # (5) Only now does the AK mean this TPM.
        try:
            memory = self._tickets.redeem(request.ticket, request.secret, now)
        except Refusal as refusal:
            digest = hashlib.sha256(request.ticket).hexdigest()
            self._denials.record("activate", Sha256Hex(digest), refusal, None)
            raise
        with self._setting.journal.deciding(memory.node_id):
            with self._setting.database.snapshot() as rows:
                known = rows.nodes.get(memory.node_id)
                pending = rows.reenrolments.get(memory.node_id)
            if known is None:
                return self._admit(memory, self._line_for(memory, request))  # (6)
            self._require_on_the_rolls(known, request)
            known = self._judged_again(known, memory)
            if known.ak_public == memory.ak_public:
                state, _ = states.shown_state(known, now, self._setting.rhythm)
                if (known.ek_root, known.tpm) != (
                    memory.endorsed_by,
                    msgspec.json.encode(memory.tpm),
                ):
                    self._describe_again(known, memory, state)
                return EnrollResult(node_id=known.id, state=state, name=known.name)
            if pending is None or pending.ak_public != memory.ak_public:
                self._remember_new_key(known, memory)  # (7)
        return EnrollResult(node_id=known.id, state=states.PENDING, name=known.name)

    def _require_on_the_rolls(self, node: Node, request: ActivateRequest) -> None:
        try:
            states.require_on_the_rolls(node)
        except RetiredNode as refusal:
            digest = hashlib.sha256(request.ticket).hexdigest()
            self._denials.record("activate", Sha256Hex(digest), refusal, node.id)
            raise

    def _challenge(
        self,
        node_id: NodeId,
        ek: Public,
        ak: Public,
        endorsement: Endorsement,
        request: EnrollRequest,
    ) -> EnrollChallenge:
        # A pinned EK's certificate was not verified: its serial number says nothing.
        pinned = endorsement.kind is EndorsementKind.PINNED
        issuer, serial = (None, None) if pinned else issuer_and_serial(request.ek_certificates[0])
        random = self._setting.random
        secret = random(SECRET_SIZE)
        blob, encrypted = make_credential(ek, ak.name(), secret, seed=random(ek.name_alg.size))
        memory = Memory(
            node_id=node_id,
            ek_public=ek.raw,
            ak_public=ak.raw,
            endorsed_by=f"{endorsement.kind}:{endorsement.root_name}",
            name_hint=request.name_hint,
            secret_sha256=hashlib.sha256(secret).digest(),
            expires=expiry(self._setting.now()),
            tpm=endorsement.tpm,
            ek_issuer=issuer,
            ek_serial=serial,
            ek_certificates=endorsement.certificates,
        )
        return EnrollChallenge(
            node_id=node_id,
            credential_blob=blob,
            encrypted_secret=encrypted,
            ticket=self._tickets.issue(memory, random),
        )

    def _line_for(self, memory: Memory, request: ActivateRequest) -> ExpectedMachine | None:
        """The inventory's line about a new TPM; None in other modes. Raises as ``expected_for``."""
        if self._setting.mode is not Mode.INVENTORY:
            return None
        try:
            with self._setting.database.snapshot() as rows:
                line = expected_for(rows, memory.node_id, memory.ek_issuer, memory.ek_serial)
                holder = rows.nodes.find(line.name)
            if holder is not None and holder.name == line.name:
                raise ListedNameTaken("another node has the name that is listed", got=line.name)
        except Refusal as refusal:
            digest = hashlib.sha256(request.ticket).hexdigest()
            self._denials.record("activate", Sha256Hex(digest), refusal, memory.node_id)
            raise
        return line

    def _admit(self, memory: Memory, line: ExpectedMachine | None) -> EnrollResult:
        """(6) A new node. Name and role come from a person, from the inventory, or from us in the
        mode ``open``.
        """
        node = self._new_node(memory) if line is None else self._listed_node(memory, line)
        entries: list[Entry] = [self._entry(memory, node, again=False)]
        if line is not None:
            entries.append(_admission(node, line, self._setting.now()))
        self._setting.journal.record(*entries)
        with self._setting.journal.effect() as rows:
            rows.nodes.insert(node)
            self._keep(rows, memory)
            if line is not None and not rows.expected.arrived(line.name, node.id):
                raise Conflict("another TPM enrolled as this machine first", got=line.name)
        return EnrollResult(node_id=node.id, state=states.PENDING, name=node.name)

    def _keep(self, rows: Transaction, memory: Memory) -> None:
        """What the endorsement rests on, to judge it again when that changes."""
        if memory.ek_certificates is not None:
            rows.ek_certificates.put(memory.node_id, memory.ek_certificates, self._setting.now())
            rows.ek_certificates.place_under(memory.node_id, self._rejudging.above(memory))

    def _judged_again(self, known: Node, memory: Memory) -> Node:
        """A node that enrolled before its certificates were kept, or that sent others than before."""
        with self._setting.database.snapshot() as rows:
            kept = rows.ek_certificates.get(known.id)
        is_known = kept is not None and kept.certificates == memory.ek_certificates
        if memory.ek_certificates is None or (is_known and known.endorsement is not None):
            return known
        with self._setting.database.transaction() as rows:
            self._keep(rows, memory)
        self._rejudging.judge_node(known.id)
        with self._setting.database.snapshot() as rows:
            return rows.nodes.get(known.id) or known

    def _describe_again(self, known: Node, memory: Memory, state: NodeState) -> None:
        """Another root vouches for it by now, or its certificate was judged in another way."""
        self._setting.journal.record(self._entry(memory, known, again=False, state=state))
        with self._setting.journal.effect() as rows:
            rows.nodes.describe_tpm(known.id, memory.endorsed_by, msgspec.json.encode(memory.tpm))

    def _listed_node(self, memory: Memory, line: ExpectedMachine) -> Node:
        return dataclasses.replace(
            self._new_node(memory),
            name=line.name,
            role=line.role,
            site=line.site,
            channel=line.channel,
            state_reason=states.AWAITING_ATTESTATION,
            approved_at=self._setting.now(),
        )

    def _new_node(self, memory: Memory) -> Node:
        now, is_open = self._setting.now(), self._setting.mode is Mode.OPEN
        return Node(
            id=memory.node_id,
            name=NodeName(f"node-{memory.node_id[:12]}") if is_open else None,
            role=self._setting.open_role if is_open else None,
            state=states.PENDING,
            state_reason=(
                states.AWAITING_ATTESTATION if is_open else states.AWAITING_APPROVAL.code
            ),
            ek_public=memory.ek_public,
            ak_public=memory.ak_public,
            ek_root=memory.endorsed_by,
            tpm=msgspec.json.encode(memory.tpm),
            name_hint=memory.name_hint,
            mode=self._setting.mode,
            enrolled_at=now,
            approved_at=now if is_open else None,
            state_since=now,
            endorsement=None if memory.ek_certificates is None else states.VOUCHED_FOR,
        )

    def _remember_new_key(self, known: Node, memory: Memory) -> None:
        """(7) A known EK with another AK replaces nothing by itself."""
        self._setting.journal.record(self._entry(memory, known, again=True))
        with self._setting.journal.effect() as rows:
            rows.reenrolments.put(
                Reenrolment(node_id=known.id, ak_public=memory.ak_public, at=self._setting.now())
            )

    def _entry(
        self, memory: Memory, node: Node, *, again: bool, state: NodeState = states.PENDING
    ) -> EnrolmentEntry:
        return EnrolmentEntry(
            at=self._setting.now(),
            actor=node.id,
            node_id=node.id,
            node_name=node.name,
            ak_sha256=hashlib.sha256(memory.ak_public).hexdigest(),
            ek_root=memory.endorsed_by,
            mode=self._setting.mode.value,
            state=state,
            again=again,
            tpm=memory.tpm,
        )


def _admission(node: Node, line: ExpectedMachine, now: datetime) -> Approval:
    """What a person decided by listing the machine."""
    return Approval(
        at=now,
        actor=SERVER,
        node_id=node.id,
        node_name=line.name,
        ak_sha256=hashlib.sha256(node.ak_public).hexdigest(),
        role=line.role,
    )
