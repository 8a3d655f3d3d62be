"""Every file of the corpus that these formats are responsible for: its verdict, or why it has none.

Each row of the manifest is *judged* (by a function here that gives the verdict to compare), is a
*support* file that others are judged with, or is *not judged* for the reason that stands beside it. A
verdict that differs on purpose says why.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catena.containers.signature import aci as aci_signature
from catena.containers.signature import images_policy, notation, openpgp, simple
from catena.containers.signature.aci import (
    KeyForOtherPrefix,
    MaskedKey,
    NotAnAci,
    TrustedKey,
    TrustStore,
    WrongAciName,
)
from catena.containers.signature.certificates import (
    CertificateOutOfDate,
    MalformedCertificate,
    is_root,
    parse_certificates,
    parse_chain,
)
from catena.containers.signature.images_policy import UnsupportedImagesPolicy
from catena.containers.signature.notation import NotationTrust, SignedOtherImage
from catena.containers.signature.notation_attributes import UnknownCriticalHeader
from catena.containers.signature.openpgp import (
    ExpiredOpenPgpSignature,
    ForgedOpenPgpSignature,
    OpenPgpKeyRevoked,
    UnknownOpenPgpKey,
    UnusableOpenPgpKey,
)
from catena.errors import CatenaError, FormatError
from catena.formats import aci, cbor, cose, jws
from catena.formats import notation as documents
from code_signing import publisher

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
FOLDERS = ("generated-aci", "generated-notation", "notaryproject+notation-core-go", "notaryproject+notation-go", "rkt+rkt", "appc+spec", "containers+image")  # fmt: skip
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WHILE_VALID = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACI, NOTATION = CORPUS / "generated-aci", CORPUS / "generated-notation"
GO, CORE = CORPUS / "notaryproject+notation-go", CORPUS / "notaryproject+notation-core-go"
IMAGES = CORPUS / "containers+image/signature/fixtures"
APP = "example.com/app/reduce-worker"
ACCEPT = None
"""The verdict of a function that returns; the others are errors."""


@dataclass(frozen=True)
class Judged:
    """A file with a verdict: what is done with it, and what comes of it."""

    judge: Callable[[Path], object]
    verdict: type[CatenaError] | None = ACCEPT
    on_purpose: str = ""
    """Why the verdict differs from the manifest's."""


@dataclass(frozen=True)
class NotJudged:
    why: str


SUPPORT = NotJudged("used to judge other files")
COSIGN = NotJudged("a signature of cosign's, or what verifies one: judged with that format")
STUB = NotJudged("a link of the original repository, stored as its text; what it names is judged")


# ACI ---------------------------------------------------------------------------------------


def aci_key(name):
    path = ACI / f"{name}.pub.asc"
    return path.read_bytes()


def aci_store(*names):
    keys = ((name, aci_key(name.replace("/", "_"))) for name in names)
    return TrustStore(
        tuple(TrustedKey(name, openpgp.fingerprints([key])[0], key) for name, key in keys)
    )


def signed_aci(signature, *, name=APP, prefixes=("example.com",)):
    def judge(path):
        image = path if path.suffix == ".aci" else path.with_name(path.name.split(".aci")[0] + ".aci")  # fmt: skip
        detached = ACI / signature if signature else path
        proof = aci_signature.verify(
            image.read_bytes(), detached.read_bytes(), name, aci_store(*prefixes), NOW
        )
        ids = json.loads((ACI / "image-ids.json").read_text())
        assert proof.image == ids[image.name]

    return judge


def image_ids(path):
    for name, image_id in json.loads(path.read_text()).items():
        if name != "extra-toplevel.aci":
            assert aci.parse((ACI / name).read_bytes()).image_id == image_id


def openpgp_key(path):
    assert len(openpgp.fingerprints([path.read_bytes()])) >= 1


MALFORMED_NUMBERS = "the key's own signatures have numbers with a wrong length, which GnuPG overlooks"  # fmt: skip
OLD_KEY = "the key vouches for itself with SHA-1 only"

