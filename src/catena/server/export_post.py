"""Posting to a receiver: bounded in time and answer, without redirects, proxies or cookies."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx

from catena.errors import Unavailable

TIMEOUT = 10.0
"""Seconds for each step of sending."""
_MAX_ANSWER = 65_536


class ExportUnreachable(Unavailable):
    """A receiver that cannot be reached, or a file that cannot be written."""

    code = "export-unreachable"
    remedy = "Check the receiver and its address in `exports`; nothing is lost meanwhile."


class ExportRefused(Unavailable):
    """A receiver that does not take what it is sent."""

    code = "export-refused"
    remedy = "Look into the receiver's log; the same entry is sent again until it is taken."


def http_client(tls: ssl.SSLContext | None) -> httpx.Client:
    """A client that trusts ``tls``, or the system's certificates."""
    return httpx.Client(
        verify=tls or ssl.create_default_context(),
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        headers={"accept-encoding": "identity", "user-agent": "catena"},
    )


def post(http: httpx.Client, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Post a body; any 2xx answer takes it. Raises ``ExportUnreachable`` or ``ExportRefused``."""
    content = bytearray()
    try:
        with http.stream("POST", url, content=body, headers=headers) as answer:
            for chunk in answer.iter_raw():
                content += chunk
                if len(content) > _MAX_ANSWER:
                    raise ExportRefused("the receiver's answer is too long")
    except httpx.HTTPError as error:
        raise ExportUnreachable(f"cannot post: {type(error).__name__}") from error
    if not answer.is_success:
        raise ExportRefused("the receiver refuses", expected="2xx", got=f"{answer.status_code}")
    return bytes(content)
