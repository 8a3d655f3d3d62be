"""What a request is called: in its answer, in problem details and in the server's own log.

A caller's ``x-request-id`` is taken over if it is short and plain, so that a request can be followed through
several systems; otherwise the server makes one. It identifies, it proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import Scope

HEADER = "x-request-id"
RAW_HEADER = HEADER.encode()
PATTERN = r"^[A-Za-z0-9._-]{1,64}\Z"
_BYTES = 12
_FETCHED = 256
_KEY = "catena.request"


class Names:
    """Names requests. For the event loop; randomness is fetched for many at once."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._fresh: list[str] = []

    def name(self, scope: Scope) -> str:
        """The request's id, which is remembered in its scope."""
        given = [value for key, value in scope["headers"] if key == RAW_HEADER]
        plain = re.match(PATTERN, given[0].decode("latin-1")) if len(given) == 1 else None
        chosen = plain[0] if plain else self._next()
        scope[_KEY] = chosen
        return chosen

    def _next(self) -> str:
        if not self._fresh:
            random = self._random(_BYTES * _FETCHED)
            self._fresh = [random[at : at + _BYTES].hex() for at in range(0, len(random), _BYTES)]
        return self._fresh.pop()


def request_id(scope: Scope) -> str:
    """What ``Names`` chose, or nothing outside a named request."""
    return str(scope.get(_KEY, ""))
