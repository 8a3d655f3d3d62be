"""Layers as they are stored: unpacked while they are read, hashed on both sides, bounded.

gzip (RFC 1952; several members, as estargz and pigz write them), bzip2 and xz (ACI) come from the
standard library, zstd (RFC 8878) from the ``zstd`` program where it is installed. The first bytes
decide which one it is, as in containerd; the digests on both sides decide whether that was right.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Protocol

from catena.containers.rootfs.refusals import UnreadableLayer
from catena.errors import FormatError
from catena.formats.layertar import Readable

MAX_PACKED = 16 << 30
MAX_UNPACKED = 64 << 30
MAX_MEMBERS = 1_000_000
"""Bytes of one layer as stored and as tar; pieces that it may be packed in."""
_CHUNK = 64 * 1024
_XZ_MEMORY = 128 << 20
_ZSTD_MEMORY = "--memory=128MiB"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GRACE_SECONDS = 5.0


class Hashed:
    """A stream whose bytes are hashed as they pass; more than ``limit`` of them are refused."""

    def __init__(self, stream: Readable, *algorithms: str, limit: int) -> None:
        self._stream = stream
        self._hashers = [hashlib.new(one) for one in algorithms]
        self._left = limit
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes. Raises ``FormatError`` beyond the limit."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise FormatError("layer is too long")
        for hasher in self._hashers:
            hasher.update(data)
        return data

    def peek(self, size: int) -> bytes:
        """The first bytes, which ``read`` gives again."""
        ahead = b""
        while len(ahead) < size and (more := self.read(size - len(ahead))):
            ahead += more
        self._ahead = ahead
        return ahead

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_CHUNK):
            pass

    def digests(self) -> tuple[str, ...]:
        """``algorithm:hex`` of what was read, for each algorithm."""
        return tuple(f"{one.name}:{one.hexdigest()}" for one in self._hashers)


@contextmanager
def unpacked(packed: Hashed) -> Iterator[Readable]:
    """The bytes inside ``packed``. Raises ``FormatError``, or ``UnreadableLayer`` without zstd."""
    head = packed.peek(6)
    if head.startswith(_ZSTD_MAGIC):
        with _zstd(packed) as stream:
            yield stream
        return
    make = next((one for magic, one in _BY_MAGIC.items() if head.startswith(magic)), None)
    yield packed if make is None else _Unpacked(packed, make)


class _Decompressor(Protocol):
    """What ``bz2`` and ``lzma`` offer."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """``zlib``'s object as a ``_Decompressor``."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_BY_MAGIC: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY),
}


class _Unpacked:
    """Members of one format after each other, as one stream."""

    def __init__(self, packed: Readable, make: Callable[[], _Decompressor]) -> None:
        self._packed = packed
        self._make = make
        self._inner = make()
        self._members = 1

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise FormatError(f"layer cannot be unpacked: {error}") from error

    def _read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._inner.eof:
                data = self._inner.unused_data or self._packed.read(_CHUNK)
                if not data:
                    return b""
                self._next_member()
            elif self._inner.needs_input:
                data = self._packed.read(_CHUNK)
            output = self._inner.decompress(data, size)
            if output:
                return output
            if not data and self._inner.needs_input and not self._inner.eof:
                raise FormatError("packed layer is cut off")

    def _next_member(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise FormatError("packed layer has too many members")
        self._inner = self._make()


@contextmanager
def _zstd(packed: Hashed) -> Iterator[Readable]:
    """Through the program; it does not outlive this."""
    program = shutil.which("zstd")
    if program is None:
        raise UnreadableLayer("a layer is packed by zstd, and there is no `zstd` program")
    with subprocess.Popen(  # noqa: S603 - an argument list, no shell
        (program, "-dcq", _ZSTD_MEMORY),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise UnreadableLayer("zstd has no pipes")
        pump = threading.Thread(target=_pump, args=(packed, process.stdin), daemon=True)
        pump.start()
        try:
            yield _ZstdOutput(process, process.stdout, pump)
        finally:
            process.kill()
            pump.join(_GRACE_SECONDS)


class _ZstdOutput:
    def __init__(
        self, process: subprocess.Popen[bytes], output: IO[bytes], pump: threading.Thread
    ) -> None:
        self._process, self._output, self._pump = process, output, pump

    def read(self, size: int, /) -> bytes:
        data = self._output.read(size)
        if not data:
            self._pump.join(_GRACE_SECONDS)
            if self._process.wait(_GRACE_SECONDS):
                raise FormatError("layer cannot be unpacked by zstd")
        return data


def _pump(packed: Hashed, pipe: IO[bytes]) -> None:
    """Feed the program until its end or ours; a stream that fails looks cut off to it."""
    with suppress(OSError, ValueError, FormatError), pipe:
        while data := packed.read(_CHUNK):
            pipe.write(data)
