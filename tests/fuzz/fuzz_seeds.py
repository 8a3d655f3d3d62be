"""Where fuzzing starts: small well-formed inputs made here, and the corpus if it is there."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tpm2_vectors import (
    AK_NAME,
    AK_PUBLIC_2B,
    EK_PUBLIC_2B,
    PSS_PUBLIC_2B,
    PSS_QUOTE,
    PSS_SIGNATURE,
    QUOTE,
    QUOTE_SIGNATURE,
    TIME,
)
from tpm2nv_vectors import CERTIFIED

import small_audit
import small_signatures
from catena.audit import tiles
from catena.containers.launch.document import default_policy
from catena.containers.rootfs.layer import layer_tree
from catena.containers.rootfs.tree import encode
from catena.errors import FormatError
from catena.formats import (
    addcheckpoint,
    containerlog,
    dsse,
    efi,
    gpt,
    layertar,
    nodeapi,
    note,
    oci,
    openpgp,
    pe,
    sigstore,
    simplesigning,
    tlogproof,
    tpm2,
    varstore,
)
from catena.formats.cosignature import Cosignature
from catena.formats.jws import encode_base64url
from catena.formats.tcglog import SPEC_ID_03, STARTUP_LOCALITY, EventType
from catena.formats.verifierkey import VerifierKey
from catena.ids import HashAlg
from catena.keys.signer import PrivateKeySigner
from catena.osimage import authenticode
from signature_vectors import (
    NOTATION_COSE,
    NOTATION_JWS,
    NOTATION_ROOT,
    OPENPGP_MESSAGE,
    OPENPGP_SIGNATURE,
)
from small_images import small_pe
from small_logs import CEL_JSON, CEL_TLV, IMA_BINARY, IMA_TEXT
from small_records import record_of, story
from small_tars import device, fifo, file, folder, hard_link, link, tar, whiteout

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
MAX_SEED = 64 * 1024
_IMAGE = small_pe()
_OWNER = uuid.UUID(int=0x1234)
_TEXTS = ("sha256", "0f" * 32, "1f")
_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_CONSTANTS: dict[type, object] = {
    msgspec.inspect.BoolType: True,
    msgspec.inspect.DateTimeType: "2026-01-02T03:04:05Z",
}


def example(kind: type) -> bytes:
    """A JSON document of a struct, made from its declaration: every field, one of each."""
    return json.dumps(_example(msgspec.inspect.type_info(kind)), separators=(",", ":")).encode()


def _example(info: msgspec.inspect.Type) -> object:
    match info:
        case msgspec.inspect.StructType(fields=fields):
            return {
                field.encode_name: (
                    field.default if isinstance(field.default, str) else _example(field.type)
                )
                for field in fields
            }
        case msgspec.inspect.StrType(pattern=pattern):
            return next(text for text in _TEXTS if re.search(pattern or "", text))
        case msgspec.inspect.BytesType(min_length=size):
            return base64.b64encode(bytes(size or 4)).decode()
        case msgspec.inspect.IntType(ge=least):
            return least or 1
        case msgspec.inspect.VarTupleType(item_type=item, min_length=size):
            return [_example(item)] * (size or 1)
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {str(_example(key)): _example(value)}
        case msgspec.inspect.UnionType(types=types):
            return _example(types[0])
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case _:
            return _CONSTANTS.get(type(info), {})


# Firmware ----------------------------------------------------------------------------------


def device_path() -> bytes:
    """PciRoot, Pci, hard disk, file, end."""
    file = "\\EFI\\BOOT\\BOOTX64.EFI\0".encode("utf-16-le")
    nodes = (
        (2, 1, bytes.fromhex("d041030a00000000")),
        (1, 1, b"\0\2"),
        (3, 18, bytes(6)),
        (4, 1, bytes(38)),
        (4, 4, file),
        (0x7F, 0xFF, b""),
    )
    return b"".join(
        bytes((kind, subtype)) + (4 + len(body)).to_bytes(2, "little") + body
        for kind, subtype, body in nodes
    )


def signature_lists() -> bytes:
    """A certificate's list and a list of hashes."""
    entries = tuple(efi.SignatureEntry(_OWNER, bytes((n,)) * 32) for n in range(3))
    return efi.encode_signature_lists(
        (
            efi.SignatureList(efi.EFI_CERT_SHA256, entries),
            efi.SignatureList(efi.EFI_CERT_X509, (efi.SignatureEntry(_OWNER, certificate()),)),
        )
    )


