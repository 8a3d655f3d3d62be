"""The record of what a node's containers were has a table."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add ``container_records``."""
    op.create_table(
        "container_records",
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("logged_records", sa.BigInteger, nullable=False),
        sa.Column("logged_size", sa.BigInteger, nullable=False),
        sa.Column("logged_sha256", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_container_records"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], "fk_container_records_node_id_nodes"),
    )
