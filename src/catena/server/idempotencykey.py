"""The header ``idempotency-key``: a String of RFC 9651, section 3.3.3, or the same without its quotes."""

from __future__ import annotations

import re

from starlette.requests import Request

from catena.errors import UsageError

HEADER = "idempotency-key"
REPEATED = "idempotency-repeated"
"""On an answer that was kept from the first request."""
PATTERN = r'^("[ !#-\[\]-~]{1,128}"|[A-Za-z0-9._~:-]{1,128})$'
_QUOTED = re.compile(r'"([ !#-\[\]-~]{1,128})"')
_PLAIN = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


class BadIdempotencyKey(UsageError):
    """A key that is empty, too long, given twice or not printable."""

    code = "bad-idempotency-key"
    remedy = 'Give one key in quotes, such as "8e03978e-40d5-43e8-bc93-6894a57f9324".'


def key_of(request: Request) -> str | None:
    """The key of a request, if it has one. Raises ``BadIdempotencyKey``."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) == 1:
        if quoted := _QUOTED.fullmatch(given[0]):
            return quoted[1]
        if _PLAIN.fullmatch(given[0]):
            return given[0]
    raise BadIdempotencyKey("not an idempotency key", expected='"1 to 128 printable characters"')
