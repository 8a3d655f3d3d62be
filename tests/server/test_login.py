"""Logging in with an OpenID provider's token: who gets in, and every token that does not."""

from __future__ import annotations

import hmac
import json
import ssl
from collections.abc import Iterator

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from catena.errors import FormatError
from catena.formats import jwk
from catena.formats.jwk import Jwk
from catena.keys import jose
from catena.server.config import BadConfig
from catena.server.folder import open_server
from catena.server.issuer import PAUSE, IssuerKeys, IssuerUnreachable
from catena.server.login import issuer_of
from catena.service.bearer import token_hash
from catena.service.views import LoginOffer, NewToken
from server.conftest import Api, open_api
from server.provider import *  # noqa: F403 - fixtures
from server.provider import ALICE, CLIENT, KID, b64, signing_input
from service.fixtures import make_server


@pytest.fixture
def api(tmp_path, keys, provider) -> Iterator[Api]:
    server = make_server(tmp_path / "server", keys, **provider.settings)
    yield from open_api(server)
    server.opened.close()


def claims(api, provider, **changes) -> dict:
    now = int(api.server.clock().timestamp())
    offer = msgspec.json.decode(api.http.get("/v1/login").content, type=LoginOffer)
    usual = {
        "iss": provider.issuer,
        "aud": CLIENT,
        "iat": now,
        "exp": now + 300,
        "nonce": offer.nonce,
        **ALICE,
        **changes,
    }
    return {name: value for name, value in usual.items() if value is not None}


def login(api, token: str):
    return api.http.post("/v1/login", content=json.dumps({"id_token": token}).encode())


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_offer_says_where_and_as_what(api, provider):
    offer = api.http.get("/v1/login").json()
    assert (offer["issuer"], offer["client_id"]) == (provider.issuer, CLIENT)
    assert offer["nonce"] != api.http.get("/v1/login").json()["nonce"]


def test_a_person_gets_the_role_of_the_first_rule_and_the_log_knows_first(api, provider):
    answer = login(api, provider.sign(claims(api, provider, groups=["x", "ops", "admins"])))
    assert answer.status_code == 200, answer.text
    made = msgspec.json.decode(answer.content, type=NewToken)
    assert (made.view.label, made.view.role, made.view.login) == ("oidc:alice", "admin", True)
    made_entry, sign_in = api.server.entries()[-2:]
    assert made_entry.kind == "admin-token"
    assert api.server.name(made_entry.label) == "oidc:alice"
    assert (sign_in.kind, sign_in.token_sha256) == ("admin-sign-in", token_hash(made.token))
    assert api.admin("GET", "/tokens", token=made.token).status_code == 200
    api.server.clock.pass_(3600)
    assert code(api.admin("GET", "/tokens", token=made.token)) == (401, "token-expired")


def test_two_logins_of_one_person_are_two_tokens_and_go_together(api, provider):
    for _ in range(2):
        assert login(api, provider.sign(claims(api, provider))).status_code == 200
    gone = api.admin("DELETE", "/tokens/oidc:alice").json()
    assert [one["label"] for one in gone] == ["oidc:alice"] * 2


def test_logins_that_ended_long_ago_leave_the_list(api, provider):
    assert login(api, provider.sign(claims(api, provider))).status_code == 200
    api.server.clock.pass_(8 * 86_400)
    assert login(api, provider.sign(claims(api, provider, sub="bob"))).status_code == 200
    labels = [one["label"] for one in api.admin("GET", "/tokens").json()]
    assert "oidc:alice" not in labels
    assert "oidc:bob" in labels


REFUSED = [
    ({"iss": "https://evil.example"}, "login-issuer"),
    ({"iss": None}, "login-issuer"),
    ({"aud": "another"}, "login-audience"),
    ({"aud": None}, "login-audience"),
    ({"aud": [CLIENT, "another"]}, "login-audience"),
    ({"aud": [CLIENT, "another"], "azp": "another"}, "login-audience"),
    ({"azp": "another"}, "login-audience"),
    ({"exp": 1}, "login-untimely"),
    ({"exp": None}, "login-untimely"),
    ({"iat": None}, "login-untimely"),
    ({"iat": 1 << 40}, "login-untimely"),
    ({"nbf": 1 << 40}, "login-untimely"),
    ({"nonce": None}, "login-stale"),
    ({"nonce": "x"}, "login-stale"),
    ({"nonce": b64(bytes(56))}, "login-stale"),
    ({"groups": ["OPS", "ops "]}, "login-without-role"),
    ({"groups": None}, "login-without-role"),
    ({"groups": {"ops": True}}, "login-without-role"),
    ({"sub": None}, "login-nameless"),
]


