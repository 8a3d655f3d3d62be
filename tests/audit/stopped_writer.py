"""Writes a log in processes that are stopped, or whose disk fails, at one step after the other.

Run with ``stops.c`` preloaded: ``stopped_writer.py KIND WHERE KEY HOW ENTRIES…``. Each round forks
a writer that stops at the next step of one append; then the log is opened again, must contain
every checkpoint that was acknowledged or published, and takes other entries. Prints one JSON
object at the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from audit_samples import sample_entry
from places import OpenLog, place

from catena.audit import checkpoint as checkpoints
from catena.audit.leaf import seal_entry
from catena.audit.log import LogUnwritable, TransparencyLog
from catena.keys.signer import load_signer

STEPS = ctypes.CDLL(None)
KILLS = {0, 1}


def main():
    kind, where, key, how, *sizes = sys.argv[1:]
    signer = load_signer(Path(key))
    sealed = [seal_entry(signer, sample_entry(number)) for number in range(600)]
    roots = {}
    with OpenLog(kind, where, signer) as log:
        log.append(sealed[:250])
        known = log.checkpoint()
    stopped = acknowledged = 0
    for size in map(int, sizes):
        step = 0
        while True:
            step += 1
            ended, known = one_round(kind, where, signer, int(how), step, sealed[:size], known)
            stopped += ended != "undisturbed"
            acknowledged += ended != "killed"
            remember(roots, signer, published(kind, where))
            with OpenLog(kind, where, signer, known) as log:
                remember(roots, signer, log.checkpoint())
                log.append(sealed[300 + step % 100 :][: 1 + step % 3])
                known = log.checkpoint()
                remember(roots, signer, known)
            if ended == "undisturbed":
                break
    json.dump({"stopped": stopped, "acknowledged": acknowledged, "checkpoint": known}, sys.stdout)


def one_round(kind, where, signer, how, step, entries, known):  # noqa: PLR0917
    """Append in a process of its own, disturbed at ``step``: how that ended, and what is known."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        code = 2
        try:
            code = disturbed(OpenLog(kind, where, signer, known), how, step, entries, writing)
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in ({0, -signal.SIGKILL} if how in KILLS else {0, 1}), status
    if said:
        known = said
    return {0: "undisturbed", 1: "failed"}.get(status, "killed"), known


def disturbed(opened, how, step, entries, pipe):
    """One append; 0 if nothing happened to it, 1 if a step failed."""
    os.dup2(pipe, 2)  # what is written there is not counted as a step
    log = opened.log
    STEPS.stops_begin(step, how)
    try:
        log.append(entries)
    except LogUnwritable:
        STEPS.stops_begin(-1, how)
        log.append(entries[:1])  # the same process goes on
        os.write(2, log.checkpoint().encode())
        opened.__exit__()
        return 1
    happened = STEPS.stops_count() >= step
    STEPS.stops_begin(-1, how)
    os.write(2, log.checkpoint().encode())
    if how in KILLS and not happened:
        return 0
    opened.__exit__()
    return int(happened)


def published(kind, where):
    """The checkpoint that readers see, whatever just happened."""
    _, storage, open_things = place(kind, where)
    content = storage.read("checkpoint", 10_000)
    for thing in open_things:
        thing.close()
    return content.decode()


def remember(roots, signer, text):
    """No size may ever be seen with two roots."""
    head = checkpoints.verify(text.encode(), signer.public_key)
    assert roots.setdefault(head.size, head.root) == head.root


if __name__ == "__main__":
    assert TransparencyLog
    main()