ACI_ROWS = {
    "good.aci": Judged(signed_aci("good.aci.asc")),
    "good.aci.asc": Judged(signed_aci("")),
    "good.aci.binary.sig": Judged(signed_aci("")),
    "good.aci.wrongkey-coreos.com.asc": Judged(
        signed_aci("", prefixes=("example.com", "coreos.com")), KeyForOtherPrefix
    ),
    "good-gz.aci": Judged(signed_aci("good-gz.aci.asc")),
    "good-gz.aci.asc": Judged(signed_aci("")),
    "tampered.aci": Judged(signed_aci("tampered.aci.asc"), ForgedOpenPgpSignature),
    "tampered.aci.asc": Judged(signed_aci(""), ForgedOpenPgpSignature),
    "extra-toplevel.aci": Judged(signed_aci("extra-toplevel.aci.asc"), NotAnAci),
    "extra-toplevel.aci.asc": Judged(signed_aci(""), NotAnAci),
    "wrong-name.aci": Judged(signed_aci("wrong-name.aci.asc"), WrongAciName),
    "wrong-name.aci.asc": Judged(signed_aci(""), WrongAciName),
    "image-ids.json": Judged(image_ids),
    "example.com.pub.asc": Judged(openpgp_key),
    "coreos.com.pub.asc": Judged(openpgp_key),
    "acme.com_services_web_nginx.pub.asc": Judged(openpgp_key),
    "acme.com.pub.asc": Judged(openpgp_key, UnusableOpenPgpKey, MALFORMED_NUMBERS),
    "acme.com_services.pub.asc": Judged(openpgp_key, UnusableOpenPgpKey, MALFORMED_NUMBERS),
    "example.com_app.pub.asc": Judged(openpgp_key, UnusableOpenPgpKey, MALFORMED_NUMBERS),
}

RKT_ROWS = {
    "tests/key1.gpg": Judged(openpgp_key, UnusableOpenPgpKey, OLD_KEY),
    "tests/key2.gpg": Judged(openpgp_key, UnusableOpenPgpKey, OLD_KEY),
    "tests/secring.gpg": Judged(openpgp_key, UnusableOpenPgpKey, "secret keys verify nothing here"),
}

NO_DISCOVERY = NotJudged("discovery of images by HTML pages: catena is given files and references")
NO_PODS = NotJudged("manifests of rkt's pods: no image, and rkt's pods are not run")
APPC_ROWS = {
    **{f"discovery/testdata/meta0{number}.html": NO_DISCOVERY for number in range(1, 7)},
    "examples/image.json": Judged(lambda path: aci.parse_manifest(path.read_bytes())),
    "examples/pod_runtime.json": Judged(
        lambda path: aci.parse_manifest(path.read_bytes()), FormatError, "not an image"
    ),
    "examples/pod_template.json": NO_PODS,
}


# Notation ----------------------------------------------------------------------------------


def envelope(data):
    """Kind and payload of an envelope of either kind."""
    if data.startswith(b"{"):
        return documents.JWS_TYPE, jws.decode_base64url(jws.parse(data).payload)
    return documents.COSE_TYPE, cose.parse(data).payload


def signed_image(*roots, authorities=(), now=NOW, image=""):
    def judge(path):
        data = path.read_bytes()
        kind, payload = envelope(data)
        digest = image or documents.parse_payload(payload).target_artifact.digest
        trust = NotationTrust(*(certificates(names) for names in (roots, authorities)))
        notation.verify(kind, data, digest, trust, now)

    return judge


def signed_by_its_own_chain(path):
    """As if the envelope's own root was trusted."""
    data = path.read_bytes()
    kind, payload = envelope(data)
    if kind == documents.JWS_TYPE:
        ders = [base64.b64decode(one) for one in json.loads(bytes(jws.parse(data).header["x5c"]))]
    else:
        ders = cose.parse(data).unprotected[cose.X5CHAIN]
    digest = documents.parse_payload(payload).target_artifact.digest
    notation.verify(kind, data, digest, NotationTrust((parse_chain(ders)[-1],)), NOW)


