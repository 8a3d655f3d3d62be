"""What a comparison of two boots says, apart from how it is found.

Whoever only shows changes needs none of what finds them (``measure.difference``).
"""

from __future__ import annotations

import msgspec


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: ``how`` is ``added``, ``removed`` or ``changed``."""

    pcr: int
    subject: str
    how: str
    sentence: str
    details: tuple[str, ...] = ()
    before: str | None = None
    after: str | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """All differences, and which PCRs follow from them.

    ``unmeasured_images`` are images at hand, by Authenticode digest, that neither side measured.
    """

    bank: str
    identical: bool
    changes: tuple[Change, ...]
    same_pcrs: tuple[int, ...]
    changed_pcrs: tuple[int, ...]
    unmeasured_images: tuple[str, ...] = ()
