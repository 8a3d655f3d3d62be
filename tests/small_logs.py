"""Small logs made by hand, for tests of several rooms."""

from __future__ import annotations

import json

from catena.formats import cel, ima
from catena.formats.cel import CelRecord
from catena.ids import HashAlg

PHASES = (b"enter-initrd", b"leave-initrd", b"sysinit", b"ready")
BANKS = (HashAlg.SHA1, HashAlg.SHA256)


def _digests(content: bytes) -> dict[HashAlg, bytes]:
    return {bank: bank.digest(content) for bank in BANKS}


CEL_RECORDS = tuple(
    CelRecord(index, 11, None, _digests(phase), "80", phase, 0)
    for index, phase in enumerate(PHASES)
)
CEL_TLV = b"".join(map(cel.encode_tlv, CEL_RECORDS))

CEL_JSON = b"".join(
    b"\x1e"
    + json.dumps(
        {
            "pcr": 11,
            "digests": [
                {"hashAlg": bank.value, "digest": digest.hex()}
                for bank, digest in _digests(phase).items()
            ],
            "content_type": "systemd",
            "content": {
                "string": phase.decode(),
                "bootId": "5a" * 16,
                "timestamp": 1,
                "eventType": "phase",
            },
        }
    ).encode()
    + b"\n"
    for phase in PHASES
)


def ima_entry(index: int, path: bytes, *more: bytes, template: str = "ima-ng") -> ima.ImaEntry:
    """An entry whose template digest is right."""
    digest = b"sha256:\0" + HashAlg.SHA256.digest(path)
    fields = (digest, path + b"\0", *more)
    data = ima.encode_fields(*fields)
    return ima.ImaEntry(index, 10, HashAlg.SHA1.digest(data), template, data, fields)


IMA_ENTRIES = (ima_entry(0, b"/init"), ima_entry(1, b"/a b", b"\3\2", template="ima-sig"))
IMA_BINARY = b"".join(map(ima.encode, IMA_ENTRIES))


def ima_line(entry: ima.ImaEntry) -> bytes:
    """The entry as ``ascii_runtime_measurements`` prints it."""
    algorithm, digest = entry.file_digest
    head = f"{entry.pcr} {entry.template_digest.hex()} {entry.template_name} {algorithm}:{digest.hex()} "
    more = b"".join(b" " + field.hex().encode() for field in entry.fields[2:])
    return head.encode() + entry.fields[1].rstrip(b"\0") + more + b"\n"


IMA_TEXT = b"".join(map(ima_line, IMA_ENTRIES))
