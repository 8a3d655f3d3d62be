from __future__ import annotations

import msgspec
import pytest

from catena.errors import FormatError
from catena.formats.containerpolicy import ContainerPolicy, Publisher, Scope
from catena.formats.dsse import Statement, Subject
from catena.formats.references import FirmwareCapture, KeySet
from catena.keys.documents import WrongDocument, open_document, seal_document
from catena.keys.envelope import UntrustedSigner, seal
from catena.keys.hierarchy import KeyName
from catena.keys.signer import KeyAlgorithm, generate_key

SUBJECT = [Subject(name="it", digest={"sha256": "00"})]
KEYSET = KeySet(name="a", version="1", owner="o", certificates={}, events=(), pcrs={})


def test_document_round_trips(keys):
    sealed = seal_document(KEYSET, SUBJECT, keys.signer(KeyName.RELEASE))
    assert open_document(sealed, [keys.public_key(KeyName.RELEASE)], KeySet) == KEYSET


def test_container_policy_is_a_document_of_its_own_kind(keys):
    policy = ContainerPolicy(
        name="acme",
        version=1,
        publishers=(Publisher(name="acme"),),
        scopes=(Scope(repository="*", publishers=("acme",)),),
    )
    sealed = seal_document(policy, SUBJECT, keys.signer(KeyName.RELEASE))
    public = [keys.public_key(KeyName.RELEASE)]
    assert open_document(sealed, public, ContainerPolicy) == policy
    with pytest.raises(WrongDocument):
        open_document(sealed, public, KeySet)


def test_document_of_another_kind_is_refused(keys):
    sealed = seal_document(KEYSET, SUBJECT, keys.signer(KeyName.RELEASE))
    with pytest.raises(WrongDocument):
        open_document(sealed, [keys.public_key(KeyName.RELEASE)], FirmwareCapture)


def test_document_of_a_stranger_is_refused(keys):
    sealed = seal_document(KEYSET, SUBJECT, keys.signer(KeyName.RELEASE))
    stranger = generate_key(KeyAlgorithm.ED25519).public_key()
    with pytest.raises(UntrustedSigner):
        open_document(sealed, [stranger], KeySet)


def test_unknown_fields_are_refused(keys):
    fields = {**msgspec.to_builtins(KEYSET), "extra": 1}
    statement = Statement(
        subject=tuple(SUBJECT),
        predicate_type="urn:catena:reference:keyset:v1",
        predicate=msgspec.Raw(msgspec.json.encode(fields)),
    )
    sealed = seal(keys.signer(KeyName.RELEASE), statement).encode()
    with pytest.raises(FormatError, match="not a KeySet"):
        open_document(sealed, [keys.public_key(KeyName.RELEASE)], KeySet)