def variables() -> tuple[bytes, ...]:
    """Variables as PCR 1 and 7 measure them."""
    contents = {
        (efi.EFI_GLOBAL_VARIABLE, "SecureBoot"): b"\1",
        (efi.EFI_GLOBAL_VARIABLE, "PK"): signature_lists(),
        (efi.EFI_GLOBAL_VARIABLE, "BootOrder"): b"\0\0\1\0",
        (efi.EFI_GLOBAL_VARIABLE, "Boot0001"): load_option(),
        (efi.IMAGE_SECURITY_DATABASE, "db"): efi.SignatureEntry(_OWNER, certificate()).encode(),
        (efi.SHIM_LOCK, "SbatLevel"): b"sbat,1,2022052400\n",
    }
    return tuple(efi.VariableData(*key, value).encode() for key, value in contents.items())


def load_option() -> bytes:
    """EFI_LOAD_OPTION of a disk."""
    path = device_path()
    return b"\1\0\0\0" + len(path).to_bytes(2, "little") + "Linux\0".encode("utf-16-le") + path


def image_load() -> bytes:
    """EFI_IMAGE_LOAD_EVENT of a file on a disk."""
    path = device_path()
    return bytes(24) + len(path).to_bytes(8, "little") + path


def partition_table() -> gpt.PartitionTable:
    """Two partitions on a small disk."""
    kind = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    partitions = (
        gpt.Partition(kind, uuid.UUID(int=1), 2048, 4095, 0, "esp"),
        gpt.Partition(kind, uuid.UUID(int=2), 4096, 8191, 1 << 60, "root"),
    )
    return gpt.PartitionTable(uuid.UUID(int=3), 65536, partitions)


def variable_store() -> bytes:
    """A flash volume with two variables, one of them about to be deleted."""
    records = b"".join(
        _stored(state, name, content)
        for state, name, content in (
            (0x3F, "PK", signature_lists()),
            (0x3E, "Boot0001", load_option()),
        )
    )
    body = records + b"\xff" * 256
    store = varstore.AUTHENTICATED.bytes_le + _u32(28 + len(body)) + b"\x5a\xfe" + bytes(6) + body
    size = (72 + len(store)).to_bytes(8, "little")
    head = bytes(16) + varstore.NV_DATA.bytes_le + size + b"_FVH" + bytes(4) + _u16(72)
    return head.ljust(72, b"\0") + store


def _stored(state: int, name: str, content: bytes) -> bytes:
    wide = f"{name}\0".encode("utf-16-le")
    head = b"\xaa\x55" + bytes((state, 0)) + _u32(7) + bytes(28)
    record = head + _u32(len(wide)) + _u32(len(content)) + efi.EFI_GLOBAL_VARIABLE.bytes_le
    record += wide + content
    return record + b"\xff" * (-len(record) % 4)


def firmware_log(banks: tuple[HashAlg, ...] = (HashAlg.SHA1, HashAlg.SHA256)) -> bytes:
    """A crypto-agile log with an event of every kind that catena tells apart."""
    algorithms = b"".join(_u16(one.tpm_id) + _u16(one.size) for one in banks)
    spec = SPEC_ID_03 + bytes(4) + b"\0\2\0\2" + _u32(len(banks)) + algorithms + b"\0"
    log = _u32(0) + _u32(EventType.EV_NO_ACTION) + bytes(20) + _u32(len(spec)) + spec
    return log + b"".join(_agile_event(banks, *one) for one in _events())


def old_log() -> bytes:
    """The same events as a log of TPM 1.2 times."""
    return b"".join(
        _u32(pcr) + _u32(kind) + HashAlg.SHA1.digest(data) + _u32(len(data)) + data
        for pcr, kind, data in _events()
    )


