"""``python -m catena.lab.supervisor SPEC LEASE``: owns one unit's processes until told to end.

It ends on SIGTERM, when a child dies, or when the lease (a pipe's file descriptor) closes
before the byte that says to stay was written to it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from catena.errors import CatenaError
from catena.lab.machine import Hardware, Machine
from catena.lab.process import Child, catena_command
from catena.lab.swtpm import Vendor
from catena.lab.units import KEEP, MachineSpec, UnitSpec

_TICK = 0.2


class _Ended(Exception):
    """Told to end: by a signal or by a lost lease."""


def supervise(spec: UnitSpec, lease: int) -> None:
    """Run the unit until it is told to end or a child dies."""
    with ExitStack() as stack:
        watched: Child | Machine
        if spec.machine is not None:
            watched = stack.enter_context(Machine(_hardware(spec.name, spec.machine)))
        else:
            command = catena_command("server", "run", spec.server_folder or "")
            log = Path(spec.folder) / "server.out"
            log.write_bytes(b"")
            watched = stack.enter_context(Child("catena server", command, log=log))
        kept = False
        while True:
            watched.check()
            if kept:
                time.sleep(_TICK)
            elif select.select([lease], [], [], _TICK)[0]:
                kept = os.read(lease, 1) == KEEP
                if not kept:
                    raise _Ended("the command that started this unit is gone")


def _hardware(name: str, spec: MachineSpec) -> Hardware:
    return Hardware(
        name=name,
        folder=Path(spec.folder),
        disk=Path(spec.disk),
        varstore=Path(spec.varstore),
        vendor=Vendor(Path(spec.vendor)),
        server_port=spec.server_port,
        memory_mib=spec.memory_mib,
        sealed_copy=_path(spec.sealed_copy),
        data_disk=_path(spec.data_disk),
        orders=_path(spec.orders),
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _on_signal(number: int, _frame: object) -> None:
    raise _Ended(f"ended by {signal.Signals(number).name}")


def main() -> int:
    """Entry point; the last line printed says why the unit ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=UnitSpec)
    try:
        supervise(spec, int(sys.argv[2]))
    except _Ended as ended:
        print(ended, flush=True)  # noqa: T201 - the unit's own log
        return 0
    except (CatenaError, OSError) as error:
        print(" ".join(str(error).split()), flush=True)  # noqa: T201 - the unit's own log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
