"""What all views have in common, and how things are named."""

from __future__ import annotations

from typing import Annotated

import msgspec

# Patterns end in \Z: $ would also match before a final newline.
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
"""A DNS label: names of nodes, roles, secrets' owners. Safe in a URL, a path and a SPIFFE ID."""

SecretName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?\Z")]
"""A file name below ``/run/catena/secrets``: no slash, never ``.`` or ``..``."""

_KEY = "[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?"
LabelKey = Annotated[str, msgspec.Meta(pattern=rf"^{_KEY}\Z")]
NodeLabel = Annotated[
    str, msgspec.Meta(pattern=rf"^{_KEY}=[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?\Z")
]
"""``key=value``, both as Kubernetes has them."""

MAX_SECRET = 1_000_000


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all views and admin requests: strict, immutable, named fields."""
