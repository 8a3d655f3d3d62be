"""A real rsyslogd as a receiver: its own configuration, process and files, below one folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
needs_rsyslog = pytest.mark.skipif(PROGRAM is None, reason="rsyslog is not installed")

INPUTS = {
    "tcp": """\
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{folder}/port" ruleset="entries")
""",
    # What is said on a Unix socket it takes for the older format, and as of now, unless told otherwise.
    "unix": """\
module(load="imuxsock" sysSock.use="off")
input(type="imuxsock" socket="{folder}/log" ruleset="entries"
      useSpecialParser="off" ignoreTimestamp="off")
""",
}
# What rsyslog itself read out of a message, one JSON object on a line.
CONFIG = """\
global(workDirectory="{folder}" maxMessageSize="64k")
module(load="mmpstrucdata")
main_queue(queue.type="Direct")
template(name="entry" type="list" option.jsonf="on") {{
  property(outname="priority" name="pri" format="jsonf")
  property(outname="at" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="kind" name="msgid" format="jsonf")
  property(outname="data" name="$!rfc5424-sd" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
ruleset(name="entries") {{
  action(type="mmpstrucdata")
  action(type="omfile" file="{folder}/entries" template="entry")
}}
"""


@dataclass(frozen=True)
class Received:
    """One message as rsyslog understood it."""

    priority: int
    at: datetime
    host: str
    app: str
    kind: str
    data: dict[str, dict[str, str]]
    text: str


class Rsyslog:
    """It runs while it is a context; ``address`` is what to export to."""

    def __init__(self, folder: Path, transport: str) -> None:
        self._folder = folder
        self._transport = transport
        folder.mkdir()
        (folder / "rsyslog.conf").write_text((CONFIG + INPUTS[transport]).format(folder=folder))

    def __enter__(self) -> Self:
        assert PROGRAM is not None
        folder = self._folder
        with (folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [PROGRAM, "-n", "-f", folder / "rsyslog.conf", "-i", folder / "pid"],
                stdout=said,
                stderr=said,
            )
        ready = folder / ("log" if self._transport == "unix" else "port")
        end = time.monotonic() + 20
        while not ready.exists() or (ready.is_file() and not ready.read_text()):
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise AssertionError((folder / "said").read_text())
            time.sleep(0.01)
        place = str(ready) if self._transport == "unix" else f"127.0.0.1:{ready.read_text()}"
        self.address = f"syslog {self._transport}:{place}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def lines(self) -> list[str]:
        """Whole lines of its file so far."""
        file = self._folder / "entries"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def received(self) -> list[Received]:
        """What it wrote, in order."""
        return [_received(json.loads(line)) for line in self.lines]


def _received(line: dict[str, str]) -> Received:
    return Received(
        priority=int(line["priority"]),
        at=datetime.fromisoformat(line["at"]),
        host=line["host"],
        app=line["app"],
        kind=line["kind"],
        data=json.loads(line["data"]),
        text=line["text"],
    )
