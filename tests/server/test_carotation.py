"""The cluster CA is rotated with an overlap: nobody is left behind, and the old one ends."""

from __future__ import annotations

import base64
import ssl
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from catena.cli.main import run
from catena.keys.signer import (
    KeyAlgorithm,
    MissingKey,
    UnusableKey,
    generate_key,
    key_id_of,
    write_key,
)
from catena.server import carotation
from catena.server.carotation import Plan
from catena.server.checkup import check
from catena.server.folder import open_server
from catena.service.authorities import FRESH, RotationTooFast, RotationUnderWay
from catena.store.errors import Conflict
from service.fixtures import make_server
from softhsm import *  # noqa: F403 - fixtures
from softhsm import needs_softhsm
from swtpm import needs_swtpm

WEEK = timedelta(days=7)
PLAN = Plan(switch_after=WEEK, drop_after=WEEK)


def rotate(server, plan: Plan = PLAN):
    return carotation.rotate(server.opened, plan, server.clock)


def certificates(server) -> tuple[x509.Certificate, ...]:
    return server.service.setting.authorities.believed(server.clock())


def issued_by(pem: str, authority: x509.Certificate) -> bool:
    try:
        x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(authority)
    except InvalidSignature:
        return False
    return True


def bundle(api) -> dict:
    return api.http.get("/v1/bundle").json()


def shown(bundle: dict) -> list[bytes]:
    return [base64.b64decode(key["x5c"][0]) for key in bundle["keys"]]


def connects(server, *believed: x509.Certificate) -> bool:
    """Whether a client that believes these shakes hands with the server as it is now."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(
        cadata="".join(one.public_bytes(Encoding.PEM).decode() for one in believed)
    )
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    (from_server, to_server), _ = ends
    host = server.listener.wrap_bio(to_server, from_server, server_side=True)
    guest = client.wrap_bio(from_server, to_server, server_hostname="localhost")
    for _ in range(6):
        for side in (guest, host):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return guest.version() == "TLSv1.3"


@pytest.fixture
def listening(server, monkeypatch):
    """The server with the context that its listener has, made once as ``run`` does."""
    # Certificates are dated by the server's clock, handshakes by the machine's.
    monkeypatch.setattr(server.clock, "time", server.clock.time - timedelta(hours=1, minutes=1))
    server.reopen()
    server.listener = server.opened.tls.context()
    return server


# Nodes and clients ------------------------------------------------------------------------------


@needs_swtpm
@pytest.mark.tpm
def test_a_node_attests_through_every_phase(trusting_api, machine):
    api, server = trusting_api, trusting_api.server
    server.admit(machine)
    old = certificates(server)[0]
    before = machine.attest(api.call)
    assert before.bundle is msgspec.UNSET
    assert issued_by(before.certificate, old)

    rotate(server)
    announced = machine.attest(api.call)
    assert issued_by(announced.certificate, old)
    _, new = x509.load_pem_x509_certificates(announced.bundle.encode())

    server.clock.pass_(WEEK.total_seconds())
    switched = machine.attest(api.call)
    assert issued_by(switched.certificate, new)
    assert switched.bundle == announced.bundle

    server.clock.pass_(WEEK.total_seconds())
    dropped = machine.attest(api.call)
    assert issued_by(dropped.certificate, new)
    assert x509.load_pem_x509_certificates(dropped.bundle.encode()) == [new]
    assert {before.state, announced.state, switched.state, dropped.state} == {"trusted"}


def test_the_check_looks_at_the_key_that_is_in_force(server):
    def errors() -> list[str]:
        found = check(server.folder, server.clock()).findings
        return [one.code for one in found if one.severity == "error"]

    views = rotate(server)
    settings = server.folder / "server.toml"
    named = server.opened.config.ca_key
    assert errors() == []
    server.clock.pass_(2 * WEEK.total_seconds() + 1)
    settings.write_text(settings.read_text().replace(named, "gone.key"))
    assert errors() == []
    key = server.folder / views[-1].key
    content = key.read_bytes()
    key.unlink()
    assert errors() == ["missing-key"]
    write_key(key, generate_key(KeyAlgorithm.ECDSA_P256))
    assert errors() == ["unusable-key"]
    key.write_bytes(content)
    assert errors() == []


def test_a_client_of_the_old_ca_connects_until_it_is_dropped(listening):
    server = listening
    (old,) = certificates(server)
    assert connects(server, old)
    rotate(server)
    both = certificates(server)
    new = both[1]
    assert (connects(server, old), connects(server, *both)) == (True, True)
    server.clock.pass_(WEEK.total_seconds())
    assert (connects(server, old), connects(server, *both)) == (True, True)
    server.clock.pass_(WEEK.total_seconds())
    assert certificates(server) == (new,)  # somebody asks, and the server notices


def test_the_listener_presents_the_new_ca_without_a_restart(listening, monkeypatch):
    """As above, with an end that the machine's clock allows: handshakes look at that one."""
    from catena.service import authorities

    server = listening
    (old,) = certificates(server)
    rotate(server)
    both = certificates(server)
    end = server.clock() + 2 * WEEK
    monkeypatch.setattr(
        authorities,
        "_counts",
        lambda row, now: row.trusted_until is None,
    )
    server.service.setting.authorities.forget()
    assert certificates(server) == both[1:]
    assert end > server.clock()
    assert (connects(server, old), connects(server, both[1])) == (False, True)
    assert (server.folder / "ca.crt").read_bytes() == both[1].public_bytes(Encoding.PEM)


