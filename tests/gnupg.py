"""The real GnuPG, in a home of its own that goes with the test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60


@dataclass(frozen=True)
class GnuPG:
    """``gpg`` over one home folder."""

    home: Path

    def __call__(self, *arguments, data=b"", time=""):
        faked = ["--faked-system-time", f"{time}!"] if time else []
        common = ["--batch", "--yes", "--no-tty", "--quiet", "--pinentry-mode", "loopback"]
        done = subprocess.run(
            ["gpg", "--homedir", self.home, *common, "--passphrase", "", *faked, *arguments],
            input=data,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def new_key(self, name, usage="sign", expires="never", time="", kind="ed25519"):
        """The fingerprint of a new key."""
        self("--quick-gen-key", name, kind, usage, expires, time=time)
        return self.fingerprints(name)[0]

    def fingerprints(self, name):
        """Of a key and its subkeys, lower case."""
        listed = self("--with-colons", "--list-keys", name).decode()
        return [line.split(":")[9].lower() for line in listed.splitlines() if line.startswith("fpr")]  # fmt: skip

    def public(self, name, *options):
        return self(*options, "--export", name)

    def detached(self, name, data, *options, time=""):
        return self("-u", name, *options, "--detach-sign", data=data, time=time)

    def message(self, name, data, *options, time=""):
        return self("-u", name, *options, "--sign", data=data, time=time)


@contextmanager
def gnupg() -> Iterator[GnuPG]:
    """A home folder with a short path, because of its sockets; its agent ends with it."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    try:
        yield GnuPG(home)
    finally:
        subprocess.run(
            ["gpgconf", "--homedir", home, "--kill", "all"],
            check=False,
            capture_output=True,
            timeout=SECONDS,
        )
        shutil.rmtree(home, ignore_errors=True)
