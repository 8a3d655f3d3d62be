"""A real TPM 2.0 for tests: swtpm with EK certificates from a local CA of its own.

Everything lives below the folder that the caller names, the CA included; the process ends
with the context manager. Each TPM listens on two neighbouring ports, which is what the TCTI
``swtpm:port=P`` expects (commands on P, control channel on P + 1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catena.lab.swtpm import free_port_pair, listens

TOOLS = ("swtpm", "swtpm_setup", "swtpm_localca", "certtool")
START_ATTEMPTS = 5
START_SECONDS = 10.0

needs_swtpm = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS),
    reason="a software TPM needs swtpm, swtpm-tools and gnutls-bin",
)


@dataclass(slots=True)
class SoftwareTpm:
    """A running swtpm; ``root_ca_pem_paths`` are the roots its EK certificate leads to."""

    folder: Path
    root_ca_pem_paths: tuple[Path, ...]
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def tcti(self) -> str:
        """What ``open_tpm`` takes."""
        return f"swtpm:port={self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Power on: PCRs are reset, the clock's resetCount grows by one."""
        for _ in range(START_ATTEMPTS):
            self.port = free_port_pair()
            self._process = _spawn(self.folder / "state", self.port)
            if _serves(self._process, self.port):
                return
            self.stop()
        raise RuntimeError(f"swtpm did not start; see {self.folder / 'swtpm.log'}")

    def stop(self) -> None:
        """Power off, at once and without a TPM2_Shutdown."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def power_cycle(self) -> None:
        """A new boot of the same machine."""
        self.stop()
        self.start()


@contextmanager
def software_tpm(
    folder: Path,
    *,
    banks: str = "sha256,sha384",
    ca: Path | None = None,
    certificates: bool = True,
    rsa_bits: int = 2048,
) -> Iterator[SoftwareTpm]:
    """A manufactured, running TPM below ``folder``; ``ca`` lets several TPMs share one CA."""
    tpm = manufacture(folder, banks=banks, ca=ca, certificates=certificates, rsa_bits=rsa_bits)
    tpm.start()
    try:
        yield tpm
    finally:
        tpm.stop()


def manufacture(
    folder: Path,
    *,
    banks: str = "sha256,sha384",
    ca: Path | None = None,
    certificates: bool = True,
    rsa_bits: int = 2048,
) -> SoftwareTpm:
    """Give a new TPM its seeds and, if asked, EK certificates, without starting it."""
    folder = folder.resolve()
    state = folder / "state"
    state.mkdir(parents=True)
    ca = (ca or folder / "ca").resolve()
    ca.mkdir(parents=True, exist_ok=True)
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state)]
    command += ["--create-ek-cert"] if certificates else []
    command += ["--rsa-keysize", str(rsa_bits)] if rsa_bits != 2048 else []
    command += ["--config", str(_write_config(folder, ca)), "--pcr-banks", banks]
    command += ["--logfile", str(folder / "setup.log")]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"swtpm_setup failed: {(folder / 'setup.log').read_text()[-2000:]}")
    roots = (ca / "swtpm-localca-rootca-cert.pem", ca / "issuercert.pem")
    return SoftwareTpm(folder=folder, root_ca_pem_paths=roots)


def _write_config(folder: Path, ca: Path) -> Path:
    options = folder / "localca.options"
    options.write_text("--platform-manufacturer Lab\n--platform-version 1\n--platform-model Test\n")
    authority = folder / "localca.conf"
    authority.write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\n"
        f"issuercert = {ca}/issuercert.pem\ncertserial = {ca}/certserial\n"
    )
    setup = folder / "setup.conf"
    setup.write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {authority}\n"
        f"create_certs_tool_options = {options}\nactive_pcr_banks = sha256\n"
    )
    return setup


def _spawn(state: Path, port: int) -> subprocess.Popen[bytes]:
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"]
    command += ["--server", f"type=tcp,port={port},bindaddr=127.0.0.1"]
    command += ["--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"]
    command += ["--flags", "not-need-init,startup-clear"]
    with (state.parent / "swtpm.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _serves(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if listens(process.pid, port) and listens(process.pid, port + 1):
            return True
        time.sleep(0.01)
    return False


def process_is_gone(pid: int) -> bool:
    """Whether nothing runs under ``pid`` any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
