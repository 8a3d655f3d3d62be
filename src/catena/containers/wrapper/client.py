"""The wrapper's second half: ask the gate about one call, then become the real runtime.

``catena-runc`` runs ``main`` in a Python without site (``-IS``) and with no path but this file's
folder. Only built-in modules are used: every import would be paid for at every start of a
container. What the gate is asked and answers is described in ``protocol``.

Nothing starts unless the gate says so. ``delete`` starts nothing, so it goes on without a gate.
"""

import _signal  # type: ignore[import-not-found]  # `signal` would load enum
import _socket
import posix
import sys
import time

MAGIC = b"catena-gate/1"
MAX_FRAME = 1 << 20
SECONDS = 115.0
"""Longer than the gate's own limit, and shorter than a kubelet's patience (two minutes)."""
DELETE_SECONDS = 5.0
UNREACHABLE = "gate-unreachable"


class Refused(Exception):
    """The gate's no, or its absence; ``code`` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def main(  # noqa: PLR0917 - what the shell hands over
    gate: str, runtime: str, verb: str, log: str, form: str, locale: str, *words: str
) -> int:
    """Ask, then exec; returns only if nothing starts."""
    restore_surroundings(locale)
    try:
        command = ask(gate, DELETE_SECONDS if verb == "delete" else SECONDS, runtime, words)
    except Refused as refused:
        if verb != "delete":
            return report(refused, log, form)
        command = [runtime.encode("utf-8", "surrogateescape"), *map(as_bytes, words)]
    try:
        posix.execv(runtime, command)
    except OSError as error:
        return report(
            Refused("runtime-missing", f"cannot run {runtime}: {error.strerror}"), log, form
        )


def restore_surroundings(locale: str) -> None:
    """Undo what Python's start changes and an exec would hand on: signals and the locale.

    ``locale`` is what ``LC_CTYPE`` was, behind ``=``, or nothing if it was not set.
    """
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    if locale:
        posix.putenv("LC_CTYPE", locale[1:])
    else:
        posix.unsetenv("LC_CTYPE")


def as_bytes(word: str) -> bytes:
    """A word of the command line as it was."""
    return word.encode("utf-8", "surrogateescape")


def ask(gate: str, seconds: float, runtime: str, words: tuple[str, ...]) -> list[bytes]:
    """The command line that the gate allows. Raises ``Refused``."""
    fields = [MAGIC, posix.getcwdb(), as_bytes(runtime), *map(as_bytes, words)]
    try:
        answer = exchange(gate, seconds, b"\0".join(fields))
    except OSError as error:
        raise Refused(UNREACHABLE, f"the gate does not answer: {error.strerror or error}") from None
    kind, _, rest = answer.partition(b"\0")
    parts = rest.split(b"\0")
    if kind == b"allow" and parts[0] == as_bytes(runtime):
        return parts
    if kind == b"deny" and len(parts) == 2:
        code, message = (part.decode("utf-8", "replace") for part in parts)
        raise Refused(code, message)
    raise Refused(UNREACHABLE, "the gate's answer makes no sense")


def exchange(gate: str, seconds: float, request: bytes) -> bytes:
    """One frame there, one frame back. Raises ``OSError``."""
    if len(request) > MAX_FRAME:
        raise OSError("the command line is too long")
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    channel.settimeout(seconds)
    channel.connect(gate)
    peer = channel.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    if int.from_bytes(peer[4:8], sys.byteorder) != 0:
        raise OSError("the gate is not root's")
    try:  # noqa: SIM105  contextlib would have to be imported
        channel.sendall(len(request).to_bytes(4, "big") + request, _socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        pass  # a gate that refuses at once does not read the question; its answer says why
    size = int.from_bytes(receive(channel, 4), "big")
    if size > MAX_FRAME:
        raise OSError("its answer is too long")
    return receive(channel, size)


def receive(channel: _socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes. Raises ``OSError``."""
    data = b""
    while len(data) < size:
        more = channel.recv(size - len(data))
        if not more:
            raise OSError("it closed the connection")
        data += more
    return data


def report(refused: Refused, log: str, form: str) -> int:
    """Say why, as the real runtime says why something failed; the exit code is its own, too."""
    message = f"catena refused: {refused.message} [{refused.code}]"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if log:
        line = f'time="{stamp}" level=error msg={quoted(message)}\n'
        if form == "json":
            line = f'{{"level":"error","msg":{quoted(message)},"time":"{stamp}"}}\n'
        append(log, line.encode())
    posix.write(2, message.encode() + b"\n")
    return 1


def append(path: str, line: bytes) -> None:
    """Add to the log. A log that cannot be written makes no start of a refusal."""
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
        posix.write(posix.open(path, flags, 0o644), line)
    except OSError as error:
        posix.write(2, f"catena-runc: cannot write {path}: {error.strerror}\n".encode())


def quoted(text: str) -> str:
    """A JSON string, in ASCII."""
    return '"' + "".join(map(escaped, text)) + '"'


def escaped(character: str) -> str:
    """One character within a JSON string."""
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
