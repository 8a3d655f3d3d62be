"""Roots, intermediates and revocation lists of TPM vendors have a table; a node's row says which TPM it has."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add ``endorsement_documents`` and ``nodes.tpm``."""
    op.create_table(
        "endorsement_documents",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_endorsement_documents"),
    )
    op.add_column("nodes", sa.Column("tpm", sa.LargeBinary))
