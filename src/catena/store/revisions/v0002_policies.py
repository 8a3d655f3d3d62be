"""Applied policies have a table; a node remembers the log that was last trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add ``policies`` and ``nodes.trusted_log``."""
    op.create_table(
        "policies",
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("applied_at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_policies"),
        sa.UniqueConstraint("sha256", name="uq_policies_sha256"),
    )
    op.add_column("nodes", sa.Column("trusted_log", sa.Text))
