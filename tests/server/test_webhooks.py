"""Webhooks are signed as Standard Webhooks has it, come at least once, and never show their secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from catena.errors import CatenaError
from catena.formats import webhook
from catena.formats.webhook import BadWebhookSecret
from catena.keys.signer import ExposedKey, MissingKey
from catena.server import export_target
from catena.server.config import BadConfig, load
from catena.server.export_target import BadExport
from catena.server.folder import open_server
from catena.server.webhook import read_secrets
from catena.service.views import SecretRequest
from server.exports import *  # noqa: F403 - fixtures
from server.exports import ORIGIN, only, wait_for
from server.live import *  # noqa: F403 - fixtures
from server.live import end, start
from server.receivers import HttpReceiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()


def accepts(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """A receiver's check, written from the specification (Verifying webhook authenticity)."""
    key = base64.b64decode(secret.split("_", 1)[1])
    content = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    for signature in headers["webhook-signature"].split(" "):
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value, wanted):
            return True
    return False


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "hook.secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_the_example_of_the_specification_has_the_signature_that_it_says():
    secret = webhook.parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = webhook.headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_entry_is_a_signed_event_that_is_sent_in_order(append, exporting_to, secret_file):
    append(5)
    with HttpReceiver() as receiver:
        exporters = exporting_to(f"webhook {receiver.url} {secret_file}")
        wait_for(lambda: only(exporters).exported == 5)
    for index, (headers, body) in enumerate(receiver.posts):
        assert accepts(SECRET, headers, body)
        assert not accepts(OTHER, headers, body)
        assert not accepts(SECRET, headers, body + b" ")
        assert not accepts(SECRET, {**headers, "webhook-timestamp": "1"}, body)
        assert not accepts(SECRET, {**headers, "webhook-id": "msg_0_0"}, body)
        assert headers["content-type"] == "application/json"
        told = json.loads(body)
        assert (told["type"], told["timestamp"]) == ("catena.denial", "2026-01-02T03:04:05.678900Z")
        assert (told["data"]["origin"], told["data"]["index"]) == (ORIGIN, index)
        assert told["data"]["entry"]["request"] == f"request-{index}"
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 5


def test_what_was_refused_comes_again_under_the_same_id(append, exporting_to, secret_file):
    append(2)
    with HttpReceiver(status=500) as receiver:
        exporters = exporting_to(f"webhook {receiver.url} {secret_file}")
        wait_for(lambda: receiver.seen > 2)
        assert only(exporters).code == "export-refused"
        receiver.status = 200
        wait_for(lambda: only(exporters).exported == 2)
        exporters.stop()
        first = [headers["webhook-id"] for headers, _ in receiver.posts]
        for cursor in secret_file.parent.glob("exports/*.json"):
            cursor.unlink()  # as a crash before the cursor was written would have it
        again = exporting_to(f"webhook {receiver.url} {secret_file}")
        wait_for(lambda: only(again).exported == 2)
    assert [headers["webhook-id"] for headers, _ in receiver.posts] == [*first, *first]


def test_a_secret_is_changed_while_entries_are_sent(append, exporting_to, secret_file):
    with HttpReceiver() as receiver:
        exporters = exporting_to(f"webhook {receiver.url} {secret_file}")
        for lines in (SECRET, f"{OTHER}\n{SECRET}", OTHER):
            secret_file.write_text(lines)
            append(1)
            exporters.wake()
            count = len(receiver.posts) + 1
            wait_for(lambda: len(receiver.posts) == count)  # noqa: B023 - called at once
            wait_for(lambda: only(exporters).exported == count)  # noqa: B023 - as above
    accepted = [
        [accepts(secret, headers, body) for secret in (SECRET, OTHER)]
        for headers, body in receiver.posts
    ]
    assert accepted == [[True, False], [True, True], [False, True]]


