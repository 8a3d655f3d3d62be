"""Nodes have labels, secrets select by them, and each ciphertext names the key that it is under."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add ``node_labels``, ``keks``, ``secrets.labels`` and ``secrets.kek``."""
    op.add_column("secrets", sa.Column("labels", sa.Text, nullable=False, server_default="[]"))
    op.add_column("secrets", sa.Column("kek", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "node_labels",
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("node_id", "key", name="pk_node_labels"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_node_labels_node_id_nodes"),
    )
    op.create_table(
        "keks",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("in_force", sa.Boolean, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_keks"),
    )
