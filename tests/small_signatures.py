"""Small well-formed inputs for the readers of image signatures."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zlib

from catena.formats import cbor, cose, openpgp
from catena.formats.cbor import Tag
from catena.formats.jws import JwsEnvelope, encode_base64url

CBOR_VALUE = {
    1: -38,
    2: ("io.cncf.notary.signingScheme", 24, 256, 65536, 2**32),
    "time": Tag(1, 1661321924),
    "list": (b"\x00\xff", "ß", True, False, None, (), {}),
}
CBOR = cbor.encode(CBOR_VALUE)
COSE = cose.CoseSign1(
    cbor.encode({cose.ALG: -7, cose.CRIT: ("scheme",), "scheme": "notary.x509"}),
    {cose.X5CHAIN: (b"leaf", b"root"), "agent": "catena"},
    b'{"targetArtifact":{}}',
    bytes(64),
)
JWS = JwsEnvelope(encode_base64url(b"payload"), encode_base64url(b'{"alg":"ES256"}'), encode_base64url(bytes(64)))  # fmt: skip
PAYLOAD = b'{"targetArtifact":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":349,"annotations":{"a":"b"}}}' % (b"ab" * 32)  # fmt: skip
TRUST_POLICY = {
    "version": "1.0",
    "trustPolicies": [
        {
            "name": "all",
            "registryScopes": ["*"],
            "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:example"],
            "trustedIdentities": ["x509.subject: C=US, ST=WA, O=Example"],
        }
    ],
}
STATEMENT = json.dumps(
    {
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": "sha256:" + "ab" * 32},
            "identity": {"docker-reference": "registry.example/team/app:1"},
        },
        "optional": {"creator": "test", "timestamp": 1},
    }
).encode()
IMAGES_POLICY = {
    "default": [{"type": "reject"}],
    "transports": {
        "docker": {
            "registry.example/team": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": "/keys/a.pub",
                    "signedIdentity": {
                        "type": "remapIdentity",
                        "prefix": "registry.example",
                        "signedPrefix": "vendor.example",
                    },
                }
            ]
        }
    },
}
ACI_MANIFEST = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/app",
    "labels": [{"name": "version", "value": "1.0.0"}, {"name": "os", "value": "linux"}],
}


def tar_entry(name, content=b"", kind=tarfile.REGTYPE, target=""):
    """An entry for ``tar``."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def tar(*entries, form=tarfile.GNU_FORMAT):
    """An archive of entries."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def aci_entries(manifest=ACI_MANIFEST):
    """What a small ACI consists of."""
    return (
        tar_entry("manifest", json.dumps(manifest).encode()),
        tar_entry("rootfs", kind=tarfile.DIRTYPE),
        tar_entry("rootfs/bin", kind=tarfile.DIRTYPE),
        tar_entry("rootfs/bin/app", b"#!/bin/sh\n"),
    )


def aci(*more, manifest=ACI_MANIFEST):
    """A small ACI, with ``more`` entries."""
    return tar(*aci_entries(manifest), *more)


COMPRESSIONS = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def packet(tag, body):
    """An OpenPGP packet with a new header."""
    size = len(body)
    if size < 192:
        head = bytes((size,))
    elif size < 8384:
        head = bytes((((size - 192) >> 8) + 192, (size - 192) & 0xFF))
    else:
        head = b"\xff" + size.to_bytes(4, "big")
    return bytes((0xC0 | tag,)) + head + body


OPENPGP = packet(openpgp.ONE_PASS, b"one pass") + packet(openpgp.LITERAL, b"x" * 300) + packet(openpgp.SIGNATURE, b"y" * 9000)  # fmt: skip
_RAW = zlib.compressobj(9, zlib.DEFLATED, -15)
COMPRESSED_PACKETS = {
    "none": packet(openpgp.COMPRESSED, b"\0" + OPENPGP),
    "deflate": packet(openpgp.COMPRESSED, b"\1" + _RAW.compress(OPENPGP) + _RAW.flush()),
    "zlib": packet(openpgp.COMPRESSED, b"\2" + zlib.compress(OPENPGP)),
    "bzip2": packet(openpgp.COMPRESSED, b"\3" + bz2.compress(OPENPGP)),
}