def _events() -> Iterator[tuple[int, int, bytes]]:
    kinds = EventType
    yield 0, kinds.EV_NO_ACTION, STARTUP_LOCALITY + b"\3"
    yield 0, kinds.EV_S_CRTM_VERSION, "1.0\0".encode("utf-16-le")
    for variable in variables():
        yield 7, kinds.EV_EFI_VARIABLE_DRIVER_CONFIG, variable
    for pcr in range(8):
        yield pcr, kinds.EV_SEPARATOR, bytes(4)
    yield 7, kinds.EV_EFI_VARIABLE_AUTHORITY, variables()[-2]
    yield 5, kinds.EV_EFI_GPT_EVENT, partition_table().event_data()
    yield 4, kinds.EV_EFI_BOOT_SERVICES_APPLICATION, image_load()
    yield 4, kinds.EV_EFI_ACTION, b"Calling EFI Application from Boot Option"
    for name in (b".linux\0", b".cmdline\0"):
        yield 11, kinds.EV_IPL, name
        yield 11, kinds.EV_IPL, b"content"
    yield 12, kinds.EV_IPL, "quiet\0".encode("utf-16-le")
    yield 8, kinds.EV_IPL, b"kernel_cmdline: quiet\0"
    yield 14, kinds.EV_IPL, b"MokList\0"
    yield 9, kinds.EV_EVENT_TAG, _u32(0x8F3B22ED) + _u32(4) + b"abcd"


def _agile_event(banks: tuple[HashAlg, ...], pcr: int, kind: int, data: bytes) -> bytes:
    digests = b"".join(_u16(bank.tpm_id) + bank.digest(data) for bank in banks)
    return _u32(pcr) + _u32(kind) + _u32(len(banks)) + digests + _u32(len(data)) + data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


# Signatures --------------------------------------------------------------------------------


