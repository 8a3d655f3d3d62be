"""A real S3 service for tests: one monitor, one OSD in memory and one gateway of Ceph, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import httpx

from catena.formats import sigv4
from catena.formats.sigv4 import Credentials

CREDENTIALS = Credentials("catena", "a secret of the tests")
REGION = "default"

CONF = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon}
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = false
mon allow pool size one = true
run dir = {folder}
log file = {folder}/log-$name
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
osd objectstore = memstore
memstore device bytes = 536870912
osd data = {folder}/osd
mon data = {folder}/mon
mon data avail crit = 1
keyring = {folder}/keyring
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def start() -> Ceph:
    """A cluster; its monitor, store and gateway do not always find each other at the first try."""
    for _ in range(2):
        with contextlib.suppress(subprocess.SubprocessError):
            return Ceph()
    return Ceph()


class Ceph:
    """A cluster that runs until ``close``; each daemon is ended by the pid it was started with."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ceph"))
        fsid, monitor, self.port = uuid.uuid4(), free_port(), free_port()
        self._conf = self.folder / "ceph.conf"
        self._conf.write_text(
            CONF.format(fsid=fsid, mon=monitor, port=self.port, folder=self.folder)
        )
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        (self.folder / "keyring").touch()
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start(fsid, monitor)
        except BaseException:
            self.close()
            raise

    def _start(self, fsid: uuid.UUID, monitor: int) -> None:
        monmap = self.folder / "monmap"
        address = f"[v1:127.0.0.1:{monitor}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemon("ceph-mon", "-i", "a")
        osd = uuid.uuid4()
        self._run("ceph", "--connect-timeout", "60", "osd", "create", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default")
        self._daemon("ceph-osd", "-i", "0")
        keys = "--access-key", CREDENTIALS.access_key, "--secret-key", CREDENTIALS.secret_key
        self._run(
            "radosgw-admin",
            "--id",
            "rgw",
            "user",
            "create",
            "--uid",
            "c",
            "--display-name",
            "c",
            *keys,
        )
        self._daemon("radosgw", "--id", "rgw")
        end = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False)
            except httpx.HTTPError:
                assert time.monotonic() < end, "the gateway does not start"
                time.sleep(0.2)
            else:
                return

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [program, *map(str, arguments)],
            env=os.environ | {"CEPH_CONF": str(self._conf)},
            check=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _daemon(self, program: str, *arguments: str) -> None:
        self._daemons.append(
            subprocess.Popen(
                [program, "-f", *arguments],
                env=os.environ | {"CEPH_CONF": str(self._conf)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def new_bucket(self, name: str) -> str:
        """The address of an empty bucket."""
        host = f"127.0.0.1:{self.port}"
        headers = sigv4.sign(
            "PUT",
            f"/{name}",
            {},
            {"host": host},
            b"",
            credentials=CREDENTIALS,
            region=REGION,
            at=datetime.now(UTC),
        )
        answer = httpx.put(f"http://{host}/{name}", headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        return f"s3+http://{host}/{name}/logs/fleet"

    def gateway(self, sent: signal.Signals) -> None:
        """Stop or continue the gateway."""
        self._daemons[-1].send_signal(sent)

    def close(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