def certificates(paths):
    return tuple(one for path in paths for one in parse_certificates(path.read_bytes()))


def store(path):
    assert all(map(is_root, parse_certificates(path.read_bytes())))


def read_certificates(path):
    assert parse_certificates(path.read_bytes())


def two_certificates(path):
    assert len(parse_certificates(path.read_bytes())) == 2


def conformance_cose(path):
    vector = json.loads(path.read_text())
    wire = bytes.fromhex(vector["expectedOutput"]["cborHex"])
    headers = cbor.parse(bytes.fromhex(vector["protectedHeaders"]["cborHex"]))
    found = cose.parse(wire)
    assert (found.protected, found.encode()) == (headers, wire)
    assert found.payload.hex().upper() == vector["payload"]


def conformance_jws(path):
    found = jws.parse(path.read_bytes())
    assert json.loads(found.encode()) == json.loads(path.read_text())


def manifest_names_envelope(path):
    manifest = json.loads(path.read_text())
    assert manifest["config"]["mediaType"] == documents.ARTIFACT_TYPE
    kind = envelope((NOTATION / f"{path.name.split('-')[0]}.sig").read_bytes())[0]
    assert manifest["layers"][0]["mediaType"] == kind


DTC = NOTATION / "dtc.example.crt"
STORES = GO / "verifier/testdata/truststore/x509"
WABBIT = STORES / "ca/valid-trust-store/wabbit-networks.io.crt"
ALPINE = STORES / "ca/valid-trust-store/TestTimestamp.crt"
TEST_ROOT = STORES / "signingAuthority/valid-trust-store/NotationTestRoot.pem"
PLUGIN = "signatures that need a plugin are refused: catena runs none"
TIMESTAMPS = NotJudged("a time stamp: they are not read, so that none keeps an old certificate alive")  # fmt: skip
READ_BY_REGISTRY = NotJudged("what a registry answers: read by its client")
MOCK, SIG_ENV = "internal/mock/testdata", "verifier/testdata/timestamp/sigEnv"

NOTATION_ROWS = {
    "jws.sig": Judged(signed_image(DTC, now=WHILE_VALID)),
    "cose.sig": Judged(signed_image(DTC, now=WHILE_VALID)),
    "dtc.example.crt": Judged(store),
    "tp.json": Judged(lambda path: documents.parse_trust_policy(path.read_bytes())),
    "jws-manifest.json": Judged(manifest_names_envelope),
    "cose-manifest.json": Judged(manifest_names_envelope),
    "jws-referrers-index.json": READ_BY_REGISTRY,
    "cose-referrers-index.json": READ_BY_REGISTRY,
}

