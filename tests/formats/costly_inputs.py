"""Inputs just below 1 MB that are the worst we could construct for each reader: most elements,
smallest elements, deepest nesting, longest names, and well-formed input over and over."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator

from fuzz_probe import LIMIT_INPUT, Probe
from fuzz_seeds import (
    certificate,
    example,
    firmware_log,
    image_load,
    image_signature,
    partition_table,
    runtime_config,
    variables,
)

from catena.containers.rootfs.tree import IMPLIED, encode
from catena.formats import (
    aci,
    cbor,
    cel,
    containerlog,
    efi,
    gpt,
    openpgp,
    tcglog,
)
from catena.formats.cbor import Tag
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from changed import replace
from small_images import small_pe
from small_records import LAUNCH, create, deny, gate_start, record_of
from small_signatures import (
    ACI_MANIFEST,
    COMPRESSIONS,
    IMAGES_POLICY,
    TRUST_POLICY,
    packet,
    tar_entry,
)
from small_signatures import aci as small_aci
from small_tars import file, tar

_PATTERNS = (b"\0", b"\xff", b"\1", b"\0\1\2\3", b"A", b" ", b"\n", b"[", b'{"":', b'"', b"\\u0000", "\u2028".encode())  # fmt: skip


def costly(probe: Probe) -> Iterator[tuple[str, bytes]]:
    """What the input is, and the input."""
    for pattern in _PATTERNS:
        yield f"{pattern!r} throughout", filled(pattern)
    for number, seed in enumerate(probe.seeds()):
        if seed:
            yield f"seed {number} repeated", filled(seed)
        yield f"seed {number} and zeros", filled(b"\0", seed)
        yield f"seed {number} and 0xFF", filled(b"\xff", seed)
    for kind in probe.kinds:
        yield from _documents(json.loads(example(kind)))
    yield from _BY_NAME.get(probe.name, _nothing)()


def filled(piece: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    """``head``, ``piece`` as often as it fits into the limit, ``tail``."""
    return head + piece * ((LIMIT_INPUT - len(head) - len(tail)) // len(piece)) + tail


def _nothing() -> Iterator[tuple[str, bytes]]:
    yield from ()


# JSON --------------------------------------------------------------------------------------


def _documents(document: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """A good document with one member blown up, for each member and each way."""
    for name, good in document.items():
        head, tail = json.dumps({**document, name: "@"}).split('"@"')
        for what, piece, start, end in (
            ("long text", b"a", b'"', b'"'),
            ("escapes", b"\\u2028", b'"', b'"'),
            ("numbers", b"0,", b"[", b"0]"),
            ("empty lists", b"[],", b"[", b"[]]"),
            ("empty objects", b"{},", b"[", b"{}]"),
            ("short texts", b'"",', b"[", b'""]'),
            ("nested lists", b"[", b"", b""),
            ("nested objects", b'{"":', b"", b""),
            ("one key", b'"":"",', b"{", b'"":""}'),
            ("digits", b"9", b"", b""),
        ):
            yield f"{what} in {name}", filled(piece, head.encode() + start, end + tail.encode())
        element = json.dumps(good)[1:-1].encode()
        if isinstance(good, list) and element:
            blown = filled(element + b",", head.encode() + b"[", element + b"]" + tail.encode())
            yield f"elements of {name}", blown
        if isinstance(good, dict) and element:
            yield f"members of {name}", _keys(head, tail, good)


def _keys(head: str, tail: str, members: dict[str, object]) -> bytes:
    """As many distinct keys as fit, each with the value of the first."""
    value = json.dumps(next(iter(members.values())), separators=(",", ":"))
    count = (LIMIT_INPUT - len(head) - len(tail) - 2) // (len(value) + 10)
    inner = ",".join(f'"{number:06}":{value}' for number in range(count))
    return f"{head}{{{inner}}}{tail}".encode()


def _cel_json() -> Iterator[tuple[str, bytes]]:
    digest = b'{"hashAlg":"sha1","digest":"' + b"0" * 40 + b'"}'
    record = b'\x1e{"pcr":1,"digests":[%s],"content_type":"","content":%s}\n'
    unknown = b'{"hashAlg":"","digest":"00"}'
    yield "smallest records", filled(record % (unknown, b"0"))
    yield "most digests", filled(record % (b",".join([unknown] * 8), b"0"))
    yield "known digests", filled(record % (digest, b'{"string":""}'))
    yield "nested content", filled(record % (digest, b"[" * 900 + b"]" * 900))
    yield "nested too deep", filled(record % (digest, b"[" * 30000 + b"]" * 30000))
    yield "nested text", filled(b'\x1e{"content":' + b"[" * 50000)


def _cel_tlv() -> Iterator[tuple[str, bytes]]:
    for what, digests in (
        ("smallest records", b""),
        ("known digests", b"\4\0\0\0\x14" + bytes(20) + b"\x0b\0\0\0\x20" + bytes(32)),
        ("unknown digests", b"\xff\0\0\0\0" * cel.MAX_ALGORITHMS),
    ):
        tail = b"\1\0\0\0\1\7\3" + len(digests).to_bytes(4, "big") + digests + b"\4\0\0\0\0"
        count = LIMIT_INPUT // (13 + len(tail))
        numbers = (number.to_bytes(8, "big") for number in range(count))
        yield what, b"".join(b"\0\0\0\0\x08" + number + tail for number in numbers)


def _container_events() -> Iterator[tuple[str, bytes]]:
    for what, launch in (
        ("arguments", replace(LAUNCH, argv=("",) * 1024)),
        ("names", replace(LAUNCH, env={f"{number:x}": "0" * 64 for number in range(700)})),
        ("a long argument", replace(LAUNCH, argv=("\0" * 9_500,))),
    ):
        yield what, containerlog.encode(create(launch=launch))


def _container_records() -> Iterator[tuple[str, bytes]]:
    count = LIMIT_INPUT // len(record_of(gate_start(), banks=(HashAlg.SHA256,))) - 10
    yield "smallest events", record_of(gate_start(), *[deny()] * count, banks=(HashAlg.SHA256,))
    starts = [gate_start(values={bank: bytes(bank.size) for bank in (HashAlg.SHA256,)})] * count
    yield "most gates", record_of(*starts, banks=(HashAlg.SHA256,))
    for what, event in _container_events():
        yield what, record_of(*[containerlog.parse(event)] * (LIMIT_INPUT // (len(event) + 200)))


# Firmware ----------------------------------------------------------------------------------


def _signature_lists() -> Iterator[tuple[str, bytes]]:
    guid = efi.EFI_CERT_SHA256.bytes_le

    def sizes(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(4, "little") for number in numbers)

    owners = b"".join(n.to_bytes(17, "little") for n in range(1, efi.MAX_SIGNATURES + 1))
    yield "most owners", guid + sizes(28 + len(owners), 0, 17) + owners
    yield "most lists", (guid + sizes(28, 0, 17)) * efi.MAX_LISTS
    yield "too many lists", filled(guid + sizes(28, 0, 17))
    yield "too many signatures", guid + sizes(28 + 17 * 50000, 0, 17) + bytes(17 * 50000)
    hashes = bytes(16) + b"h" * 32
    yield "hashes", guid + sizes(28 + 48 * 16384, 0, 48) + hashes * 16384
    empty = bytes(16) + b"\x30"
    yield "no certificates", guid + sizes(28 + 17 * 16384, 0, 17) + empty * 16384


def _device_paths() -> Iterator[tuple[str, bytes]]:
    yield "smallest nodes", filled(b"\1\1\4\0")
    uri = b"\3\x18\xff\xff" + b"\xff" * 65531
    yield "long addresses", filled(uri)
    file = b"\4\4" + (15000).to_bytes(2, "little") + "\ud800".encode("utf-16-le", "surrogatepass") * 7498  # fmt: skip
    yield "long file names", filled(file)


def _gpt_event() -> Iterator[tuple[str, bytes]]:
    event = partition_table().event_data()
    entry = event[gpt.HEADER_SIZE + 8 :][: gpt.ENTRY_SIZE]
    for count in (gpt.MAX_PARTITIONS, 1 << 32):
        head = event[: gpt.HEADER_SIZE] + count.to_bytes(8, "little")
        yield f"{count} partitions", head + entry * gpt.MAX_PARTITIONS


def _pe() -> Iterator[tuple[str, bytes]]:
    for count in (1, 96):
        image = bytearray(small_pe(tuple((f".{n}", b"x" * 9000) for n in range(1, count + 1))))
        table = image.index(b".1\0")
        for size in (1 << 24, 1 << 30, (1 << 32) - 1):
            for number in range(count):
                at = table + 40 * number
                image[at + 8 : at + 12] = size.to_bytes(4, "little")
            yield f"{count} sections of {size} bytes", bytes(image)


# Logs --------------------------------------------------------------------------------------


def _ima() -> Iterator[tuple[str, bytes]]:
    head = b"\x0a\0\0\0" + b"d" * 20

    def entry(name: bytes, content: bytes) -> bytes:
        size = len(content).to_bytes(4, "little")
        return head + len(name).to_bytes(4, "little") + name + size + content

    yield "smallest entries", filled(entry(b"x", bytes(8)))
    yield "most fields", filled(entry(b"x", bytes(64)))
    yield "old entries", filled(head + b"\3\0\0\0ima" + b"d" * 20 + bytes(4))
    yield "too many fields", filled(entry(b"x", bytes(60000)))
    yield "long fields", filled(entry(b"x", (60000).to_bytes(4, "little") + b"\xff" * 60000 + bytes(4)))  # fmt: skip


def _ima_ascii() -> Iterator[tuple[str, bytes]]:
    head = b"0 " + b"0" * 40 + b" ima-sig a:00 "
    yield "smallest lines", filled(b"0 " + b"0" * 40 + b" ima-ng a:00 \n")
    yield "old lines", filled(b"0 " + b"0" * 40 + b" ima " + b"0" * 40 + b" \n")
    for what, piece in (
        ("blanks", b" "),
        ("hex words", b" 00"),
        ("letters and blanks", b"a "),
        ("hex", b"0"),
        ("colons", b"a:"),
        ("digests", b"a:00 "),
        ("undecodable", b"\xff"),
    ):
        line = head + piece * (130000 // len(piece))
        yield f"lines of {what}", filled(line + b"\n")
        yield f"lines of {what}, ended otherwise", filled(line + b"!\n")
        start = b"0 " + b"0" * 40 + b" ima-sig "
        yield f"digests of {what}", filled(start + piece * (130000 // len(piece)) + b"\n")


_EMPTY_EVENT = 4 + 4 + 20 + 4


def _logs() -> Iterator[tuple[str, bytes]]:
    spec = firmware_log((HashAlg.SHA256,))[: 32 + 16 + 8 + 4 + 4 + 1]
    agile = firmware_log(tuple(HashAlg))
    five = agile[: 32 + 16 + 8 + 4 + 4 * 5 + 1]

    def event(pcr: int, kind: int, data: bytes, banks: tuple[HashAlg, ...]) -> bytes:
        digests = b"".join(one.tpm_id.to_bytes(2, "little") + one.digest(data) for one in banks)
        numbers = (pcr, kind, len(banks))
        head = b"".join(number.to_bytes(4, "little") for number in numbers)
        return head + digests + len(data).to_bytes(4, "little") + data

    one, all_banks = (HashAlg.SHA256,), tuple(HashAlg)
    zero = event(0, 0, b"", one)
    count = tcglog.MAX_EVENTS - 1
    yield "smallest events", spec + zero * count
    yield "zero heads", spec + (bytes(8) + zero[8:]) * count
    yield "too many events", filled(zero, spec)
    yield "smallest events of five banks", filled(event(0, 0, b"", all_banks), five)
    yield "zero heads and zeros", filled(b"\0", spec + (bytes(8) + zero[8:]) * (count - 100))
    yield "zero heads and 0xFF", filled(b"\xff", spec + (bytes(8) + zero[8:]) * (count - 100))
    yield "old smallest events", bytes(32) + (bytes(8) + b"d" * 20 + bytes(4)) * count
    yield "old zeros", (b"\0\0\0\0\1\0\0\0" + bytes(24)) * count
    for name, kind, pcr, data in (
        ("variables", EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, 7, variables()[0]),
        ("key variables", EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, 7, variables()[1]),
        ("boot options", EventType.EV_EFI_VARIABLE_BOOT, 1, variables()[3]),
        ("authorities", EventType.EV_EFI_VARIABLE_AUTHORITY, 7, variables()[4]),
        ("sbat levels", EventType.EV_EFI_VARIABLE_AUTHORITY, 7, variables()[5]),
        ("separators", EventType.EV_SEPARATOR, 7, bytes(4)),
        ("tables", EventType.EV_EFI_GPT_EVENT, 5, partition_table().event_data()),
        ("images", EventType.EV_EFI_BOOT_SERVICES_APPLICATION, 4, image_load()),
        ("sections", EventType.EV_IPL, 11, b".linux\0"),
        ("lines", EventType.EV_IPL, 8, b"grub_cmd: set a=b\0"),
        ("command lines", EventType.EV_IPL, 12, "quiet\0".encode("utf-16-le")),
        ("phases", EventType.EV_IPL, 11, b"enter-initrd"),
        ("tags", EventType.EV_EVENT_TAG, 9, bytes.fromhex("ec223b8f0400000061626364")),
        ("localities", EventType.EV_NO_ACTION, 0, tcglog.STARTUP_LOCALITY + b"\3"),
    ):
        for banks, head in ((one, spec), (all_banks, five)):
            piece = event(pcr, kind, data, banks)
            fits = min(count, (LIMIT_INPUT - len(head)) // len(piece))
            yield f"{name}, {len(banks)} banks", head + piece * fits
    for what, content in _signature_lists():
        database = efi.VariableData(efi.IMAGE_SECURITY_DATABASE, "db", content[:900_000]).encode()
        yield (
            f"db of {what}",
            spec + event(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, database, one),
        )
    option = efi.VariableData(efi.EFI_GLOBAL_VARIABLE, "BootOrder", bytes(900_000)).encode()
    yield "boot order", spec + event(1, EventType.EV_EFI_VARIABLE_BOOT, option, one)
    for pattern in _PATTERNS:
        for pcr, kind in ((8, EventType.EV_IPL), (12, EventType.EV_IPL), (7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG), (0, EventType.EV_S_CRTM_VERSION), (4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION), (9, EventType.EV_EVENT_TAG)):  # fmt: skip
            long = event(pcr, kind, filled(pattern)[:900_000], one)
            yield f"{pattern!r} as one event of {kind.name}", spec + long


def _notes() -> Iterator[tuple[str, bytes]]:
    line = "— ".encode() + b"n" * 9800 + b" YWJjZGVm\n"
    yield "long names", b"t\n\n" + line * 100
    yield "one long name", filled(b"n", b"t\n\n" + "— ".encode(), b" YWJjZGVm\n")
    yield "wide names", filled("\u4e00".encode(), b"t\n\n" + "— ".encode(), b" YWJjZGVm\n")
    yield "long signature", filled(b"YWJj", b"t\n\n" + "— n ".encode(), b"\n")
    yield "gaps", filled(b"t\n\n", b"", "— n YWJjZGVm\n".encode())
    yield "too many signatures", filled("— n YWJjZGVm\n".encode(), b"t\n\n")
    yield "lines", filled(b"t\n", b"", "\n— n YWJjZGVm\n".encode())


def _checkpoints() -> Iterator[tuple[str, bytes]]:
    head = b"o\n1\n" + b"A" * 43 + b"=\n"
    yield "extensions", filled(b"e\n", head)
    yield "digits", filled(b"9", b"o\n")
    yield "root", filled(b"A", b"o\n1\n", b"\n")


# Launches ---------------------------------------------------------------------------------


def _launches() -> Iterator[tuple[str, bytes]]:
    """A good configuration with one list or map blown up."""
    good = json.loads(runtime_config())
    storage = "/" + "a" * 3000 + "-containers/" + "0f" * 32 + "/userdata/hosts"
    bind = {"destination": "/etc/hosts", "type": "bind", "source": storage, "options": ["bind"]}
    elements = {
        "mounts": ("mounts", {"destination": "/proc", "type": "proc"}),
        "bind mounts": ("mounts", bind),
        "long values": ("process.env", "HOSTNAME=" + "a" * 30_000),
        "short values": ("process.env", "TERM=x"),
        "arguments": ("process.args", "a"),
        "groups": ("process.user.additionalGids", 1),
        "device rules": ("linux.resources.devices", {"allow": False}),
        "masked paths": ("linux.maskedPaths", "/proc/x"),
        "namespaces": ("linux.namespaces", {"type": "pid"}),
        "system calls": ("linux.seccomp", {"action": "SCMP_ACT_ALLOW"}),
    }
    for what, (path, element) in elements.items():
        config = json.loads(json.dumps(good))
        place, (*way, last) = config, path.split(".")
        for word in way:
            place = place[word]
        place[last] = ["@", *place.get(last, [])] if last != "seccomp" else filter_of("@")
        head, tail = json.dumps(config).encode().split(b'"@"', 1)
        piece = json.dumps(element).encode()
        yield what, filled(piece + b",", head, piece + tail)
    head, tail = json.dumps({**good, "annotations": {"@": ""}}).encode().split(b'"@": ""')
    inner = b",".join(b'"%06d":""' % number for number in range(70_000))
    yield "annotations", head + inner + tail


def filter_of(element: object) -> dict[str, object]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [element]}


# Layers ------------------------------------------------------------------------------------


def _layer_tars() -> Iterator[tuple[str, bytes]]:
    entry = tar({"a/b": file()})[:512]
    deep = tar({"d/" * 1000 + "f": file()})[:-1024]
    records = b"".join(b"%07d k%05d=v\n" % (18, n) for n in range(50_000))
    yield "smallest entries", filled(entry)
    yield "deep paths", filled(deep)
    yield (
        "numbered deep paths",
        b"".join(
            tar({f"{n}/" + "d/" * 900 + "f": file()}).rstrip(b"\0").ljust(3072, b"\0")
            for n in range(300)
        ),
    )
    yield "records", tar({"x": file(records)}).replace(b"\x000\x00", b"\x00x\x00", 1)[:LIMIT_INPUT]


def _packed_layers() -> Iterator[tuple[str, bytes]]:
    yield "smallest members", filled(gzip.compress(b"", mtime=0))
    yield "zeros", gzip.compress(bytes(15 << 20), mtime=0)
    yield "too many zeros", gzip.compress(bytes(100 << 20), 1, mtime=0)
    yield "zeros in bzip2", bz2.compress(bytes(15 << 20))
    yield "zeros in xz", lzma.compress(bytes(15 << 20))


def _listings() -> Iterator[tuple[str, bytes]]:
    yield "smallest entries", filled(encode({b"": IMPLIED}))


# Signatures --------------------------------------------------------------------------------


def _der(tag: int, content: bytes) -> bytes:
    """One element, its length in the one form that DER allows."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER element, up to the padding."""
    at = 0
    while any(content[at : at + 2]):
        tag, size, start = content[at], content[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(content[at + 2 : start], "big")
        yield tag, content[start : start + size]
        at = start + size


def _blown(content: bytes, old: bytes, new: bytes) -> bytes:
    """DER with every element whose content is ``old`` changed to ``new``, lengths mended."""
    return b"".join(
        _der(tag, _blown(inner, old, new) if tag & 0x20 else new if inner == old else inner)
        for tag, inner in _elements(content)
    )


_SIGNED_NAMES = {
    "content type": "2a864886f70d010702",
    "hash": "608648016503040201",
    "content": "2b060104018237020104",
    "attribute": "2a864886f70d010904",
    "signature algorithm": "2a864886f70d010101",
    "serial number": "01",
}


def _signatures() -> Iterator[tuple[str, bytes]]:
    good = image_signature()
    yield "nested sequences", filled(b"\x30\x80")
    for what, old in _SIGNED_NAMES.items():
        for size in (10_000, 200_000):
            for number in (
                b"\x2a" + b"\x81" * size + b"\1",
                b"\x2a" + b"\1" * size,
                b"\x7f" * size,
            ):
                blown = _blown(good, bytes.fromhex(old), number)
                yield f"{what} of {size} bytes, {number[-2]}", blown[:LIMIT_INPUT]


# Signatures of images ----------------------------------------------------------------------


def _cbor() -> Iterator[tuple[str, bytes]]:
    yield "most items", cbor.encode((0,) * cbor.MAX_ITEMS)
    yield "most keys", cbor.encode({f"{n:0230}": n for n in range(cbor.MAX_ITEMS // 2)})
    yield "longest text", cbor.encode("ß" * (LIMIT_INPUT // 2 - 8))
    yield "tags", filled(b"\xc1")
    yield "nested arrays", filled(b"\x81")
    yield "headers in headers", cbor.encode(Tag(18, (b"\xa0" * 999_000, {}, b"", b"")))


def _jws() -> Iterator[tuple[str, bytes]]:
    for name in ("payload", "protected", "signature"):
        document = b'{"payload":"","protected":"","signature":"","header":{}}'
        yield f"longest {name}", _longest(document, name)
    yield "headers", _keys('{"payload":"","protected":"","signature":"","header":', "}", {"a": 1})


def _longest(document: bytes, name: str) -> bytes:
    before, behind = document.split(f'"{name}":"'.encode())
    return filled(b"AAAA", before + f'"{name}":"'.encode(), behind)


def _packets() -> Iterator[tuple[str, bytes]]:
    yield "most packets", packet(2, bytes(900)) * openpgp.MAX_PACKETS
    yield "most chunks", b"\xcb" + (b"\xe7" + bytes(128)) * openpgp.MAX_CHUNKS
    yield "smallest packets", filled(b"\xc2\0")
    bomb = zlib.compress(bytes(64 * 1024 * 1024))
    yield "zlib bombs", packet(openpgp.COMPRESSED, b"\2" + bomb) * 4
    yield "bzip2 bombs", packet(openpgp.COMPRESSED, b"\3" + bz2.compress(bytes(1 << 26))) * 1000


def _armored() -> Iterator[tuple[str, bytes]]:
    head, tail = b"-----BEGIN PGP SIGNATURE-----\n\n", b"\n-----END PGP SIGNATURE-----"
    yield "one line", filled(b"AAAA", head, tail)
    yield "shortest lines", filled(b"AAAA\n", head, tail)
    yield "headers", filled(b"a: b\n", head[:-1], b"\n" + tail)
    yield "empty lines", filled(b"\n", head, tail)


def _acis() -> Iterator[tuple[str, bytes]]:
    entries = tar_entry("rootfs/bin/app")[0].tobuf() * (aci.SMALL // 512 - 64)
    good = small_aci()
    content = good.rstrip(b"\0")
    at = len(content) + -len(content) % 512
    yield "most entries", COMPRESSIONS["gzip"](good[:at] + entries + bytes(1024))
    large = small_aci(tar_entry("rootfs/zeros", bytes(aci.SMALL - 20 * 1024)))
    for name in ("gzip", "bzip2", "xz"):
        yield f"one large file in {name}", COMPRESSIONS[name](large)
        yield f"{name} bomb", COMPRESSIONS[name](bytes(2 * aci.SMALL))
    yield "long names", small_aci(*(tar_entry(f"rootfs/{'d/' * 4000}{n}") for n in range(100)))
    yield "large manifest", small_aci(manifest=ACI_MANIFEST | {"x": "x" * 500_000})


def _aci_manifests() -> Iterator[tuple[str, bytes]]:
    yield from _documents(ACI_MANIFEST)


def _trust_policies() -> Iterator[tuple[str, bytes]]:
    yield from _documents(TRUST_POLICY)


def _images_policies() -> Iterator[tuple[str, bytes]]:
    yield from _documents(IMAGES_POLICY)
    scopes = IMAGES_POLICY["transports"]["docker"]["registry.example/team"]
    many = {f"registry.example/{n:05}": scopes for n in range(4000)}
    document = IMAGES_POLICY | {"transports": {"docker": many}}
    yield "many scopes", json.dumps(document, separators=(",", ":")).encode()[:LIMIT_INPUT]
    deep = {"/".join(["a"] * n): scopes for n in range(1, 600)}
    document = IMAGES_POLICY | {"transports": {"docker": deep}}
    yield "deep scopes", json.dumps(document, separators=(",", ":")).encode()


def _certificates() -> Iterator[tuple[str, bytes]]:
    yield "sequences", filled(b"\x30\0")
    yield "a nested one", filled(b"\x30\x80")
    one = certificate()
    yield "good ones", filled(one)


_BY_NAME = {
    "layertar.parse": _layer_tars,
    "rootfs.layer": _layer_tars,
    "rootfs.packing": _packed_layers,
    "rootfs.tree": _listings,
    "aci.parse": _acis,
    "aci.parse_manifest": _aci_manifests,
    "cbor.parse": _cbor,
    "cose.parse": _cbor,
    "jws.parse": _jws,
    "notation.parse_trust_policy": _trust_policies,
    "openpgp.dearmor": _armored,
    "openpgp.parse": _packets,
    "signature.certificates": _certificates,
    "signature.images_policy": _images_policies,
    "signature.notation_cose": _cbor,
    "signature.notation_jws": _jws,
    "cel.parse_json": _cel_json,
    "cel.parse_tlv": _cel_tlv,
    "cel.complete_tlv": _cel_tlv,
    "containerlog.parse": _container_events,
    "record.read_record": _container_records,
    "efi.parse_signature_lists": _signature_lists,
    "efi.holds_signature_lists": _signature_lists,
    "measure.signers": _signature_lists,
    "efi.device_path_text": _device_paths,
    "gpt.parse_event": _gpt_event,
    "ima.parse": _ima,
    "ima.entries": _ima,
    "ima.measurements": _ima,
    "ima_ascii.parse": _ima_ascii,
    "note.parse": _notes,
    "note.parse_checkpoint": _checkpoints,
    "pe.parse": _pe,
    "runtime.parse_config": _launches,
    "launch.check_create": _launches,
    "tcglog.parse": _logs,
    "measure.story": _logs,
    "measure.facts": _logs,
    "measure.logfile": _logs,
    "osimage.authenticode": _signatures,
}
