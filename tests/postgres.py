"""A real PostgreSQL for tests: its own cluster, reached through a socket in its own folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


def binaries() -> Path:
    """Where Debian keeps the server's programs; the newest version."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


class PostgreSQL:
    """A cluster that runs until ``close``. It never runs as root: PostgreSQL refuses that."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))  # socket paths must be short
        self._user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.run("initdb", "-A", "trust", "-U", "catena", "-D", self.data, "--no-sync")
        self.start()
        self._count = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, program: str, *arguments: object, check: bool = True) -> None:
        subprocess.run(
            [binaries() / program, *arguments],
            check=check,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=[] if self._user else None,
        )

    def control(self, *arguments: object, check: bool = True) -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "60", *arguments, check=check)

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder} -c max_connections=40"
        self.control("start", "-l", self.folder / "server.log", "-o", options)

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._count += 1
        name = f"catena{self._count}"
        self.run("createdb", "-h", self.folder, "-U", "catena", name)
        return f"postgresql+psycopg://catena@/{name}?host={self.folder}"

    def close(self) -> None:
        self.control("stop", "-m", "immediate", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