@cache
def _db() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db")])
    return key, (
        x509.CertificateBuilder(name, name, key.public_key(), 1, _NOW, _NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip


def db_certificate() -> x509.Certificate:
    """The certificate of the key that ``image_signature`` is made with."""
    return _db()[1]


def certificate() -> bytes:
    """A certificate in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return db_certificate().public_bytes(Encoding.DER)


TPM_NAMES = bytes.fromhex(
    "3044a4423040313e3014060567810502010c0b69643a344535343433303030100605678105020"
    "20c074e504354373578301406056781050203130b69643a3030303730303032"
)
"""GeneralNames of a Nuvoton TPM: id:4E544300, NPCT75x, id:00070002, in one SET."""

PEM_BLOCK = b"text\n-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"


@cache
def ek_certificate() -> bytes:
    """An EK certificate with the TPM's attributes; its key is of the wrong kind for a TPM."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    key, own = _db()
    names = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), TPM_NAMES)
    usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")])
    built = (
        x509.CertificateBuilder(
            subject_name=x509.Name([]),
            issuer_name=own.subject,
            public_key=key.public_key(),
            serial_number=7,
            not_valid_before=_NOW,
            not_valid_after=_NOW + timedelta(days=1),
        )
        .add_extension(names, critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.DER)


@cache
def revocation_list() -> bytes:
    """A list with one certificate on it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    key, own = _db()
    entry = x509.RevokedCertificateBuilder(7, _NOW, []).build()
    builder = x509.CertificateRevocationListBuilder(own.subject, _NOW, _NOW + timedelta(days=1))
    signed = builder.add_revoked_certificate(entry).sign(key, hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


@cache
def image_signature() -> bytes:
    """The PKCS#7 of an Authenticode signature on the image of ``signature_on_image``."""
    key, own = _db()
    signed = pe.parse(authenticode.sign(_IMAGE, PrivateKeySigner(key), own))
    return signed.certificates()[0].content


def signature_on_image(signature: bytes) -> bytes:
    """A small image that carries ``signature``."""
    table = authenticode._win_certificate(signature)
    return authenticode._with_table(_IMAGE, pe.parse(_IMAGE), table)


def checkpoint() -> note.Checkpoint:
    """A checkpoint with an extension."""
    return note.Checkpoint("example.org/log", 42, bytes(32), ("extension",))


def signed_note() -> bytes:
    """A checkpoint with two signatures, good in shape."""
    return note.Note(checkpoint().encode(), note_signatures()).encode().encode()


def note_signatures() -> tuple[note.NoteSignature, ...]:
    """Two signatures, good in shape."""
    names = ("example.org/log", "witness")
    return tuple(note.NoteSignature(name, b"abcd", bytes(64)) for name in names)


def add_checkpoint() -> bytes:
    """A request to a witness, good in shape."""
    signed = note.Note(checkpoint().encode(), note_signatures())
    return addcheckpoint.AddCheckpoint(40, (bytes(32),) * 2, signed, checkpoint()).encode()


# PCR policies ------------------------------------------------------------------------------

PCR_POLICY = (
    b'{"4": {"rawvalues": [{"value": "' + b"ab" * 32 + b'"}]},'
    b' "8": {"asciivalues": [{"prefix": "grub_cmd", "values": [{"value": "set [a-z]+=.{1,9}"}]}]}}'
)


def packed_policy() -> bytes:
    """The policy in a zip, as images brought it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("grub_commands.config"), PCR_POLICY)
    return target.getvalue()


# Layers ------------------------------------------------------------------------------------


@cache
def layer() -> bytes:
    """A layer with an entry of every kind."""
    return tar(
        {
            "etc/": folder(),
            "etc/motd": file(b"hello", xattrs={"security.capability": b"\1\0\0\2"}),
            "etc/same": hard_link("etc/motd"),
            "bin/sh": link("busybox"),
            "dev/null": device(1, 3),
            "run/pipe": fifo(),
            "opt/.wh..wh..opq": whiteout(),
            ".wh.gone": whiteout(),
            "n" * 120: file(),
        }
    )


def packed_layers() -> tuple[bytes, ...]:
    """The layer as registries and ACIs carry it."""
    return (
        gzip.compress(layer(), mtime=0) + gzip.compress(b"", mtime=0),
        bz2.compress(layer()),
        lzma.compress(layer()),
    )


def layer_listing() -> bytes:
    """The canonical listing of the layer."""
    return encode(layer_tree(layertar.parse(layer())))


# Signatures of images ----------------------------------------------------------------------


def _signature_seeds() -> dict[str, tuple[bytes, ...]]:
    armored = openpgp.armor(small_signatures.OPENPGP, openpgp.SIGNATURE_ARMOR).encode()
    text = msgspec.json.encode
    return {
        "cbor.parse": (small_signatures.CBOR,),
        "cose.parse": (small_signatures.COSE.encode(),),
        "jws.parse": (small_signatures.JWS.encode(),),
        "jws.decode_base64url": (b"YQ", b"_-_-"),
        "jws.encode_base64url": (b"content",),
        "notation.parse_payload": (small_signatures.PAYLOAD,),
        "notation.parse_trust_policy": (text(small_signatures.TRUST_POLICY),),
        "openpgp.parse": (small_signatures.OPENPGP, *small_signatures.COMPRESSED_PACKETS.values()),
        "openpgp.dearmor": (armored, small_signatures.OPENPGP),
        "openpgp.armor": (small_signatures.OPENPGP,),
        "aci.parse": tuple(
            one(small_signatures.aci()) for one in small_signatures.COMPRESSIONS.values()
        ),
        "aci.parse_manifest": (text(small_signatures.ACI_MANIFEST),),
        "signature.notation_jws": (NOTATION_JWS,),
        "signature.notation_cose": (NOTATION_COSE,),
        "signature.detached": (OPENPGP_SIGNATURE,),
        "signature.inline": (OPENPGP_MESSAGE,),
        "signature.simple": (small_signatures.STATEMENT,),
        "signature.images_policy": (text(small_signatures.IMAGES_POLICY),),
        "certificate.issuer_and_serial": (certificate(),),
        "signature.certificates": (certificate(), NOTATION_ROOT),
    }


# Logs --------------------------------------------------------------------------------------


def _audit_seeds() -> dict[str, tuple[bytes, ...]]:
    payloads = tuple(dsse.parse(leaf).payload for leaf in small_audit.LEAVES)
    return {
        "audit.checkpoint.verify": (small_audit.CHECKPOINT.encode(),),
        "audit.cosigned.verify_cosigned": (small_audit.cosigned_checkpoint(),),
        "audit.cosigned.parse_witness": (small_audit.WITNESS_KEY.encode(),),
        "audit.leaf.open_entry": small_audit.LEAVES,
        "audit.leaf.signed": payloads,
        "audit.people.open_people": (b"[]", msgspec.json.encode(small_audit.PEOPLE)),
        "audit.receipt.verify_proof": tuple(one.encode().encode() for one in small_audit.PROOFS),
        "audit.report.verify_report": (small_audit.REPORT,),
        "audit.report.signed": (msgspec.json.encode(small_audit.BODY),),
        "audit.tiles.parse_bundle": (tiles.encode_bundle(small_audit.LEAVES),),
        "audit.tiles.parse_path": (b"tile/0/x001/000.p/7", b"tile/entries/001"),
    }


# Everything, by the name of the probe ------------------------------------------------------


# Images ------------------------------------------------------------------------------------

SIMPLE_SIGNING = simplesigning.encode(
    oci.digest_of(b""), "registry.example.com/a/b:1", {"version": "1"}
)


def image_manifest() -> bytes:
    """An artifact that refers to an image."""
    content = oci.Descriptor(
        media_type=oci.IMAGE_CONFIG, digest=oci.digest_of(b"{}"), size=2, annotations={"a": "b"}
    )
    return oci.Manifest(
        schema_version=2,
        media_type=oci.IMAGE_MANIFEST,
        artifact_type="x/y",
        config=content,
        layers=(content, content),
        subject=content,
        annotations={"c": "d"},
    ).encode()


def image_index() -> bytes:
    """Two platforms."""
    entries = tuple(
        oci.Descriptor(
            media_type=oci.IMAGE_MANIFEST,
            digest=oci.digest_of(architecture.encode()),
            size=2,
            platform=oci.Platform(architecture=architecture, os="linux"),
        )
        for architecture in ("amd64", "arm64")
    )
    return oci.Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=entries).encode()


def log_entries() -> tuple[bytes, ...]:
    """The kinds of entries that are read."""
    digest = {"algorithm": "sha256", "value": "0" * 64}
    signature = {"content": b"sig", "publicKey": {"content": b"PEM"}}
    specs = {
        "hashedrekord": {"data": {"hash": digest}, "signature": signature},
        "dsse": {
            "envelopeHash": digest,
            "payloadHash": digest,
            "signatures": [{"signature": b"sig", "verifier": b"PEM"}],
        },
    }
    return tuple(
        msgspec.json.encode({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        for kind, spec in specs.items()
    )


def log_annotation() -> bytes:
    """A promise as cosign's older signatures carry it."""
    body = base64.b64encode(log_entries()[0]).decode()
    payload = {"body": body, "integratedTime": 1, "logIndex": 2, "logID": "0" * 64}
    return msgspec.json.encode({"SignedEntryTimestamp": b"sig", "Payload": payload})


def sigstore_bundles() -> tuple[bytes, ...]:
    """A key's statement, and a certificate's bare signature that a log has seen."""
    statement = sigstore.encode(sigstore.statement("0" * 64, {}), b"sig", "hint")
    entry = {
        "logIndex": "1",
        "logId": {"keyId": b"log"},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": "2",
        "inclusionPromise": {"signedEntryTimestamp": b"sig"},
        "inclusionProof": {"logIndex": "1"},
        "canonicalizedBody": log_entries()[1],
    }
    material = {
        "x509CertificateChain": {"certificates": [{"rawBytes": b"DER"}]},
        "tlogEntries": [entry],
        "timestampVerificationData": {},
    }
    message = {
        "messageDigest": {"algorithm": "SHA2_256", "digest": bytes(32)},
        "signature": b"sig",
    }
    bare = {
        "mediaType": sigstore.BUNDLE_TYPE,
        "verificationMaterial": material,
        "messageSignature": message,
    }
    return statement, msgspec.json.encode(bare)


JWT = ".".join(
    encode_base64url(part)
    for part in (
        b'{"alg":"ES256","kid":"1"}',
        b'{"iss":"https://id.example","aud":["a","b"],"exp":1800000000,"groups":["ops"]}',
        bytes(64),
    )
).encode()


def made_seeds(name: str, kinds: Iterable[type] = ()) -> tuple[bytes, ...]:
    """Well-formed inputs of a probe. ``kinds`` are the structs that it reads."""
    logs = (firmware_log(), firmware_log((HashAlg.SHA256,)), old_log())
    table = partition_table()
    seeds: dict[str, tuple[bytes, ...]] = {
        "cel.parse_json": (CEL_JSON,),
        "cel.parse_tlv": (CEL_TLV,),
        "cel.tlv_records": (CEL_TLV,),
        "cel.complete_tlv": (CEL_TLV, record_of(*story())),
        "cel.record_end": (CEL_TLV,),
        "cel.cut_content": (CEL_TLV, CEL_TLV[:-3]),
        "containerlog.parse": tuple(map(containerlog.encode, story())),
        "containerlog.parse_record": tuple(map(containerlog.encode, story())),
        "record.read_record": (record_of(*story()),),
        "efi.parse_variable": variables(),
        "efi.parse_signature_entry": (efi.SignatureEntry(_OWNER, b"hash").encode(),),
        "efi.parse_signature_lists": (signature_lists(),),
        "efi.holds_signature_lists": (signature_lists(),),
        "efi.parse_image_load": (image_load(),),
        "efi.parse_load_option": (load_option(),),
        "efi.boot_variable_text": (load_option(), b"\0\1"),
        "efi.device_path_text": (device_path(),),
        "gpt.parse": (table.encode_start(),),
        "gpt.parse_event": (table.event_data(),),
        "gpt.measured_data": (table.encode_start(),),
        "layertar.parse": (layer(),),
        "rootfs.layer": (layer(),),
        "rootfs.packing": packed_layers(),
        "rootfs.tree": (layer_listing(),),
        "varstore.parse": (variable_store(),),
        "ima.parse": (IMA_BINARY,),
        "ima.measurements": (IMA_BINARY,),
        "ima.entries": (IMA_BINARY,),
        "ima_ascii.parse": (IMA_TEXT,),
        "inventory.parse": (
            b"name,role,ek_sha256\na,web," + b"ab" * 32 + b"\n",
            b'[{"name":"a","role":"web","ek_serial":"4f2a","ek_issuer":"CN=Acme"}]',
        ),
        "jwt.parse": (JWT,),
        "jwt.encode": (JWT,),
        "jwk.parse": (
            b'{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AQ","kid":"1","use":"sig"}]}',
        ),
        "pkcs11uri.parse": (
            b"pkcs11:token=catena;object=ca?module-path=/usr/lib/p11.so&pin-source=file:/etc/pin",
        ),
        "webhook.parse_secret": (b"whsec_" + base64.b64encode(bytes(32)),),
        "ijson.decode": (b'{"name":["value",1,null]}',),
        "oci.parse_layout": (b'{"imageLayoutVersion":"1.0.0"}',),
        "oci.parse_manifest": (image_manifest(),),
        "oci.parse_index": (image_index(),),
        "oci.parse_document": (image_index(),),
        "oci.parse_digest": (oci.digest_of(b"").encode(),),
        "oci.parse_reference": (f"registry.example.com:5000/a/b:1@{oci.digest_of(b'')}".encode(),),
        "oci.digest_of": (b"content",),
        "simplesigning.parse": (SIMPLE_SIGNING,),
        "sigstore.parse": sigstore_bundles(),
        "sigstore.parse_statement": (sigstore.statement("0" * 64, {"version": "1"}),),
        "rekor.parse_annotation": (log_annotation(),),
        "rekor.parse_entry": log_entries(),
        "containers.x509": (certificate(),),
        "nodeapi.decode": (msgspec.json.encode(nodeapi.ErrorBody.of(404, "not-found", "no")),),
        "der.element": (ek_certificate(), b"\x05\x00"),
        "der.whole": (ek_certificate(),),
        "der.children": (ek_certificate(),),
        "der.departures": (ek_certificate(), bytes.fromhex("310602010202020001")),
        "der.dotted": (bytes.fromhex("6781050201"),),
        "distinguished.attributes": (db_certificate().subject.public_bytes(),),
        "ekattributes.read_ek_attributes": (TPM_NAMES,),
        "endorsements.split": (PEM_BLOCK, certificate()),
        "endorsements.pem": (certificate(),),
        "certificate.parse_certificate": (ek_certificate(), certificate()),
        "revocation.parse_revocation_list": (revocation_list(),),
        "authority.read_offered": (certificate(), revocation_list()),
        "note.parse": (signed_note(),),
        "note.parse_checkpoint": (checkpoint().encode().encode(),),
        "note.parse_signatures": (
            "".join(f"{one.encode()}\n" for one in note_signatures()).encode(),
        ),
        "note.parse_size": (b"0", b"42"),
        "note.parse_hash": (note.encode_base64(bytes(32)).encode(),),
        "note.decode_base64": (b"", b"AA==", b"AAA=", b"AAAA"),
        "note.encode_base64": (b"any bytes",),
        "verifierkey.parse": tuple(
            VerifierKey("example.org/w", kind, bytes(32)).encode().encode()
            for kind in (note.ED25519, note.COSIGNATURE)
        ),
        "cosignature.parse": (Cosignature(1679315147, bytes(64)).encode(),),
        "addcheckpoint.parse": (add_checkpoint(),),
        "otlp.rejected": (b"{}", b'{"partialSuccess":{"rejectedLogRecords":"3"}}'),
        "tlogproof.parse": tuple(
            tlogproof.TlogProof(41, (bytes(32),) * 2, "log\n", extra).encode().encode()
            for extra in (None, b"entry")
        ),
        "addcheckpoint.parse_size_answer": (b"0\n", b"42\n"),
        "pcrpolicy.parse": (PCR_POLICY, packed_policy()),
        "pcrpolicy.is_pcr_policy": (PCR_POLICY, packed_policy()),
        "pe.parse": (_IMAGE, small_pe(wide=False), signature_on_image(image_signature())),
        "tcglog.parse": logs,
        "tpm2.parse_public": (AK_PUBLIC_2B[2:], EK_PUBLIC_2B[2:], PSS_PUBLIC_2B[2:]),
        "tpm2.parse_public_2b": (AK_PUBLIC_2B, EK_PUBLIC_2B),
        "tpm2.parse_attest": (QUOTE, PSS_QUOTE, TIME, CERTIFIED),
        "tpm2nv.parse_nv_certify_info": (tpm2.parse_attest(CERTIFIED).body,),
        "tpm2.parse_signature": (QUOTE_SIGNATURE, PSS_SIGNATURE),
        "tpm2.parse_pcr_selections": (tpm2.encode_pcr_selection(HashAlg.SHA256, range(16)),),
        "tpm2.primary_qualified_name": (AK_NAME,),
        "measure.story": logs,
        "measure.facts": logs,
        "measure.logfile": (*logs, IMA_BINARY, IMA_TEXT, CEL_JSON, CEL_TLV),
        "measure.signers": (signature_lists(), certificate()),
        "osimage.authenticode": (image_signature(),),
        "runtime.parse_config": _RUNTIME_CONFIGS,
        "runtime.parse_mount": (b"bind /a\\040b /c ro,rbind", b"proc proc /proc -"),
        "runtime.parse_process": (json.dumps(json.loads(_RUNTIME_CONFIGS[0])["process"]).encode(),),
        "imageconfig.parse": (IMAGE_CONFIG,),
        "launch.read_launch_policy": (msgspec.json.encode(default_policy()),),
        "unambiguous.read_once": (b'{"a":[{"b":null}]}',),
        "launch.check_create": _RUNTIME_CONFIGS,
        "launch.dry_run": (record_of(*story()),),
    }
    seeds |= _signature_seeds() | _audit_seeds()
    return (*seeds.get(name, ()), *map(example, kinds))


_RUNTIME_CONFIGS = tuple(
    (Path(__file__).parents[1] / "containers/launch_configs" / name).read_bytes()
    for name in ("podman-4.3.json", "runc-1.1.json")
)


def runtime_config() -> bytes:
    """What podman wrote for a container."""
    return _RUNTIME_CONFIGS[0]


IMAGE_CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "7", "Env": ["A=b"], "Cmd": ["/a"], "Volumes": {"/v": {}}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0f" * 32]},
    }
).encode()