# The bundle -------------------------------------------------------------------------------------


def test_the_bundle_follows_and_its_number_only_grows(api):
    server = api.server
    first = bundle(api)
    assert [key["use"] for key in first["keys"]] == ["x509-svid"]
    assert (first["keys"][0]["kty"], first["keys"][0]["crv"]) == ("EC", "P-256")
    assert {"spiffe_sequence", "spiffe_refresh_hint"} < set(first)
    rotate(server)
    both = bundle(api)
    assert len(shown(both)) == 2
    assert shown(both)[0] == shown(first)[0]
    server.clock.pass_(WEEK.total_seconds())
    assert bundle(api) == both
    server.clock.pass_(WEEK.total_seconds())
    last = bundle(api)
    assert shown(last) == shown(both)[1:]
    numbers = [one["spiffe_sequence"] for one in (first, both, last)]
    assert numbers == sorted(set(numbers))


def test_what_clients_are_told_to_trust_follows(server):
    path = server.folder / "ca.crt"
    assert len(x509.load_pem_x509_certificates(path.read_bytes())) == 1
    rotate(server)
    assert len(x509.load_pem_x509_certificates(path.read_bytes())) == 2
    server.clock.pass_(2 * WEEK.total_seconds())
    server.reopen()
    (left,) = x509.load_pem_x509_certificates(path.read_bytes())
    assert (left,) == certificates(server)


# The rotation -----------------------------------------------------------------------------------


def test_the_log_knows_first_and_the_key_is_the_owners(server):
    old, new = rotate(server)
    entry = server.entries()[-1]
    assert (entry.kind, entry.action, entry.key, entry.key_sha256) == (
        "key-change",
        "added",
        "cluster-ca",
        new.sha256,
    )
    assert (old.state, new.state) == ("issuing", "announced")
    assert (server.folder / new.key).stat().st_mode & 0o777 == 0o600
    server.clock.pass_(WEEK.total_seconds())
    listed = carotation.authorities(server.opened, server.clock)
    assert [one.state for one in listed] == ["believed", "issuing"]
    server.clock.pass_(WEEK.total_seconds())
    listed = carotation.authorities(server.opened, server.clock)
    assert [one.state for one in listed] == ["dropped", "issuing"]
    ended = server.entries()[-1]
    assert (ended.action, ended.key_sha256) == ("removed", old.sha256)
    server.clock.pass_(60)
    server.reopen()
    carotation.authorities(server.opened, server.clock)
    assert [one.action for one in server.entries() if one.kind == "key-change"] == [
        "added",
        "removed",
    ]


def test_the_end_that_nobody_saw_is_told_at_the_next_start(server):
    rotate(server)
    server.clock.pass_(2 * WEEK.total_seconds())
    server.reopen()
    assert server.entries()[-1].summary().startswith("key of cluster-ca removed")


def test_another_replica_sees_it_in_time(server):
    other = open_server.__globals__["Authorities"](
        lambda: server.service.setting.authorities.issuing(server.clock()),
        server.opened.database,
        lambda _: None,
    )
    assert len(other.believed(server.clock())) == 1
    rotate(server)
    assert len(other.believed(server.clock())) == 1
    server.clock.pass_(FRESH.total_seconds())
    assert len(other.believed(server.clock())) == 2


