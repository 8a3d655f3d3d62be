"""``catena login`` against a running server and a provider's process; the browser is a client that follows."""

from __future__ import annotations

import json
import ssl
import stat
import threading

import httpx
import pytest

from catena.cli.main import run
from catena.server import signing_in
from catena.server.issuer import client
from catena.server.signing_in import LoginAbandoned, LoginDeclined, Loopback
from server.live import *  # noqa: F403 - fixtures
from server.live import lifetime
from server.provider import *  # noqa: F403 - fixtures
from server.provider import ALICE, CLIENT
from service.fixtures import make_server


@pytest.fixture
def running_with_people(tmp_path, keys, provider):
    yield from lifetime(make_server(tmp_path / "server", keys, **provider.settings))


def follow(provider, url: str) -> None:
    """What a browser does with the address it is given."""
    context = ssl.create_default_context(cafile=str(provider.ca))
    with httpx.Client(verify=context, trust_env=False) as browser:
        redirect = browser.get(url).headers["location"]
    with httpx.Client(trust_env=False) as browser:
        assert browser.get(redirect).status_code == 200


@pytest.fixture
def browser(provider, monkeypatch):
    """The machine's browser, somewhere else than the command."""
    threads = []

    def open_(url: str) -> None:
        threads.append(threading.Thread(target=follow, args=(provider, url)))
        threads[-1].start()

    monkeypatch.setattr("webbrowser.open", open_)
    yield
    for thread in threads:
        thread.join(10)


def test_a_person_logs_in_and_is_known_by_the_next_command(
    running_with_people, provider, browser, tmp_path, capsys
):
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o644)
    options = [*running_with_people.options[:4], "--token-file", str(token)]
    words = ["login", "--issuer-ca", str(provider.ca), *options, "-o", "json"]
    assert run(words) == 0, capsys.readouterr().err
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert (told["label"], told["role"], told["token_file"]) == (
        "oidc:alice",
        "operator",
        str(token),
    )
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() not in out.out + out.err
    assert run(["secret", "list", *options]) == 0
    assert run(["token", "list", *options]) == 10


def test_a_person_without_a_role_stays_out(
    running_with_people, provider, browser, tmp_path, capsys
):
    provider.says({**ALICE, "groups": []})
    try:
        options = [*running_with_people.options[:4], "--token-file", str(tmp_path / "none")]
        assert run(["login", "--issuer-ca", str(provider.ca), *options]) == 10
    finally:
        provider.says(ALICE)
    assert "login-without-role" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_server_without_a_provider_says_so(standing, capsys):
    assert run(["login", *standing.options]) == 3
    assert "no-login" in capsys.readouterr().err


def id_token(provider, show, client_id=CLIENT, patience=10.0) -> str:
    context = ssl.create_default_context(cafile=str(provider.ca))
    with client(context) as http:
        return signing_in.id_token(
            http,
            issuer=provider.issuer,
            client_id=client_id,
            nonce="n",
            random=lambda count: b"\1" * count,
            show=show,
            patience=patience,
        )


def test_nobody_waits_for_ever(provider):
    with pytest.raises(LoginAbandoned):
        id_token(provider, lambda _: None, patience=0.05)


def test_what_the_provider_declines_is_declined(provider):
    threads = []

    def show(url):
        threads.append(threading.Thread(target=follow, args=(provider, url)))
        threads[-1].start()

    with pytest.raises(LoginDeclined) as caught:
        id_token(provider, show, client_id="stranger")
    assert "unauthorized_client" in caught.value.got
    threads[0].join(10)


def test_a_code_without_the_verifier_is_worth_nothing(provider, monkeypatch):
    """Whoever steals the code on the way back cannot redeem it (RFC 7636)."""
    threads = []

    def show(url):
        changed = url.replace("code_challenge=", "code_challenge=A")
        threads.append(threading.Thread(target=follow, args=(provider, changed)))
        threads[-1].start()

    with pytest.raises(LoginDeclined):
        id_token(provider, show)
    threads[0].join(10)


@pytest.mark.parametrize(
    ("query", "taken", "code", "refused"),
    [
        ("code=c&state=right", True, "c", None),
        ("code=c&state=right&iss=https://issuer", True, "c", None),
        ("code=c&state=right&iss=https://evil", True, None, "an answer of another issuer"),
        ("error=access_denied&state=right", True, None, "access_denied"),
        ("state=right", True, None, "no code"),
        ("code=c&state=wrong", False, None, None),
        ("code=c", False, None, None),
        ("code=c&state=right&state=wrong", False, None, None),
        ("", False, None, None),
    ],
)
def test_only_the_answer_to_our_question_is_taken(query, taken, code, refused):
    with Loopback("right", "https://issuer") as door:
        assert door.take(query) is taken
        assert (door.code, door.refused) == (code, refused)
        assert door.redirect_uri.startswith("http://127.0.0.1:")
