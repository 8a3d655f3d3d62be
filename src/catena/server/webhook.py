"""Webhooks: each entry is posted as an event, signed with a secret that this receiver shares with the server.

The secret's file is read for each message, so that it can be changed while the server runs; it may hold two, the new one
and the old one, and then both sign until every reader has the new one.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from catena.formats import webhook
from catena.formats.webhook import BadWebhookSecret
from catena.server.export_post import http_client, post
from catena.server.exported import Exported
from catena.server.logevent import LogEvent, event_of, log_id
from catena.server.owned import read_owned

MAX_SECRETS = 2
_MAX_FILE = 1024


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The body: ``type`` is ``catena.KIND``, ``timestamp`` when it was decided."""

    type: str
    timestamp: str
    data: LogEvent


class WebhookSender:
    """Posts the entries one after the other; any 2xx answer takes one."""

    batch = 1

    def __init__(
        self,
        url: str,
        origin: str,
        tls: ssl.SSLContext | None,
        secret_file: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._origin = origin
        self._secret_file = secret_file
        self._now = now
        self._http = http_client(tls)

    def send(self, entries: Sequence[Exported]) -> None:
        """Post each. Raises ``MissingKey``, ``ExposedKey`` or ``BadWebhookSecret``, too."""
        for exported in entries:
            event = event_of(self._origin, exported.index, exported.entry)
            message = WebhookMessage(type=f"catena.{event.kind}", timestamp=event.at, data=event)
            body = msgspec.json.encode(message)
            headers = webhook.headers(
                read_secrets(self._secret_file),
                _message_id(self._origin, exported.index),
                int(self._now()),
                body,
            )
            post(self._http, self._url, body, {**headers, "content-type": "application/json"})

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The one or two secrets of a file that only its owner may touch.

    Raises ``MissingKey``, ``ExposedKey`` or ``BadWebhookSecret``.
    """
    lines = read_owned(path, _MAX_FILE).decode("ascii", "replace").split()
    if not 1 <= len(lines) <= MAX_SECRETS:
        raise BadWebhookSecret(
            "not a file of webhook secrets", expected="one or two lines", got=str(len(lines))
        )
    return tuple(map(webhook.parse_secret, lines))


def _message_id(origin: str, index: int) -> str:
    """The same for an entry whenever it is sent, so that a receiver can tell it came before."""
    return f"msg_{log_id(origin)}_{index}"
