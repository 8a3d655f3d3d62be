"""The OCI runtime that asks: ``catena-runc``, its native client, and what the gate reads of it."""