GO_ROWS = {
    f"{MOCK}/ca_compatible_pluginver_sig_env_1.0.0-alpha.beta.json": Judged(
        signed_image(WABBIT), UnknownCriticalHeader, PLUGIN
    ),
    f"{MOCK}/ca_compatible_pluginver_sig_env_1.0.0.json": Judged(
        signed_image(WABBIT), UnknownCriticalHeader, PLUGIN
    ),
    f"{MOCK}/ca_incompatible_pluginver_sig_env_1.0.1.json": Judged(
        signed_image(WABBIT), UnknownCriticalHeader
    ),
    f"{MOCK}/ca_incompatible_pluginver_sig_env_1.1.0-alpha.json": Judged(
        signed_image(WABBIT), UnknownCriticalHeader
    ),
    f"{MOCK}/ca_valid_sig_env.json": Judged(signed_image(TEST_ROOT)),
    f"{MOCK}/ca_invalid_sig_env.json": Judged(signed_image(TEST_ROOT), FormatError),
    f"{MOCK}/sa_valid_sig_env.json": Judged(signed_image(authorities=(TEST_ROOT,))),
    f"{MOCK}/sa_invalid_sig_env.json": Judged(signed_image(authorities=(TEST_ROOT,)), FormatError),
    "internal/testdata/cose_signature.sig": Judged(signed_by_its_own_chain),
    "internal/testdata/oci-layout/index.json": READ_BY_REGISTRY,
    "internal/testdata/oci-layout/oci-layout": READ_BY_REGISTRY,
    "internal/testdata/oci-layout/blobs/sha256/19dbd2e48e921426ee8ace4dc892edfb2ecdc1d1a72d5416c83670c30acecef0": READ_BY_REGISTRY,
    "verifier/testdata/timestamp/countersignature/TimeStampTokenWithInvalidTSTInfo.p7s": TIMESTAMPS,
    "verifier/testdata/timestamp/countersignature/TimeStampTokenWithoutCertificate.p7s": TIMESTAMPS,
    f"{SIG_ENV}/coseWithTimestamp.sig": Judged(signed_image(ALPINE)),
    f"{SIG_ENV}/jwsWithTimestamp.sig": Judged(signed_image(ALPINE)),
    f"{SIG_ENV}/timestampBeforeNotBefore.sig": Judged(signed_by_its_own_chain, CertificateOutOfDate),
    "verifier/testdata/truststore/x509/ca/trust-store-with-invalid-certs/invalid": Judged(
        store, MalformedCertificate
    ),
    "verifier/testdata/truststore/x509/ca/trust-store-with-leaf-certs/GlobalSignRootCA.crt": Judged(store),
    "verifier/testdata/truststore/x509/ca/valid-trust-store-2/GlobalSign.der": Judged(store),
    "verifier/testdata/truststore/x509/ca/valid-trust-store-self-signed/openssl-minimum-self-signed.pem": Judged(store),
    "verifier/testdata/truststore/x509/ca/valid-trust-store/GlobalSignRootCA.crt": Judged(store),
    "verifier/testdata/truststore/x509/ca/valid-trust-store/TestTimestamp.crt": Judged(store),
    "verifier/testdata/truststore/x509/ca/valid-trust-store/wabbit-networks.io.crt": Judged(store),
    "verifier/testdata/truststore/x509/signingAuthority/valid-trust-store-2/GlobalSign.der": Judged(store),
    "verifier/testdata/truststore/x509/signingAuthority/valid-trust-store/GlobalSign.der": Judged(store),
    "verifier/testdata/truststore/x509/signingAuthority/valid-trust-store/NotationTestRoot.pem": Judged(store),
    "verifier/testdata/truststore/x509/trust-store-with-cert-symlinks/GlobalSignRootCA_SYMLINK.crt": STUB,
    "verifier/testdata/truststore/x509/trust-store-with-directories/sub-dir/.gitkeep": NotJudged("an empty file that keeps a folder"),
    "verifier/testdata/truststore/x509/tsa/test-nonCA/wabbit-networks.io.crt": TIMESTAMPS,
    "verifier/testdata/truststore/x509/tsa/test-timestamp/globalsignRoot.cer": TIMESTAMPS,
    "verifier/testdata/verifier/signing-cert.pem": Judged(read_certificates),
}  # fmt: skip

CORE_ROWS = {
    "internal/timestamp/testdata/TimeStampTokenWithInvalidSignature.p7s": TIMESTAMPS,
    "internal/timestamp/testdata/tsaRootCert.cer": TIMESTAMPS,
    "signature/cose/testdata/conformance.json": Judged(conformance_cose),
    "signature/jws/testdata/conformance.json": Judged(conformance_jws),
    "x509/testdata/der.der": Judged(read_certificates),
    "x509/testdata/invalid": Judged(read_certificates, MalformedCertificate),
    "x509/testdata/multi-der.der": Judged(two_certificates),
    "x509/testdata/multi-pem.crt": Judged(two_certificates),
    "x509/testdata/openssl-minimum-self-signed.pem": Judged(read_certificates),
    "x509/testdata/pem.crt": Judged(read_certificates),
    "x509/testdata/timestamp_intermediate.crt": Judged(read_certificates),
    "x509/testdata/timestamp_leaf.crt": Judged(read_certificates),
    "x509/testdata/timestamp_root.crt": Judged(read_certificates),
}


