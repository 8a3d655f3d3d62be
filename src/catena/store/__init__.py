"""The database: schema and typed access. No business rules."""