_LOGS = ("eventlogs/*", "boots/*/eventlog.bin")
_ENVELOPES = "containers/notaryproject+notation-go/**"
_PLACES: dict[str, tuple[str, ...]] = {
    "aci.parse": ("containers/generated-aci/*.aci",),
    "aci.parse_manifest": ("containers/appc+spec/examples/*.json",),
    "cose.parse": ("containers/generated-notation/cose.sig", f"{_ENVELOPES}/cose*.sig"),
    "jws.parse": ("containers/generated-notation/jws.sig", f"{_ENVELOPES}/*sig_env*.json"),
    "openpgp.dearmor": ("containers/generated-aci/*.asc",),
    "openpgp.parse": (
        "containers/containers+image/**/*.gpg",
        "containers/containers+image/**/*.signature*",
    ),
    "signature.images_policy": ("containers/containers+image/**/policy.json",),
    "dsse.parse": ("tlog/**/*dsse*", "tlog/**/*envelope*"),
    "efi.parse_signature_lists": ("efi/*.esl", "efi/*siglist", "efi/*db", "efi/*kek", "efi/*pk"),
    "efi.boot_variable_text": ("efi/*Boot0*",),
    "ima.parse": ("ima/*binary*", "ima/*.bin"),
    "ima.measurements": ("ima/*.bin",),
    "ima_ascii.parse": ("ima/*ascii*", "ima/*log*"),
    "layertar.parse": ("containers/generated-aci/*.aci",),
    "measure.facts": ("boots/*/eventlog.bin",),
    "measure.logfile": ("eventlogs/*", "ima/*"),
    "measure.signers": ("efi/*.esl",),
    "measure.story": _LOGS,
    "oci.parse_manifest": (
        "containers/generated-*/*manifest.json",
        "containers/containers+image/**/*manifest*",
    ),
    "oci.parse_index": ("containers/generated-*/**/*index.json",),
    "simplesigning.parse": ("containers/generated-cosign/*payload.json",),
    "sigstore.parse": ("containers/**/*sigstore.json",),
    "rekor.parse_annotation": ("containers/containers+image/**/rekor-set",),
    "note.parse": ("tlog/**/*checkpoint*", "tlog/**/*note*"),
    "pe.parse": ("efi/*",),
    "runtime.parse_config": ("containers/opencontainers+runtime-spec/schema/test/config/*/*.json",),
    "rootfs.packing": ("containers/generated-aci/*.aci",),
    "tcglog.parse": _LOGS,
}


def corpus_seeds(name: str) -> Iterator[bytes]:
    """Real inputs of a probe, those that are small; none without the corpus."""
    for place in _PLACES.get(name, ()):
        for path in sorted(CORPUS.glob(place)):
            if path.is_file() and path.stat().st_size <= MAX_SEED:
                yield path.read_bytes()
    if name == "osimage.authenticode":
        yield from _corpus_signatures()


def _corpus_signatures() -> Iterator[bytes]:
    for path in sorted(CORPUS.glob("efi/*")):
        try:
            yield from (one.content for one in pe.parse(path.read_bytes()).certificates())
        except FormatError:
            continue