# containers/image --------------------------------------------------------------------------

MANIFEST = "sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55"


def simple_signature(*keys, image=MANIFEST):
    def judge(path):
        ring = [(IMAGES / key).read_bytes() for key in keys or ("pubring.gpg",)]
        proof = simple.verify(path.read_bytes(), image, ring, NOW)
        assert proof.reference == "testing/manifest:latest"

    return judge


def key_file(path):
    return b"-----BEGIN PUBLIC KEY-----" if path.endswith("public-key") else b"\x98\x01x"


def images_policy_json(path):
    images_policy.read_policy_json(path.read_bytes(), key_file)


IMAGES_ROWS = {
    "corrupt.signature-v3": Judged(simple_signature(), FormatError),
    "expired.signature": Judged(simple_signature(), ExpiredOpenPgpSignature),
    "invalid-blob.signature": Judged(simple_signature(), FormatError),
    "invalid-reference.signature": Judged(simple_signature(), FormatError),
    "subkey-revoked.signature-v3": Judged(simple_signature(), OpenPgpKeyRevoked),
    "subkey.signature-v3": Judged(simple_signature("public-key-with-subkey.gpg")),
    "unknown-key.signature-v3": Judged(simple_signature(), UnknownOpenPgpKey),
    "unsigned-literal.signature": Judged(simple_signature(), FormatError),
    "unknown-cosign-key.signature": Judged(simple_signature(), FormatError),
    "policy.json": Judged(images_policy_json, UnsupportedImagesPolicy),
    "public-key-2.gpg": Judged(openpgp_key),
    "public-key-with-subkey.gpg": Judged(openpgp_key),
    "pubring.gpg": Judged(openpgp_key),
    "image.manifest.json": SUPPORT,
    "some-rsa-key.pub": COSIGN,
    "cosign2.pub": COSIGN,
    "fulcio-chain": COSIGN,
    "pki-cert": COSIGN,
    "pki_intermediate_crts.pem": COSIGN,
    "rekor-set": COSIGN,
    "rekor.pub": COSIGN,
}
LINKED = ("manifest-digest-error", "mixed", "modified-manifest", "unsigned", "valid", "valid-2", "valid-subkey")  # fmt: skip
PREFIX = "signature/fixtures/"
TABLES = {
    "generated-aci": ACI_ROWS,
    "rkt+rkt": RKT_ROWS,
    "appc+spec": APPC_ROWS,
    "generated-notation": NOTATION_ROWS,
    "notaryproject+notation-go": GO_ROWS,
    "notaryproject+notation-core-go": CORE_ROWS,
}


def row_of(file):
    """The table's row of a file of the manifest, or None."""
    folder, _, name = file.partition("/")
    if folder != "containers+image":
        return TABLES[folder].get(name)
    if name.startswith((f"{PREFIX}dir-img-cosign-", "signature/internal/")):
        return COSIGN
    linked, _, _ = name.removeprefix(f"{PREFIX}dir-img-").partition("/")
    if name.startswith(f"{PREFIX}dir-img-") and linked in LINKED:
        return STUB
    return IMAGES_ROWS.get(name.removeprefix(PREFIX))


def manifest():
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "MANIFEST.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [row for row in rows if row["file"].startswith(tuple(f"{one}/" for one in FOLDERS))]


ROWS = manifest()
JUDGED = [row for row in ROWS if isinstance(row_of(row["file"]), Judged)]


def test_every_file_of_the_manifest_has_its_row():
    assert [row["file"] for row in ROWS if row_of(row["file"]) is None] == []


