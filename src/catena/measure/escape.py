"""Showing text that somebody else wrote: nothing a log says may control a terminal or a line."""

from __future__ import annotations

_ELLIPSIS = "…"


def escape(text: str, limit: int) -> str:
    r"""``text`` with everything unprintable as ``\x…`` or ``\u…``, at most ``limit`` characters.

    Printable is what ``str.isprintable`` says: no control characters, no line or paragraph
    separators, no text-direction overrides, no surrogates. A backslash stays as it is: the result
    is safe to show, not reversible.
    """
    if len(text) <= limit and text.isprintable():
        return text  # nearly always
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + _ELLIPSIS
