"""People behind the log's pseudonyms and the keys in force have tables; a log names its successor."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add ``people``, ``keys_in_force`` and ``log_state.successor``."""
    op.create_table(
        "people",
        sa.Column("pseudonym", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("pseudonym", name="pk_people"),
        sa.UniqueConstraint("name", name="uq_people_name"),
    )
    op.create_table(
        "keys_in_force",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", "sha256", name="pk_keys_in_force"),
    )
    op.add_column("log_state", sa.Column("successor", sa.Text))
