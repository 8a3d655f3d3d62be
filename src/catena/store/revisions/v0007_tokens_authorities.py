"""Tokens have an end, a scope and a login; the authorities of a CA rotation have a table."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add columns to ``tokens``, and ``authorities``."""
    op.add_column("tokens", sa.Column("expires_at", sa.BigInteger))
    op.add_column("tokens", sa.Column("scope", sa.Text, nullable=False, server_default="[]"))
    op.add_column("tokens", sa.Column("last_used", sa.BigInteger))
    op.add_column("tokens", sa.Column("login", sa.Text))
    op.create_index("uq_tokens_login", "tokens", ["login"], unique=True)
    op.create_table(
        "authorities",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("added_at", sa.BigInteger, nullable=False),
        sa.Column("issues_from", sa.BigInteger, nullable=False),
        sa.Column("trusted_until", sa.BigInteger),
        sa.Column("dropped_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("sha256", name="pk_authorities"),
    )
