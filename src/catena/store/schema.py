"""Tables of the trust service, schema version 13.

Portable between SQLite and PostgreSQL: text, blobs, integers and booleans only. An instant is a
64-bit count of microseconds since 1970 UTC, so it sorts and compares alike everywhere; a
tuple of names is a JSON array. Content of logs is stored once, under its SHA-256.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
)

SCHEMA_VERSION = 13

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode


class Instant(TypeDecorator[datetime]):
    """An aware ``datetime`` as microseconds since 1970 UTC; naive ones are refused."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Python to database."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ANN401, ARG002 - SQLAlchemy's signature
        """Database to Python, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Names(TypeDecorator[tuple[str, ...]]):
    """A tuple of strings as a JSON array."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Python to database."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...] | None:  # noqa: ANN401, ARG002 - SQLAlchemy's signature
        """Database to Python."""
        return None if value is None else _decode_names(value)


# SQLite numbers rows by itself only for its INTEGER type; elsewhere ids are 64 bits wide.
_RowId = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

schema_version = Table(
    "schema_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    # As alembic itself makes it.
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

logs = Table(
    "logs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, unique=True),
    Column("role", Text),
    Column("state", Text, nullable=False),
    Column("state_reason", Text, nullable=False),
    Column("ek_public", LargeBinary, nullable=False),
    Column("ak_public", LargeBinary, nullable=False),
    Column("ek_root", Text, nullable=False),
    Column("name_hint", Text),
    Column("mode", Text, nullable=False),
    Column("enrolled_at", Instant, nullable=False),
    Column("approved_at", Instant),
    Column("readmitted", Boolean, nullable=False),
    Column("reset_count", BigInteger, nullable=False),
    Column("restart_count", BigInteger, nullable=False),
    Column("clock", BigInteger, nullable=False),
    Column("last_attested", Instant),
    Column("last_verdict", Text),
    Column("boot_log", Text, ForeignKey("logs.sha256")),
    Column("trusted_log", Text),
    Column("tpm", LargeBinary),
    Column("state_since", Instant),
    Column("attest_by", Instant),
    Column("site", Text),
    Column("channel", Text),
    Column("former_name", Text),
    Column("endorsement", Text),
)

ek_certificates = Table(
    "ek_certificates",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("certificates", LargeBinary, nullable=False),
    Column("kept_at", Instant, nullable=False),
)

ek_authorities = Table(
    "ek_authorities",
    metadata,
    Column("name", Text, primary_key=True),
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True, index=True),
)

rejudgements = Table(
    "rejudgements",
    metadata,
    Column("name", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("change", BigInteger, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("is_second", Boolean, nullable=False),
    Column("after", Text, nullable=False),
    Column("judged", BigInteger, nullable=False),
)

expected_machines = Table(
    "expected_machines",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("site", Text),
    Column("channel", Text),
    Column("ek_sha256", Text, unique=True),
    Column("ek_issuer", Text),
    Column("ek_serial", Text),
    Column("listed_at", Instant, nullable=False),
    Column("node_id", Text),
    Index("ix_expected_machines_ek_serial", "ek_serial", "ek_issuer", unique=True),
)

rounds = Table(
    "rounds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("taken_at", Instant, nullable=False),
)

reenrolments = Table(
    "reenrolments",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("ak_public", LargeBinary, nullable=False),
    Column("at", Instant, nullable=False),
)

appraisals = Table(
    "appraisals",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("node_id", Text, ForeignKey("nodes.id"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reasons", LargeBinary, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("events_sha256", Text, ForeignKey("logs.sha256"), nullable=False),
    Column("evidence_sha256", Text, nullable=False),
    Column("logs", Names, nullable=False),
    Column("entry_index", BigInteger, nullable=False),
    Index("ix_appraisals_node_id_id", "node_id", "id"),
)

container_records = Table(
    "container_records",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("logged_records", BigInteger, nullable=False),
    Column("logged_size", BigInteger, nullable=False),
    Column("logged_sha256", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

container_index_records = Table(
    "container_index_records",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("nv_index", BigInteger, primary_key=True, autoincrement=False),
    Column("records", BigInteger, nullable=False),
    Column("logged_records", BigInteger, nullable=False),
    Column("logged_size", BigInteger, nullable=False),
    Column("logged_sha256", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("roles", Names, nullable=False),
    Column("labels", Names, nullable=False, server_default="[]"),
    Column("kek", Text, nullable=False, server_default=""),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("removed_at", Instant),
)

node_labels = Table(
    "node_labels",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

keks = Table(
    "keks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("in_force", Boolean, nullable=False),
    Column("since", Instant, nullable=False),
)

releases = Table(
    "secret_releases",
    metadata,
    Column("node_id", Text, ForeignKey("nodes.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("revoked_at", Instant),
)

references = Table(
    "reference_documents",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("accepted_at", Instant, nullable=False),
    Column("active", Boolean, nullable=False),
)

endorsements = Table(
    "endorsement_documents",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("accepted_at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("active", Boolean, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    Column("applied_at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("scope", Names, nullable=False, server_default="[]"),
    Column("last_used", Instant),
    Column("login", Text),
    # Nulls are all different: any number of tokens that no login made.
    Index("uq_tokens_login", "login", unique=True),
)

authorities = Table(
    "authorities",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
    Column("key", Text, nullable=False),
    Column("added_at", Instant, nullable=False),
    Column("issues_from", Instant, nullable=False),
    Column("trusted_until", Instant),
    Column("dropped_at", Instant),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("node_id", Text, ForeignKey("nodes.id"), nullable=False, index=True),
    Column("issued_at", Instant, nullable=False),
    Column("not_after", Instant, nullable=False, index=True),
    Column("revoked_at", Instant),
    Column("revocation_reason", Text),
)

crls = Table(
    "crls",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("changes", BigInteger, nullable=False),
    Column("made_of", BigInteger, nullable=False),
    Column("this_update", Instant),
    Column("next_update", Instant),
    Column("der", LargeBinary, nullable=False),
)

log_state = Table(
    "log_state",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("successor", Text),
)

people = Table(
    "people",
    metadata,
    Column("pseudonym", Text, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("name", Text, nullable=False, unique=True),
)

keys_in_force = Table(
    "keys_in_force",
    metadata,
    Column("key", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
)

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_sha256", Text, nullable=False),
    Column("began_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("nonce", LargeBinary),
    Column("answer", LargeBinary),
)

log_batches = Table(
    "log_batches",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("checkpoint", Text, nullable=False),
)

log_files = Table(
    "log_files",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