def test_one_rotation_at_a_time(server):
    rotate(server)
    for _ in range(2):
        with pytest.raises(RotationUnderWay):
            rotate(server)
        server.clock.pass_(WEEK.total_seconds() - 1)
    server.clock.pass_(2)
    third = rotate(server)
    assert [one.state for one in third] == ["dropped", "issuing", "announced"]
    assert len(list(server.folder.glob("ca-*.key"))) == 2  # those that were refused left nothing


@pytest.mark.parametrize(
    ("switch", "drop"),
    [(timedelta(seconds=59), WEEK), (WEEK, timedelta(minutes=10)), (timedelta(0), timedelta(0))],
)
def test_a_rotation_that_leaves_somebody_behind_is_refused(server, switch, drop):
    before = server.kinds()
    with pytest.raises(RotationTooFast):
        rotate(server, Plan(switch_after=switch, drop_after=drop))
    assert server.kinds() == before
    assert not list(server.folder.glob("ca-*.key"))


def test_a_rotation_that_cannot_be_logged_does_not_happen(server):
    from catena.audit.log import LogUnwritable

    server.opened.log.close()
    with pytest.raises(LogUnwritable):
        rotate(server)
    assert len(certificates(server)) == 1
    assert not list(server.folder.glob("ca-*.key"))


def test_a_key_that_is_there_already(server, tmp_path):
    path = tmp_path / "own.key"
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    write_key(path, key)
    plan = Plan(switch_after=WEEK, drop_after=WEEK, key=str(path))
    assert rotate(server, plan)[1].sha256 == key_id_of(key.public_key())
    server.clock.pass_(3 * WEEK.total_seconds())
    with pytest.raises(Conflict):
        rotate(server, plan)  # it was an authority already
    ed25519 = tmp_path / "ed.key"
    write_key(ed25519, generate_key(KeyAlgorithm.ED25519))
    with pytest.raises(UnusableKey):
        rotate(server, Plan(switch_after=WEEK, drop_after=WEEK, key=str(ed25519)))


@needs_softhsm
def test_the_successor_may_be_a_key_on_a_token(server, softhsm):
    """From then on, also after a restart, certificates are signed there."""
    uri = softhsm.uri("successor")
    _, new = rotate(server, Plan(switch_after=WEEK, drop_after=WEEK, key=uri))
    assert new.key == uri
    server.clock.pass_(2 * WEEK.total_seconds())
    server.reopen()
    ca = server.service.setting.authorities.issuing(server.clock())
    ca.certificate.verify_directly_issued_by(ca.certificate)
    own = x509.load_pem_x509_certificate((server.folder / "tls.crt").read_bytes())
    own.verify_directly_issued_by(ca.certificate)
    assert not list(server.folder.glob("ca-*.key"))
    (softhsm.folder / "pin").unlink()
    server.opened.close()
    with pytest.raises(MissingKey):
        open_server(server.folder, now=server.clock, random=bytes)


def test_a_server_without_the_key_that_issues_does_not_start(server):
    _, new = rotate(server)
    server.clock.pass_(WEEK.total_seconds())
    (server.folder / new.key).rename(server.folder / "away")
    server.opened.close()
    with pytest.raises(MissingKey):
        open_server(server.folder, now=server.clock, random=bytes)
    (server.folder / "away").rename(server.folder / new.key)
    server.opened = open_server(server.folder, now=server.clock, random=bytes)


def test_after_the_drop_the_old_key_is_not_needed(server, tmp_path, keys):
    rotate(server)
    server.clock.pass_(2 * WEEK.total_seconds())
    server.opened.close()
    text = (server.folder / "server.toml").read_text()
    gone = text.replace(str(keys.path / "ca.key"), str(tmp_path / "gone.key"))
    (server.folder / "server.toml").write_text(gone)
    server.opened = open_server(server.folder, now=server.clock, random=bytes)
    assert len(certificates(server)) == 1


def test_the_commands(tmp_path, keys, capsys):
    server = make_server(tmp_path / "server", keys)
    server.opened.close()
    folder = str(server.folder)
    assert run(["server", "authorities", folder]) == 0
    assert "issuing" in capsys.readouterr().out
    assert run(["server", "rotate-ca", folder, "--switch-after", "1h", "-o", "json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert [one["state"] for one in found] == ["issuing", "announced"]
    assert run(["server", "rotate-ca", folder]) == 2
    assert "rotation-under-way" in capsys.readouterr().err
    assert run(["server", "rotate-ca", folder, "--switch-after", "soon"]) == 2
