"""PCR policies of CoreOS and Flatcar Container Linux: which events GRUB may measure.

An OS build wrote one JSON file for each part of it (Flatcar's ``build_library``, scripts
``generate_grub_hashes.py`` and ``generate_kernel_hash.py``) and packed them as
``…_image_pcr_policy.zip``, flat: ``grub_loader.config``, ``grub_modules.config``,
``grub_commands.config``, ``kernel_cmdline.config``, ``kernel.config``. A file maps PCR indices
to lists of alternatives:

=================  ================================================================
``rawvalues``      ``[{value, description}]``: the PCR's final value, in hex
``binaryvalues``   ``[{prefix?, values: [{value, description}]}]``: an event's digest
``asciivalues``    the same with a regular expression over an event's text
=================  ================================================================

``prefix`` is the word that GRUB logs before the text and does not hash. The generators of that
time hash with SHA-1, in which no bank is quoted: such values are left out, each with a warning.
Their expressions have no anchors, so that ``set .+`` would also accept ``reset x``; here they
match whole texts (``formats.pattern``), and each one that had to be changed is a warning.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from catena.errors import FormatError
from catena.formats.pattern import anchor, compile_pattern
from catena.formats.references import BANK_OF_SIZE, PcrRule, RuleKind

ZIP_MAGIC = b"PK\x03\x04"
MAX_FILE = 1024 * 1024
MAX_ENTRIES = 64
MAX_TOTAL = 4 * MAX_FILE
MAX_RULES = 4096
MAX_PATTERNS = 256
MAX_DESCRIPTION = 256
MAX_PREFIX = 64

_SHA1_DIGITS = 40
_SUFFIXES = (".config", ".json")
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


class BadPcrPolicy(FormatError):
    """A file that is no PCR policy."""

    code = "pcr-policy-malformed"
    remedy = "Give the policy's JSON file, or the pcr_policy.zip of the OS build."


class WeakPcrPolicy(FormatError):
    """A PCR policy of which nothing could ever be compared with a quote."""

    code = "pcr-policy-weak"
    remedy = "Make the policy again with SHA-256 digests: SHA-1 banks are never quoted."


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    value: str
    description: str = ""


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    values: tuple[_Value, ...]
    prefix: str = ""


class _Pcr(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rawvalues: tuple[_Value, ...] = ()
    binaryvalues: tuple[_Group, ...] = ()
    asciivalues: tuple[_Group, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """The rules of one policy, and what of the original does not hold as it was written."""

    rules: tuple[PcrRule, ...]
    warnings: tuple[str, ...]


def is_pcr_policy(content: bytes) -> bool:
    """Whether ``content`` looks like a policy: a zip, or an object whose first key is a PCR."""
    return content.startswith(ZIP_MAGIC) or bool(re.match(rb'\s*\{\s*"\d{1,2}"\s*:', content))


def parse(content: bytes) -> ParsedPolicy:
    """Read a policy file or the zip that holds several.

    Raises ``BadPcrPolicy``, ``WeakPcrPolicy`` or ``UnsafePattern``.
    """
    files = _unpack(content) if content.startswith(ZIP_MAGIC) else (content,)
    reader = _Reader()
    for file in files:
        for pcr, lists in _decode(file):
            reader.read(pcr, lists)
    if not reader.rules:
        raise WeakPcrPolicy("no value of this PCR policy can be compared with a quote")
    return ParsedPolicy(tuple(reader.rules), tuple(reader.warnings))


def _unpack(content: bytes) -> tuple[bytes, ...]:
    """The files of a flat zip, in the order of their names."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = sorted(archive.infolist(), key=lambda one: one.filename)
            _check_entries(entries)
            return tuple(_extract(archive, entry) for entry in entries)
    except _DAMAGE as error:
        raise BadPcrPolicy("not a readable zip") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    names = {entry.filename for entry in entries}
    if not 0 < len(entries) <= MAX_ENTRIES or len(names) != len(entries):
        raise BadPcrPolicy("a zip with too many files, or two of one name", got=str(len(entries)))
    for entry in entries:
        flat = re.fullmatch(r"[A-Za-z0-9._-]{1,128}", entry.filename)
        if not flat or not entry.filename.endswith(_SUFFIXES):
            raise BadPcrPolicy(
                "a zip with something else than policies in it",
                expected=" or ".join(_SUFFIXES),
                got=ascii(entry.filename[:80]),
            )
        if entry.flag_bits & 1 or entry.compress_type not in _COMPRESSIONS:
            raise BadPcrPolicy("an encrypted or unusual zip", got=entry.filename[:80])
        if entry.file_size > MAX_FILE:
            raise BadPcrPolicy("a policy file that is too large", got=str(entry.file_size))
    if sum(entry.file_size for entry in entries) > MAX_TOTAL:
        raise BadPcrPolicy("a zip that unpacks to too much", expected=f"at most {MAX_TOTAL}")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """One file; a directory that lies about its size does not decide how much is unpacked."""
    with archive.open(entry) as source:
        content = source.read(MAX_FILE + 1)
    if len(content) != entry.file_size:
        raise BadPcrPolicy("a zip whose directory states another size", got=str(len(content)))
    return content


