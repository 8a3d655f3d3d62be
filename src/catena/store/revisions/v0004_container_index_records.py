"""Container records that NV indices hold, one for each tenant, have a table."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add ``container_index_records``."""
    op.create_table(
        "container_index_records",
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("nv_index", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("logged_records", sa.BigInteger, nullable=False),
        sa.Column("logged_size", sa.BigInteger, nullable=False),
        sa.Column("logged_sha256", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("node_id", "nv_index", name="pk_container_index_records"),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], "fk_container_index_records_node_id_nodes"
        ),
    )