@pytest.mark.parametrize(("changes", "expected"), REFUSED)
def test_a_genuine_token_that_is_not_for_this_is_refused(api, provider, changes, expected):
    before = api.server.kinds()
    answer = login(api, provider.sign(claims(api, provider, **changes)))
    assert code(answer) == (403, expected)
    assert api.server.kinds() == before


def test_a_subject_that_is_several_is_malformed(api, provider):
    answer = login(api, provider.sign(claims(api, provider, sub=["alice", "bob"])))
    assert code(answer) == (400, "malformed")


def test_a_name_with_a_space_is_none(api, provider):
    answer = login(api, provider.sign(claims(api, provider, sub="a b")))
    assert code(answer) == (403, "login-nameless")


def test_several_audiences_need_the_client_as_the_authorized_party(api, provider):
    token = provider.sign(claims(api, provider, aud=[CLIENT, "another"], azp=CLIENT))
    assert login(api, token).status_code == 200


def test_times_may_differ_by_a_minute(api, provider):
    now = int(api.server.clock().timestamp())
    late = claims(api, provider, exp=now - 59, iat=now + 59, nbf=now + 59)
    assert login(api, provider.sign(late)).status_code == 200
    for changes in ({"exp": now - 60}, {"iat": now + 61}, {"nbf": now + 61}):
        answer = login(api, provider.sign(claims(api, provider, **changes)))
        assert code(answer) == (403, "login-untimely")


def test_a_token_is_good_for_one_login(api, provider):
    token = provider.sign(claims(api, provider))
    assert login(api, token).status_code == 200
    assert code(login(api, token)) == (409, "login-replayed")


def test_a_login_has_ten_minutes(api, provider):
    asked = claims(api, provider)
    api.server.clock.pass_(601)
    now = int(api.server.clock().timestamp())
    token = provider.sign({**asked, "iat": now, "exp": now + 300})
    assert code(login(api, token)) == (403, "login-stale")


def test_a_nonce_of_another_server_is_none(api, provider, tmp_path, keys):
    other = make_server(tmp_path / "other", keys, **provider.settings)
    offer = other.opened.people.offer()
    other.opened.close()
    answer = login(api, provider.sign(claims(api, provider, nonce=offer.nonce)))
    assert code(answer) == (403, "login-stale")


# Signatures --------------------------------------------------------------------------------


def test_a_key_that_is_not_the_issuers_signs_nothing(api, provider):
    other = rsa.generate_private_key(65537, 2048)
    token = provider.sign(claims(api, provider), key=other)
    assert code(login(api, token)) == (403, "forged-signature")
    token = provider.sign(claims(api, provider), {"alg": "RS256", "kid": "other"}, other)
    assert code(login(api, token)) == (403, "jwt-key-unknown")


def test_no_signature_is_no_signature(api, provider):
    for algorithm in ("none", "None", "NONE", ""):
        text = signing_input({"alg": algorithm, "kid": KID}, claims(api, provider))
        assert code(login(api, f"{text}.")) == (403, "jwt-algorithm")


def test_the_public_key_is_no_shared_secret(api, provider):
    """The classic key confusion: HMAC with the bytes of the RSA key that everybody may have."""
    public = provider.key.public_key()
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        shown = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        text = signing_input({"alg": "HS256", "kid": KID}, claims(api, provider))
        token = f"{text}.{b64(hmac.digest(shown, text.encode(), 'sha256'))}"
        assert code(login(api, token)) == (403, "jwt-algorithm")


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_the_key_decides_about_the_algorithm(api, provider, algorithm):
    token = provider.sign(claims(api, provider), {"alg": algorithm, "kid": KID})
    assert code(login(api, token)) == (403, "jwt-key-unknown")


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"]}, {"b64": False}, {"crit": []}], ids=["crit", "b64", "empty"]
)
def test_an_extension_that_must_be_understood_is_refused(api, provider, extra):
    header = {"alg": "RS256", "kid": KID, **extra}
    assert code(login(api, provider.sign(claims(api, provider), header)))[1] == "malformed"


