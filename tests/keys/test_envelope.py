from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import dsse
from catena.formats.dsse import Envelope, Statement, Subject
from catena.keys import envelope
from catena.keys.envelope import (
    ForgedEnvelope,
    NoTrustedKeys,
    UnsignedEnvelope,
    UntrustedSigner,
    WrongPayloadType,
)
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key

OURS, OTHER = (PrivateKeySigner(generate_key(KeyAlgorithm.ED25519)) for _ in range(2))
P256 = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
STATEMENT = Statement(
    subject=(Subject(name="thing", digest={"sha256": "00"}),),
    predicate_type="urn:example:v1",
    predicate=msgspec.Raw(b'{"a":1}'),
)


@pytest.mark.parametrize("signer", [OURS, P256])
def test_sealed_statement_opens_under_its_key(signer):
    sealed = envelope.seal(signer, STATEMENT).encode()
    opened = envelope.open_envelope(sealed, [OTHER.public_key, signer.public_key])
    assert opened.encode() == STATEMENT.encode()


def test_ed25519_envelopes_are_deterministic():
    assert envelope.seal(OURS, STATEMENT) == envelope.seal(OURS, STATEMENT)


def test_any_payload_can_be_sealed_under_its_own_type():
    sealed = envelope.seal(OURS, b"policy", "text/plain").encode()
    assert envelope.open_payload(sealed, [OURS.public_key], "text/plain") == b"policy"


def test_unknown_signer_is_refused():
    sealed = envelope.seal(OTHER, STATEMENT).encode()
    with pytest.raises(UntrustedSigner):
        envelope.open_envelope(sealed, [OURS.public_key])


def test_key_id_alone_proves_nothing():
    forged = envelope.seal(OTHER, STATEMENT)
    claimed = msgspec.structs.replace(forged.signatures[0], keyid=OURS.key_id)
    forged = msgspec.structs.replace(forged, signatures=(claimed,))
    with pytest.raises(ForgedEnvelope):
        envelope.open_envelope(forged.encode(), [OURS.public_key])


def test_key_id_is_only_a_hint():
    sealed = envelope.seal(OURS, STATEMENT)
    unnamed = msgspec.structs.replace(sealed.signatures[0], keyid="")
    sealed = msgspec.structs.replace(sealed, signatures=(unnamed,))
    envelope.open_envelope(sealed.encode(), [OURS.public_key])


def test_one_good_signature_of_several_is_enough():
    ours, other = envelope.seal(OURS, STATEMENT), envelope.seal(OTHER, STATEMENT)
    both = msgspec.structs.replace(ours, signatures=other.signatures + ours.signatures)
    envelope.open_envelope(both.encode(), [OURS.public_key])


def test_empty_signature_is_no_signature():
    sealed = envelope.seal(OURS, STATEMENT)
    empty = msgspec.structs.replace(sealed.signatures[0], sig=b"")
    with pytest.raises(UnsignedEnvelope):
        envelope.open_envelope(
            msgspec.structs.replace(sealed, signatures=(empty,)).encode(), [OURS.public_key]
        )
    with pytest.raises(FormatError):
        envelope.open_envelope(
            msgspec.structs.replace(sealed, signatures=()).encode(), [OURS.public_key]
        )


def test_nothing_opens_without_a_key():
    with pytest.raises(NoTrustedKeys):
        envelope.open_envelope(envelope.seal(OURS, STATEMENT).encode(), [])


def test_payload_of_another_type_is_refused():
    sealed = envelope.seal(OURS, STATEMENT.encode(), "application/other").encode()
    with pytest.raises(WrongPayloadType):
        envelope.open_envelope(sealed, [OURS.public_key])


def test_payload_type_is_signed():
    sealed = envelope.seal(OURS, STATEMENT.encode(), "application/other")
    retyped = Envelope(sealed.payload, dsse.IN_TOTO, sealed.signatures)
    with pytest.raises(ForgedEnvelope):
        envelope.open_envelope(retyped.encode(), [OURS.public_key])


@given(st.data())
def test_any_changed_payload_is_refused(data):
    sealed = envelope.seal(OURS, STATEMENT)
    at = data.draw(st.integers(0, len(sealed.payload) * 8 - 1))
    payload = bytearray(sealed.payload)
    payload[at // 8] ^= 1 << at % 8
    changed = msgspec.structs.replace(sealed, payload=bytes(payload))
    with pytest.raises(ForgedEnvelope):
        envelope.open_envelope(changed.encode(), [OURS.public_key])
