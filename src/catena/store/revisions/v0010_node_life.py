"""Nodes have states with times, sites and channels; expected machines and rounds have tables."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add columns to ``nodes``, ``expected_machines`` and ``rounds``."""
    op.add_column("nodes", sa.Column("state_since", sa.BigInteger))
    op.add_column("nodes", sa.Column("attest_by", sa.BigInteger))
    op.add_column("nodes", sa.Column("site", sa.Text))
    op.add_column("nodes", sa.Column("channel", sa.Text))
    op.add_column("nodes", sa.Column("former_name", sa.Text))
    op.create_table(
        "expected_machines",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("site", sa.Text),
        sa.Column("channel", sa.Text),
        sa.Column("ek_sha256", sa.Text),
        sa.Column("ek_issuer", sa.Text),
        sa.Column("ek_serial", sa.Text),
        sa.Column("listed_at", sa.BigInteger, nullable=False),
        sa.Column("node_id", sa.Text),
        sa.PrimaryKeyConstraint("name", name="pk_expected_machines"),
        sa.UniqueConstraint("ek_sha256", name="uq_expected_machines_ek_sha256"),
    )
    op.create_index(
        "ix_expected_machines_ek_serial",
        "expected_machines",
        ["ek_serial", "ek_issuer"],
        unique=True,
    )
    op.create_table(
        "rounds",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rounds"),
    )
