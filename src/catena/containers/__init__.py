"""What runs in containers: who signed it, which files it has, how it may start, what is recorded.

::

    signature   one verifier for every signature format; its result is a VerifiedImage
    images      where manifests, layers and signatures come from: layouts, registries, content stores
    rootfs      from a container's root file system back to the layers it was made of
    launch      how a container may be started: the launch policy
    record      what was decided, written ahead and extended into the TPM
    wrapper     the OCI runtime that asks before it starts anything

Nothing here decides about a node: the gate (``agent.gate``) asks these rooms about one container,
and a verifier elsewhere replays the record.
"""
