"""EK certificates of nodes are kept, and whether somebody vouches for them still."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add ``nodes.endorsement``, ``ek_certificates``, ``ek_authorities`` and ``rejudgements``."""
    op.add_column("nodes", sa.Column("endorsement", sa.Text))
    op.create_table(
        "ek_certificates",
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("certificates", sa.LargeBinary, nullable=False),
        sa.Column("kept_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_ek_certificates"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_ek_certificates_node_id_nodes"),
    )
    op.create_table(
        "ek_authorities",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", "node_id", name="pk_ek_authorities"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_ek_authorities_node_id_nodes"),
    )
    op.create_index("ix_ek_authorities_node_id", "ek_authorities", ["node_id"])
    op.create_table(
        "rejudgements",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("is_second", sa.Boolean, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("judged", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rejudgements"),
    )