def test_a_key_that_comes_with_the_token_is_not_looked_at(api, provider):
    own = rsa.generate_private_key(65537, 2048)
    numbers = own.public_key().public_numbers()
    brought = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256)), "e": "AQAB", "kid": "mine"}
    header = {"alg": "RS256", "kid": "mine", "jwk": brought, "jku": "https://evil.example/jwks"}
    token = provider.sign(claims(api, provider), header, own)
    assert code(login(api, token)) == (403, "jwt-key-unknown")


def test_one_bit_of_a_token_changed(api, provider):
    token = provider.sign(claims(api, provider))
    head, body, signature = token.split(".")
    for at in range(0, len(signature), 7):
        flipped = "A" if signature[at] != "A" else "B"
        changed = f"{head}.{body}.{signature[:at]}{flipped}{signature[at + 1 :]}"
        assert code(login(api, changed))[1] in {"forged-signature", "malformed"}


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "{}", "é.é.é", "e30.W10.AA", "x" * 20_000],
)
def test_what_is_no_token_is_malformed(api, token):
    assert code(login(api, token)) == (400, "malformed")


def test_a_claim_that_occurs_twice_counts_neither_time(api, provider):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    text = json.dumps(claims(api, provider))[:-1] + ', "sub": "root"}'
    head = b64(json.dumps({"alg": "RS256", "kid": KID}).encode())

    signed = f"{head}.{b64(text.encode())}"
    signature = provider.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert code(login(api, f"{signed}.{b64(signature)}")) == (400, "malformed")


def test_no_token_is_in_the_servers_own_log(api, provider):
    token = provider.sign(claims(api, provider))
    login(api, token)
    login(api, token[:-4])
    assert token[-40:] not in "".join(api.lines)
    assert "id_token" not in "".join(api.lines)


def test_es256_and_eddsa_tokens_verify_and_others_of_them_do_not():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    from catena.formats import jwt
    from catena.keys.signer import ForgedSignature

    p256, ed = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    raw = ed.public_key().public_bytes_raw()
    known = [
        jose.jwk_of(p256.public_key(), use="sig", kid="p"),
        Jwk(kty="OKP", crv="Ed25519", kid="e", x=b64(raw)),
    ]
    text = signing_input({"alg": "ES256", "kid": "p"}, {})
    r, s = decode_dss_signature(p256.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    good = r.to_bytes(32) + s.to_bytes(32)
    jose.verify(jwt.parse(f"{text}.{b64(good)}"), known)
    for bad in (good[:-1], good + b"\0", good[32:] + good[:32], bytes(64)):
        with pytest.raises(ForgedSignature):
            jose.verify(jwt.parse(f"{text}.{b64(bad)}"), known)
    text = signing_input({"alg": "EdDSA"}, {})  # without a kid, and only one key fits
    signature = ed.sign(text.encode())
    jose.verify(jwt.parse(f"{text}.{b64(signature)}"), known)
    with pytest.raises(jose.UnknownSigner):
        jose.verify(jwt.parse(f"{text}.{b64(signature)}"), [*known, known[1]])
    with pytest.raises(ForgedSignature):
        jose.verify(jwt.parse(f"{text}.{b64(signature[::-1])}"), known)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(bytes(32)), "y": b64(bytes(32))},
        {"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(bytes(32))},
        {"kty": "EC", "crv": "P-256", "kid": "k", "use": "enc", "x": "AA", "y": "AA"},
    ],
)
def test_a_key_that_is_none_verifies_nothing(key):
    from catena.formats import jwt

    keys = jwk.parse(json.dumps({"keys": [key]}).encode()).keys
    text = signing_input({"alg": "ES256", "kid": "k"}, {})
    with pytest.raises((jose.UnknownSigner, FormatError)):
        jose.verify(jwt.parse(f"{text}.{b64(bytes(64))}"), keys)


