"""What was decided about containers, written ahead and extended into the TPM.

::

    replay      what a record says, proven to be unaltered: for the node and for a verifier
    sequence    in which order events may follow each other
    recorder    appending: write, fsync, extend, commit; recovery after a crash between any two
    recovery    which events a crash left to be extended, and which records are refused
    batches     one commit for all who wait
    room        bounds: what a record holds, and whose share is how large
    file        the record file: one writer, private, whole records only
    commitment  what stands for the values of environment variables
    listing     containers and refusals, as people ask for them

``replay``, ``sequence`` and ``listing`` are pure.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT_RECORD = Path("/run/catena-gate/containers.cel")
"""The record belongs to one boot, as the PCR does: a tmpfs is the right place for it."""
