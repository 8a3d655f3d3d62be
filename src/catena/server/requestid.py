"""What a request is called: in its answer, in problem details and in the server's own log.

A caller's ``x-request-id`` is taken over if it is short and plain, so that a request can be followed through
several systems; otherwise the server makes one. It identifies, it proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Scope

HEADER = "x-request-id"
PATTERN = r"^[A-Za-z0-9._-]{1,64}\Z"
_BYTES = 12
_KEY = "catena.request"


def name(scope: Scope, random: Callable[[int], bytes]) -> str:
    """The request's id, which is remembered in its scope."""
    given = Headers(scope=scope).getlist(HEADER)
    plain = len(given) == 1 and re.match(PATTERN, given[0])
    chosen = given[0] if plain else random(_BYTES).hex()
    scope[_KEY] = chosen
    return chosen


def request_id(scope: Scope) -> str:
    """What ``name`` chose, or nothing outside a named request."""
    return str(scope.get(_KEY, ""))
