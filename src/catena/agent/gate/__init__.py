"""The container gate of a node: nothing starts in a container unless it says so.

::

    server     the socket: who asks, how many at a time, for how long
    guard      one question from its words to its answer: decide, write ahead, hand over
    decision   may this be started? asks the rooms of ``containers``
    policy     the container policy in force
    images     what is known of images, for as long as nothing changed
    stores     all image stores as one
    process    what an exec would run
    bundles    checked configurations that the real runtime gets, and who lives with which
    watch      processes whose end says that something is over
    config     gate.toml
    register   the PCR or NV index that holds the record
    serving    the gate as a process
"""