@pytest.mark.parametrize(
    ("content", "mode", "kind"),
    [
        (None, 0o600, MissingKey),
        (SECRET, 0o640, ExposedKey),
        ("", 0o600, BadWebhookSecret),
        (SECRET[6:], 0o600, BadWebhookSecret),
        ("whsec_" + "A" * 28, 0o600, BadWebhookSecret),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), 0o600, BadWebhookSecret),
        (SECRET + "!", 0o600, BadWebhookSecret),
        ("\n".join([SECRET] * 3), 0o600, BadWebhookSecret),
        ("whsec_é", 0o600, BadWebhookSecret),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(secret_file, content, mode, kind):
    secret_file.unlink()
    if content is not None:
        secret_file.write_text(content)
        secret_file.chmod(mode)
    with pytest.raises(kind) as caught:
        read_secrets(secret_file)
    shown = str(caught.value) + json.dumps(caught.value.as_dict())
    assert not content or content[6:20] not in shown or len(content) < 8
    assert isinstance(caught.value, CatenaError)


def test_entries_wait_while_the_secret_is_unusable(append, exporting_to, secret_file):
    append(1)
    secret_file.chmod(0o644)
    with HttpReceiver() as receiver:
        exporters = exporting_to(f"webhook {receiver.url} {secret_file}")
        wait_for(lambda: only(exporters).code == "exposed-key")
        assert receiver.seen == 0
        secret_file.chmod(0o600)
        wait_for(lambda: only(exporters).exported == 1)


@pytest.mark.parametrize(
    "text",
    [
        "webhook https://h/x",
        "webhook https://h/x ",
        "webhook ftp://h/x s",
        "webhook  s",
        "webhook https://h/x?a=b s",
        "webhook https://u:p@h/x s",
        "webhook https://h/x s\n",
    ],
)
def test_a_webhook_that_is_spelled_wrongly_is_refused(text):
    with pytest.raises(BadExport):
        export_target.parse(text)


def test_a_receiver_is_the_same_whatever_its_secret(server):
    first = export_target.parse("webhook https://h/x a.secret")
    assert str(first) == str(export_target.parse("webhook https://h/x b.secret"))
    assert first.secret_file == "a.secret"
    config = server.folder / "server.toml"
    twice = 'exports = ["webhook https://h/x a", "webhook https://h/x b"]'
    config.write_text(config.read_text().replace("exports = []", twice))
    with pytest.raises(BadConfig, match="twice"):
        load(server.folder)


def test_a_server_does_not_start_without_a_webhook_s_secret(server):
    config = server.folder / "server.toml"
    named = 'exports = ["webhook https://h/x hook.secret"]'
    config.write_text(config.read_text().replace("exports = []", named))
    server.opened.close()
    with pytest.raises(MissingKey):
        open_server(server.folder, now=server.clock, random=bytes)


def test_a_real_server_sends_webhooks_and_shows_their_secret_nowhere(tmp_path, server):
    (server.folder / "hook.secret").write_text(SECRET)
    (server.folder / "hook.secret").chmod(0o600)
    server.service.secrets.put("db", SecretRequest(roles=("web",), value=b"x"), "admin")
    server.opened.close()
    config = server.folder / "server.toml"
    with HttpReceiver(status=500) as receiver:
        named = f'exports = ["webhook {receiver.url} hook.secret"]'
        config.write_text(config.read_text().replace("exports = []", named))
        process = start(server.folder)
        assert process.stdout.readline().startswith("catena trust service")
        wait_for(lambda: receiver.seen > 1)
        receiver.status = 200
        wait_for(lambda: any(b"secret-change" in body for _, body in receiver.posts))
        process.terminate()
        _, errors = end(process)
    assert all(accepts(SECRET, headers, body) for headers, body in receiver.posts)
    hidden = SECRET[6:]
    assert hidden not in errors
    for headers, body in receiver.posts:
        assert hidden not in body.decode() + "".join(headers.values())
    for path in server.folder.rglob("*"):
        if path.is_file() and path.name != "hook.secret":
            assert hidden.encode() not in path.read_bytes(), path
