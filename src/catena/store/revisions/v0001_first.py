"""The first schema; ``Database.create`` made it at once."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: no database is older."""
