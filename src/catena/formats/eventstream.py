"""Server-sent events: the stream that ``text/event-stream`` names (WHATWG HTML, section 9.2).

===============  =======================================================================
``id: ID``        what a client gives back as ``last-event-id`` when it returns
``event: TYPE``   what happened
``data: TEXT``    one line of JSON
``: TEXT``        a comment, which keeps a silent connection open
``retry: MS``     how long a client waits before it returns
===============  =======================================================================

An event ends with an empty line. A stream is UTF-8.
"""

from __future__ import annotations

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = b":\n\n"


def event(name: str, kind: str, data: bytes) -> bytes:
    """One event. No field holds a line end, which would begin another one."""
    if any(end in field for end in "\r\n" for field in (name, kind, data.decode())):
        raise ValueError("a field of an event has a line end")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (name.encode(), kind.encode(), data)


def retry(milliseconds: int) -> bytes:
    """How long to wait before returning."""
    return b"retry: %d\n\n" % milliseconds
