"""One of several servers that write to one log: ``replica.py KIND WHERE KEY NAME``.

Appends until it is stopped, and prints each acknowledged append as a line of JSON; a refusal is
printed, too, and tried again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from audit_samples import sample_entry
from places import OpenLog

from catena.audit import merkle
from catena.audit.leaf import seal_entry
from catena.errors import CatenaError
from catena.keys.signer import load_signer


def main():
    kind, where, key, name = sys.argv[1:]
    signer = load_signer(Path(key))
    number = int(name) * 1_000_000
    while True:
        try:
            with OpenLog(kind, where, signer) as log:
                while True:
                    number += 2
                    entries = [
                        seal_entry(signer, sample_entry(number)),
                        seal_entry(signer, sample_entry(number + 1)),
                    ]
                    receipts = log.append(entries)
                    say(
                        indices=[receipt.index for receipt in receipts],
                        leaves=[merkle.leaf_hash(receipt.extra).hex() for receipt in receipts],
                        checkpoint=receipts[0].checkpoint,
                    )
        except CatenaError as error:
            say(refused=error.code)
            time.sleep(0.05)


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
