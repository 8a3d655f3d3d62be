"""The OCI runtime that asks: ``catena-runc.sh``, its lean client, and what the gate reads of it."""
