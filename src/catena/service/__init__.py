"""The verbs of the trust wing: enrol, attest, approve, keep secrets, accept references.

Each verb decides, writes its decision to the audit log, waits until that is durable, and only
then lets it take effect in one database transaction. A log that cannot be written stops it.
"""
