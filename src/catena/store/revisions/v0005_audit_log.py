"""The audit log can lie in the database: its batches and its files have tables."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add ``log_batches`` and ``log_files``."""
    op.create_table(
        "log_batches",
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("bundle", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("origin", "start", name="pk_log_batches"),
    )
    op.create_table(
        "log_files",
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("origin", "path", name="pk_log_files"),
    )