def _decode(content: bytes) -> Iterator[tuple[int, _Pcr]]:
    if len(content) > MAX_FILE:
        raise BadPcrPolicy("a policy file that is too large", got=str(len(content)))
    try:
        table = msgspec.json.decode(content, type=dict[str, _Pcr])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPcrPolicy(f"not a PCR policy: {error}") from error
    for pcr, lists in table.items():
        if not re.fullmatch(r"0|[1-9]|1\d|2[0-3]", pcr):
            raise BadPcrPolicy("not the index of a PCR", got=ascii(pcr[:80]))
        yield int(pcr), lists


class _Reader:
    """Collects the rules of all files; ids are unique within a policy (``8.ascii.0``)."""

    def __init__(self) -> None:
        self.rules: list[PcrRule] = []
        self.warnings: list[str] = []
        self._counts: dict[tuple[int, RuleKind], int] = {}
        self._patterns = 0

    def read(self, pcr: int, lists: _Pcr) -> None:
        for value in lists.rawvalues:
            self._digest(pcr, "raw", "", value)
        for group in lists.binaryvalues:
            for value in group.values:
                self._digest(pcr, "binary", group.prefix, value)
        for group in lists.asciivalues:
            for value in group.values:
                self._pattern(pcr, group.prefix, value)

    def _digest(self, pcr: int, kind: RuleKind, prefix: str, value: _Value) -> None:
        digest, name = value.value.lower(), self._name(pcr, kind)
        known = len(digest) in {_SHA1_DIGITS, *BANK_OF_SIZE}
        if not known or not re.fullmatch("[0-9a-f]+", digest):
            raise BadPcrPolicy(f"{name} is no digest", got=ascii(digest[:80]))
        if len(digest) == _SHA1_DIGITS:
            self.warnings.append(f"{name} is left out: SHA-1 is never quoted: {digest}")
            return
        self._add(
            PcrRule(
                id=name, pcr=pcr, kind=kind, prefix=prefix, value=digest, what=value.description
            )
        )

    def _pattern(self, pcr: int, prefix: str, value: _Value) -> None:
        name = self._name(pcr, "ascii")
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise BadPcrPolicy("a policy of too many patterns", expected=f"at most {MAX_PATTERNS}")
        compile_pattern(value.value)
        anchored = anchor(value.value)
        if anchored.changed:
            self.warnings.append(f"{name} now has to match the whole text: {value.value}")
        self._add(
            PcrRule(
                id=name,
                pcr=pcr,
                kind="ascii",
                prefix=prefix,
                value=anchored.source,
                what=value.description,
            )
        )

    def _add(self, rule: PcrRule) -> None:
        texts = ((rule.prefix, MAX_PREFIX), (rule.what, MAX_DESCRIPTION))
        if any(len(text) > most or not text.isprintable() for text, most in texts):
            raise BadPcrPolicy(f"{rule.id} has words that cannot be shown")
        self.rules.append(rule)

    def _name(self, pcr: int, kind: RuleKind) -> str:
        count = self._counts.get((pcr, kind), 0)
        self._counts[pcr, kind] = count + 1
        if sum(self._counts.values()) > MAX_RULES:
            raise BadPcrPolicy("a policy of too many values", expected=f"at most {MAX_RULES}")
        return f"{pcr}.{kind}.{count}"
