"""Certificates and releases of secrets can be revoked; the newest CRL of each CA is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add ``crls``, ``certificates.revoked_at`` and its reason, ``secret_releases.revoked_at``."""
    op.add_column("certificates", sa.Column("revoked_at", sa.BigInteger))
    op.add_column("certificates", sa.Column("revocation_reason", sa.Text))
    op.add_column("secret_releases", sa.Column("revoked_at", sa.BigInteger))
    op.create_table(
        "crls",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sa.Column("made_of", sa.BigInteger, nullable=False),
        sa.Column("this_update", sa.BigInteger),
        sa.Column("next_update", sa.BigInteger),
        sa.Column("der", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("issuer", name="pk_crls"),
    )
