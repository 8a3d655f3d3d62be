"""Where a page of a list goes on: behind the last row of the page before, by the columns of its order."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, or_


def behind(
    columns: Sequence[ColumnElement[object]], values: Sequence[object]
) -> ColumnElement[bool]:
    """Rows that come after the one with these values; spelled out, for the columns' own types hold."""
    (column, *columns), (value, *values) = columns, values
    later = column > value
    return or_(later, and_(column == value, behind(columns, values))) if columns else later
