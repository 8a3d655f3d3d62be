from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import msgspec
import pytest
from stand_in import StandIn

from catena.agent.client import RequestRefused, TrustClient
from catena.agent.enrolment import ForeignChallenge, enrol, node_id
from catena.formats.nodeapi import EnrollRequest
from catena.formats.tpm2 import parse_public
from catena.keys.protect import make_credential
from catena.tpm.device import Tpm, open_tpm
from catena.tpm.failure import ForeignSeal
from swtpm import SoftwareTpm, needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


@pytest.fixture
def client(service: StandIn, ca_file) -> Iterator[TrustClient]:
    with TrustClient(service.url, ca_file) as client:
        yield client


def test_node_is_named_by_its_endorsement_key(tpm: Tpm, client, service: StandIn):
    result = enrol(tpm, client, name_hint="rack-3")
    assert result.node_id == hashlib.sha256(tpm.ek_public()).hexdigest()
    _, ak = service.enrolled[result.node_id]
    assert ak.raw == tpm.ak_public()
    assert service.hints == ["rack-3"]


def test_waiting_for_a_person_is_told(tpm: Tpm, client, service: StandIn):
    service.state = "pending"
    assert enrol(tpm, client).state == "pending"


def test_challenge_for_another_tpm_is_not_answered(
    tpm: Tpm, elsewhere: SoftwareTpm, client, service: StandIn, monkeypatch
):
    with open_tpm(elsewhere.tcti) as other:
        foreign = parse_public(other.ek_public())

    def enroll(request: EnrollRequest):
        challenge = StandIn.enroll(service, request)
        name = parse_public(request.ak_public).name()
        blob, seed = make_credential(foreign, name, b"secret", seed=os.urandom(32))
        return msgspec.structs.replace(challenge, credential_blob=blob, encrypted_secret=seed)

    monkeypatch.setattr(service, "enroll", enroll)
    with pytest.raises(ForeignSeal):
        enrol(tpm, client)
    assert service.enrolled == {}


@pytest.mark.parametrize("step", ["enroll", "activate"])
def test_answer_about_another_node_is_refused(
    tpm: Tpm, client, service: StandIn, monkeypatch, step
):
    honest = getattr(service, step)
    monkeypatch.setattr(
        service,
        step,
        lambda request: msgspec.structs.replace(honest(request), node_id="ab" * 32),
    )
    with pytest.raises(ForeignChallenge):
        enrol(tpm, client)


def test_wrong_activation_secret_is_refused_by_the_server(
    tpm: Tpm, client, service: StandIn, monkeypatch
):
    monkeypatch.setattr(tpm, "activate_credential", lambda *_: b"guess")
    with pytest.raises(RequestRefused):
        enrol(tpm, client)


def test_node_id_is_lower_case_hex():
    assert node_id(b"area") == hashlib.sha256(b"area").hexdigest()
