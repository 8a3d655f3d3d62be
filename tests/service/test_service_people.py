"""People in the log: pseudonyms whose names and salts lie outside, and can be deleted."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from catena.audit.entries import AdminToken, KeyChanged, PersonForgotten
from catena.audit.log import LogUnwritable
from catena.audit.people import PersonMismatch, open_people, pseudonym
from catena.errors import FormatError
from catena.service.people import PersonInUse, UnknownPerson
from catena.service.pseudonyms import Pseudonyms, is_reserved
from catena.store.credentials import Token
from service.fixtures import listed
from service.vendor import Authority, request

NAME = "ada.example@corp"
TOKEN = "a" * 64


@pytest.fixture
def known(server):
    """Somebody who used a token once."""
    server.service.uses.note("admin", NAME, "admin", TOKEN)
    return server.entries()[-1].actor


def person(server, name):
    return next(one for one in listed(server.service.people) if one.name == name)


def everything(server):
    return b"".join(one.read_bytes() for one in server.folder.rglob("*") if one.is_file())


def test_the_log_has_a_salted_digest_and_never_the_name(server, known):
    listed(server.service.secrets)
    one = person(server, NAME)
    assert one.pseudonym == known
    digest = hashlib.sha256(b"catena/person/v1" + bytes.fromhex(one.salt) + NAME.encode())
    assert known == f"person:{digest.hexdigest()}"
    log = b"".join(
        path.read_bytes() for path in (server.folder / "log").rglob("*") if path.is_file()
    )
    assert NAME.encode() not in log
    assert one.salt.encode() not in log
    assert bytes.fromhex(one.salt) not in log


def test_equal_names_have_one_pseudonym_and_others_another(server, known):
    server.service.uses.note("log", NAME, "admin", TOKEN)
    server.service.uses.note("log", "bob", "viewer", "b" * 64)
    again, bob = server.entries()[-2:]
    assert again.actor == known
    assert bob.actor != known


def test_names_of_all_personal_fields_are_masked(server):
    entry = AdminToken(
        at=server.clock(),
        actor="carol",
        action="created",
        label="dave",
        role="viewer",
        token_sha256=TOKEN,
    )
    server.opened.service.setting.journal.record(entry)
    logged = server.entries()[-1]
    assert (server.name(logged.actor), server.name(logged.label)) == ("carol", "dave")
    assert logged.subjects()[0].name == f"token:{logged.label}"


def test_node_and_server_keep_their_names(server):
    for actor in ("server", "ab" * 32):
        entry = KeyChanged(
            at=server.clock(), actor=actor, action="added", key="x", key_sha256=TOKEN
        )
        server.opened.service.setting.journal.record(entry)
        assert server.entries()[-1].actor == actor


@pytest.mark.parametrize("name", ["server", "unknown", "ab" * 32, "person:x"])
def test_what_others_are_called_is_reserved(name):
    assert is_reserved(name)
    assert not is_reserved(f"{name}!") or name == "person:x"


def test_a_forgotten_person_is_gone_and_the_log_verifies(server, known):
    salt = person(server, NAME).salt
    gone = server.service.people.forget(known, "admin")
    assert gone.pseudonym == known
    assert NAME not in {one.name for one in listed(server.service.people)}
    last = server.entries()[-1]
    assert isinstance(last, PersonForgotten)
    assert (last.person, server.name(last.actor)) == (known, "admin")
    server.opened.close()  # the database's write-ahead file is folded in
    rest = everything(server)
    assert NAME.encode() not in rest
    assert bytes.fromhex(salt) not in rest
    server.reopen()
    with pytest.raises(UnknownPerson):
        server.service.people.forget(known, "admin")


def test_what_a_forgotten_person_accepted_stays_accepted(server, known):
    server.service.endorsements.accept(request(Authority("Acme TPM Root CA").der), NAME)
    server.service.people.forget(known, "admin")
    (kept,) = listed(server.service.endorsements)
    assert kept.accepted_by == known


def test_whoever_comes_back_has_a_new_pseudonym(server, known):
    server.service.people.forget(known, "admin")
    server.clock.pass_(3600)
    server.service.uses.note("admin", NAME, "admin", TOKEN)
    assert server.entries()[-1].actor != known


def test_who_has_a_token_is_not_forgotten(server, known):
    token = Token(hash=TOKEN, role="admin", label=NAME, created_at=server.clock())
    with server.opened.database.transaction() as rows:
        rows.tokens.insert(token)
    before = server.kinds()
    with pytest.raises(PersonInUse):
        server.service.people.forget(known, "admin")
    assert server.kinds() == before
    assert person(server, NAME)


def test_who_cannot_be_logged_as_forgotten_stays(server, known):
    server.opened.log.close()
    with pytest.raises(LogUnwritable):
        server.service.people.forget(known, "admin")
    assert person(server, NAME)


@pytest.mark.parametrize(
    "wrong", ["", "ada", "person:", "person:" + "0" * 64, "person:" + "G" * 64]
)
def test_nobody_is_behind_other_text(server, wrong):
    with pytest.raises(UnknownPerson):
        server.service.people.forget(wrong, "admin")


def test_replicas_agree_on_a_pseudonym(server):
    makers = [Pseudonyms(server.opened.database, os.urandom) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda maker: maker.of("eve"), makers))
    assert made == {person(server, "eve").pseudonym}


def test_the_list_is_checked_where_it_is_used(server, known):
    content = msgspec.json.encode(listed(server.service.people))
    assert open_people(content)[known] == NAME
    with pytest.raises(PersonMismatch):
        open_people(content.replace(NAME.encode(), b"mallory"))
    for broken in (b"", b"{}", b"[1]", content[:-1], content.replace(b"person:", b"nobody:")):
        with pytest.raises(FormatError):
            open_people(broken)


def test_a_pseudonym_depends_on_salt_and_name():
    assert pseudonym(b"s" * 16, "a") == pseudonym(b"s" * 16, "a")
    assert (
        len({pseudonym(b"s" * 16, "a"), pseudonym(b"t" * 16, "a"), pseudonym(b"s" * 16, "b")}) == 3
    )