def test_every_row_here_is_one_of_the_manifest():
    files = {row["file"] for row in ROWS}
    named = {f"{folder}/{name}" for folder, table in TABLES.items() for name in table}
    named |= {f"containers+image/{PREFIX}{name}" for name in IMAGES_ROWS}
    assert named <= files


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: row["file"])
def test_the_verdict_holds(row):
    case = row_of(row["file"])
    if case.verdict is ACCEPT:
        case.judge(CORPUS / row["file"])
        return
    with pytest.raises(case.verdict):
        case.judge(CORPUS / row["file"])


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: row["file"])
def test_the_verdict_is_the_manifests_or_differs_on_purpose(row):
    case = row_of(row["file"])
    expected = row["expected_verdict"]
    if case.on_purpose:
        assert case.verdict is not ACCEPT, "only refusing more is a difference that may stay"
    elif expected.startswith("ACCEPT"):
        assert case.verdict is ACCEPT
    elif expected.startswith("REJECT"):
        assert case.verdict is not ACCEPT


# What the manifest says beyond one file ----------------------------------------------------


def test_another_publishers_signature_is_accepted_if_its_key_is_trusted_for_the_name():
    key = aci_key("coreos.com")
    trusted = TrustStore((TrustedKey("example.com", openpgp.fingerprints([key])[0], key),))
    image, signature = (ACI / "good.aci", ACI / "good.aci.wrongkey-coreos.com.asc")
    aci_signature.verify(image.read_bytes(), signature.read_bytes(), APP, trusted, NOW)


def test_a_masked_key_of_the_corpus_is_refused():
    trusted = aci_store("example.com").files[0]
    masked = TrustStore((trusted, TrustedKey("example.com/app", trusted.fingerprint, b"")))
    image, signature = (ACI / "good.aci", ACI / "good.aci.asc")
    with pytest.raises(MaskedKey):
        aci_signature.verify(image.read_bytes(), signature.read_bytes(), APP, masked, NOW)


@pytest.mark.parametrize("name", ["jws.sig", "cose.sig"])
def test_an_envelope_of_the_corpus_ends_with_its_certificate(name):
    with pytest.raises(CertificateOutOfDate):
        signed_image(DTC)(NOTATION / name)


@pytest.mark.parametrize("name", ["jws.sig", "cose.sig"])
def test_an_envelope_of_the_corpus_is_of_its_image_only(name):
    with pytest.raises(SignedOtherImage):
        signed_image(DTC, now=WHILE_VALID, image="sha256:" + "0" * 64)(NOTATION / name)


def test_a_statement_of_the_corpus_is_of_its_image_only():
    with pytest.raises(SignedOtherImage):
        simple_signature("public-key-with-subkey.gpg", image="sha256:" + "0" * 64)(
            IMAGES / "subkey.signature-v3"
        )


def test_each_scope_of_the_corpus_policy_is_refused_or_read():
    policy = json.loads((IMAGES / "policy.json").read_text())
    read, refused = set(), set()
    for scope, requirements in policy["transports"]["docker"].items():
        one = {"default": policy["default"], "transports": {"docker": {scope: requirements}}}
        try:
            images_policy.read_policy_json(json.dumps(one).encode(), key_file)
        except (UnsupportedImagesPolicy, FormatError):
            refused.add(scope)
        else:
            read.add(scope)
    assert read == {
        "example.com/production",
        "example.com/sigstore/key-path-example",
        "private-mirror:5000/vendor-mirror",
        "registry.redhat.io/beta",
    }
    assert len(refused) == len(policy["transports"]["docker"]) - len(read)


def test_publishers_made_here_do_not_verify_the_corpus():
    with pytest.raises(CatenaError):
        notation.verify_jws(
            (NOTATION / "jws.sig").read_bytes(),
            "sha256:452d77e08b32dcd2dd775fee379dbb8b85b0fa6677a81a605327186f066503c6",
            NotationTrust((publisher(1).root,)),
            WHILE_VALID,
        )
