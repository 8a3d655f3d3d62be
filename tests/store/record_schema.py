"""Record what this version of the schema is made with: ``python tests/store/record_schema.py``.

Done once for every version that is released, and never again: the tests of the steps begin there.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_mock_engine
from sqlalchemy.dialects import postgresql, sqlite

from catena.store import schema

SCHEMAS = Path(__file__).with_name("schemas")
DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect()}


def recorded(name: str) -> str:
    """The statements that make the schema on one kind of database."""
    statements: list[str] = []

    def note(statement, *_, **__):
        text = str(statement.compile(dialect=DIALECTS[name])).strip().replace("\t", "    ")
        statements.append("\n".join(line.rstrip() for line in text.splitlines()) + ";\n")

    schema.metadata.create_all(create_mock_engine(f"{name}://", note), checkfirst=False)
    head = f"-- What version {schema.SCHEMA_VERSION} of the schema was made with on {name}.\n\n"
    return head + "\n".join(statements)


if __name__ == "__main__":
    for kind in DIALECTS:
        path = SCHEMAS / f"{schema.SCHEMA_VERSION}-{kind}.sql"
        with path.open("x", encoding="utf-8") as file:
            file.write(recorded(kind))
