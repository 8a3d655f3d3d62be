"""The logs of a node: what firmware and boot loader measured, what IMA and the container gate since."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catena.errors import Unavailable
from catena.evidence import MAX_LOG, LogEntry, LogKind, log_entry


class MissingBootLog(Unavailable):
    """The kernel offers no firmware event log, so no PCR can be explained."""

    code = "boot-log-missing"
    remedy = "Mount securityfs; enable the TPM and its event log in firmware setup."


class LogTooLong(Unavailable):
    """A log has outgrown what evidence may carry."""

    code = "log-too-long"
    remedy = "Reboot; before that, reduce what the IMA policy measures if it is IMA's log."


@dataclass(frozen=True, slots=True)
class Log:
    """The content of one log at one moment, and its line of the manifest."""

    entry: LogEntry
    content: bytes


def read_boot_log(path: Path) -> Log:
    """The firmware event log; it does not change after boot."""
    log = _read("tcg2", path)
    if log is None or not log.content:
        raise MissingBootLog(f"no event log at {path}")
    return log


def read_ima_log(path: Path) -> Log | None:
    """The IMA log as it is now, or None on a kernel without IMA."""
    return _read("ima", path)


def read_container_record(path: Path, nv_index: int | None = None) -> Log | None:
    """The record of the gate that extends ``nv_index``, or a PCR, or None where no gate has ever been.

    Its last record may be half written. The server looks at nothing behind the quoted value.
    """
    return _read("containers", path, nv_index)


def _read(kind: LogKind, path: Path, nv_index: int | None = None) -> Log | None:
    try:
        # Files of securityfs report size 0: read, with a bound, until nothing more comes.
        with path.open("rb") as stream:
            content = stream.read(MAX_LOG + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot read {path}", got=error.strerror) from error
    if len(content) > MAX_LOG:
        raise LogTooLong(f"{path} is too long", expected=f"at most {MAX_LOG} bytes")
    return Log(entry=log_entry(kind, content, nv_index), content=content)