def test_a_small_rsa_key_verifies_nothing(provider):
    from catena.formats import jwt

    small = rsa.generate_private_key(65537, 1024)
    modulus = small.public_key().public_numbers().n.to_bytes(128)
    token = provider.sign({}, {"alg": "RS256", "kid": "k"}, small)
    with pytest.raises(jose.UnknownSigner):
        jose.verify(jwt.parse(token), [Jwk(kty="RSA", kid="k", n=b64(modulus), e="AQAB")])


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b'{"keys": [{"kty": "oct", "k": "AA"}]}',
        b'{"keys": [{"kty": "RSA", "d": "AA"}]}',
        b'{"keys": [], "keys": []}',
    ],
)
def test_sets_that_are_none_or_show_private_keys_are_refused(data):
    with pytest.raises(FormatError):
        jwk.parse(data)


# The issuer --------------------------------------------------------------------------------


def context(provider) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(provider.ca))


def test_keys_come_over_tls_from_the_issuer_alone(provider):
    assert [one.kid for one in IssuerKeys(provider.issuer, context(provider))(KID)] == [
        KID,
        "key-2",
    ]
    for issuer, tls in (
        (provider.issuer, None),  # the system's roots do not know it
        (f"{provider.issuer}/", context(provider)),  # its document names another issuer
        (f"{provider.issuer}/elsewhere", context(provider)),
        (provider.issuer.replace("https", "http"), context(provider)),
        ("https://127.0.0.1:9", context(provider)),
    ):
        with pytest.raises(IssuerUnreachable):
            IssuerKeys(issuer, tls)(KID)


def test_invented_key_ids_do_not_reach_the_issuer(provider, monkeypatch):
    fetched, time = [], [0.0]
    from catena.server import issuer

    monkeypatch.setattr(issuer, "fetch_keys", lambda *_: fetched.append(1) or ())
    keys = IssuerKeys(provider.issuer, context(provider), clock=lambda: time[0])
    for number in range(50):
        keys(f"invented-{number}")
    assert len(fetched) == 1
    time[0] = PAUSE
    keys("invented")
    keys("invented")
    assert len(fetched) == 2


def test_an_issuer_that_does_not_answer_is_our_fault_and_lets_nobody_in(tmp_path, keys, provider):
    settings = {**provider.settings, "oidc_issuer": "https://127.0.0.1:9"}
    server = make_server(tmp_path / "server", keys, **settings)
    for api in open_api(server):
        token = provider.sign(claims(api, provider, iss="https://127.0.0.1:9"))
        assert code(login(api, token)) == (503, "issuer-unreachable")
    server.opened.close()


def test_a_server_without_an_issuer_lets_nobody_log_in(tmp_path, keys):
    server = make_server(tmp_path / "server", keys)
    for api in open_api(server):
        assert code(api.http.get("/v1/login")) == (404, "no-login")
        assert code(login(api, "x")) == (404, "no-login")
    server.opened.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"oidc_issuer": "http://issuer.example"},
        {"oidc_issuer": "https://"},
        {"oidc_issuer": None},
        {"oidc_client_id": None},
        {"oidc_roles": ()},
        {"oidc_roles": ("groups=ops",)},
        {"oidc_roles": ("groups=ops root",)},
        {"oidc_roles": ("groups operator",)},
    ],
)
def test_half_a_provider_stops_the_server(tmp_path, keys, provider, changes):
    server = make_server(tmp_path / "server", keys)
    server.opened.close()
    config = msgspec.structs.replace(server.opened.config, **{**provider.settings, **changes})
    with pytest.raises(BadConfig):
        issuer_of(config)
    from catena.server import config as settings

    (server.folder / "server.toml").write_text(settings.render(config))
    with pytest.raises(BadConfig):
        open_server(server.folder, now=server.clock, random=bytes)


def test_an_address_that_nobody_verified_names_nobody(tmp_path, keys, provider):
    server = make_server(tmp_path / "server", keys, **provider.settings, oidc_name="email")
    for api in open_api(server):
        token = provider.sign(claims(api, provider, email_verified="true"))
        assert code(login(api, token)) == (403, "login-nameless")
        answer = login(api, provider.sign(claims(api, provider)))
        assert answer.json()["view"]["label"] == "oidc:alice@acme.example"
    server.opened.close()
