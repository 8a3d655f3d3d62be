"""Verdicts of other projects' vectors, file by file.

Every file of the shared manifest in these folders is in ``FILES``: judged by a function here, or with the
reason why there is nothing to judge. ``DIFFERENT`` lists where catena decides otherwise on purpose.
"""

import base64
import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from signing import NOW, Given, legacy_given, one_scope, pem, policy, signer

from catena.containers.images.folder import BlobFolder
from catena.containers.images.layout import Layout
from catena.containers.images.source import COSIGN_PAYLOAD, SIGSTORE_BUNDLE, SignatureArtifact
from catena.containers.signature import cosign, refusals
from catena.containers.signature.key import parse_key
from catena.containers.signature.policy import BadContainerPolicy, compile_policy
from catena.containers.signature.verify import verify_image
from catena.containers.signature.x509 import parse_certificate
from catena.errors import CatenaError, FormatError
from catena.formats import oci, rekor, sigstore, simplesigning
from catena.formats.containerpolicy import (
    CertificateIdentity,
    ContainerPolicy,
    Publisher,
    Scope,
)
from catena.keys.signer import UnusableKey

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not here")

FIXTURES = "containers+image/signature/fixtures"
TESTDATA = "containers+image/signature/internal/testdata"
COSIGN_DATA = "sigstore+cosign/pkg/cosign/testdata"
CONNAISSEUR = "sse-secure-systems+connaisseur/test/testdata"
CONTROLLER = "sigstore+policy-controller"
FOLDERS = (
    "containers+image/",
    "generated-cosign/",
    "generated-oci/",
    "opencontainers+image-spec/",
    "sigstore+cosign/",
    f"{CONTROLLER}/",
    "sse-secure-systems+connaisseur/",
)
SIGSTORE_JSON = b"\0sigstore-json\n"
CODE_2023 = datetime(2023, 1, 20, 20, 55, tzinfo=UTC)


def read(path: str) -> bytes:
    return (CORPUS / path).read_bytes()


def link(path: str) -> str:
    """A symbolic link of the original repository: the file's content is its target."""
    return read(path).decode()


def verify(artifacts, image, repository, rules, now=NOW):
    return verify_image(Given(artifacts), image, repository, rules, now)


def key_policy(pem_text: str, repository: str):
    scope = Scope(repository=repository, publishers=("signer",))
    return policy({"signer": [pem_text]}, [scope])


def identity_policy(repository: str, **identity):
    scope = Scope(repository=repository, publishers=("signer",))
    return policy({}, [scope], signer=CertificateIdentity(**identity))


# containers/image: signatures as its `dir:` transport keeps them ----------------------------


def sigstore_file(path: str) -> SignatureArtifact:
    content = read(path)
    assert content.startswith(SIGSTORE_JSON)
    parsed = json.loads(content.removeprefix(SIGSTORE_JSON))
    payload = base64.b64decode(parsed["payload"])
    return SignatureArtifact(parsed["mimeType"], payload, parsed["annotations"])


def claimed(artifact: SignatureArtifact):
    payload = simplesigning.parse(artifact.content)
    return payload.image, payload.reference


def sigstore_root() -> str:
    """The root certificates of sigstore's public instance, out of its trusted root."""
    root = json.loads(read(f"{COSIGN_DATA}/trusted_root_pgi.json"))
    chains = [one["certChain"]["certificates"] for one in root["certificateAuthorities"]]
    ders = [base64.b64decode(one["rawBytes"]) for chain in chains for one in chain]
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
        for der in ders
    )


def rekor_key() -> str:
    return read(f"{TESTDATA}/rekor.pub").decode()


FULCIO = {"issuer": "https://github.com/login/oauth", "san": "mitr@redhat.com"}


def fulcio_and_rekor(path):
    artifact = sigstore_file(path)
    image, reference = claimed(artifact)
    rules = identity_policy(reference, roots=(sigstore_root(),), logs=(rekor_key(),), **FULCIO)
    verified = verify([artifact], image, reference, rules)
    assert verified.signed_at.isoformat()[:16] == "2023-01-20T20:51"
    # The certificate lived for ten minutes: without a log's word for when, it is not valid now.
    unlogged = identity_policy(reference, roots=(sigstore_root(),), **FULCIO)
    with pytest.raises(refusals.CertificateNotValid):
        verify([artifact], image, reference, unlogged)
    assert verify([artifact], image, reference, unlogged, CODE_2023).publisher == "signer"
    another = identity_policy(
        reference, roots=(sigstore_root(),), logs=(rekor_key(),), **{**FULCIO, "san": "a@b.c"}
    )
    with pytest.raises(refusals.OtherIdentity):
        verify([artifact], image, reference, another)
    foreign = identity_policy(reference, roots=(sigstore_root(),), logs=(pem(signer()),), **FULCIO)
    with pytest.raises(refusals.UnloggedSignature):
        verify([artifact], image, reference, foreign)


def key_and_rekor(path):
    artifact = sigstore_file(path)
    image, reference = claimed(artifact)
    rules = key_policy(read(f"{FIXTURES}/cosign2.pub").decode(), reference)
    assert verify([artifact], image, reference, rules).claimed_repository == reference


def pki(path):
    artifact = sigstore_file(path)
    image, reference = claimed(artifact)
    root = read(f"{FIXTURES}/pki_intermediate_crts.pem").decode()
    rules = identity_policy(reference, roots=(root,), san="qiwan@redhat.com")
    assert reference == "localhost:5000/test"
    assert verify([artifact], image, reference, rules).identity == "san qiwan@redhat.com"
    subject = identity_policy(reference, roots=(root,), subject="CN=somebody else")
    with pytest.raises(refusals.OtherIdentity):
        verify([artifact], image, reference, subject)
    elsewhere = identity_policy(reference, roots=(sigstore_root(),), san="qiwan@redhat.com")
    with pytest.raises(refusals.UntrustedCertificate):
        verify([artifact], image, reference, elsewhere)


def other_attachment(path):
    artifact = sigstore_file(path)
    assert artifact.media_type == "text/plain"
    rules = key_policy(read(f"{FIXTURES}/cosign2.pub").decode(), "registry.example.com/any")
    with pytest.raises(refusals.WrongFormat):
        verify([artifact], oci.digest_of(b""), "registry.example.com/any", rules)
    renamed = SignatureArtifact(COSIGN_PAYLOAD, artifact.content, artifact.annotations)
    with pytest.raises(refusals.OtherPublisher):
        verify([renamed], oci.digest_of(b""), "registry.example.com/any", rules)


def unknown_key(path):
    artifact = sigstore_file(path)
    image, reference = claimed(artifact)
    rules = key_policy(read(f"{FIXTURES}/cosign2.pub").decode(), reference)
    with pytest.raises(refusals.OtherPublisher):
        verify([artifact], image, reference, rules)


def resigned(path):
    """The manifest's own signature is not in the corpus; one of ours over it has the same verdicts."""
    manifest = read(path)
    oci.parse_manifest(manifest)
    image, key = oci.digest_of(manifest), signer()
    repository = "192.168.64.2:5000/cosign-signed-single-sample"
    rules = key_policy(pem(key), "192.168.64.2:5000/*")
    signed = legacy_given(key, image, repository)
    assert verify(signed, image, f"{repository}:any", rules).claimed_repository == repository
    with pytest.raises(refusals.OtherRepository):
        verify(signed, image, "192.168.64.2:5000/another", rules)


def resigned_with_tag(path):
    image, key = oci.digest_of(read(path)), signer()
    repository = "192.168.64.2:5000/skopeo-signed"
    rules = key_policy(pem(key), repository)
    signed = legacy_given(key, image, f"{repository}:tag")
    assert verify(signed, image, f"{repository}:tag", rules)
    with pytest.raises(refusals.OtherTag):
        verify(signed, image, f"{repository}:othertag", rules)


def modified(path):
    """What was signed is the manifest before it was changed."""
    before, after = read(f"{FIXTURES}/dir-img-cosign-valid/manifest.json"), read(path)
    key, repository = signer(), "192.168.64.2:5000/cosign-signed-single-sample"
    signed = legacy_given(key, oci.digest_of(before), repository)
    with pytest.raises(refusals.OtherImage):
        verify(signed, oci.digest_of(after), repository, key_policy(pem(key), repository))


def damaged_link(path):
    """As content it is neither a manifest nor a signature: refused as either."""
    content = read(path)
    with pytest.raises(FormatError):
        oci.parse_manifest(content)
    with pytest.raises(FormatError):
        simplesigning.parse(content)
    assert link(path).startswith("..")


def linked_unknown(path):
    assert link(path) == "../unknown-cosign-key.signature"
    unknown_key(f"{FIXTURES}/unknown-cosign-key.signature")


def unsigned(path):
    del path
    rules = one_scope(signer())
    with pytest.raises(refusals.Unsigned):
        verify([], oci.digest_of(b""), "registry.example.com/team/app", rules)


def certificates(path):
    pems = re.findall(
        rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", read(path), re.DOTALL
    )
    assert pems
    root = b"\n".join(pems).decode()
    assert identity_policy("a.example/b", roots=(root,), subject="CN=x").publishers["signer"]


def public_key(path):
    assert parse_key(read(path).decode()).id


def log_promise(path):
    promise = rekor.parse_annotation(read(path))
    log = parse_key(rekor_key())
    assert promise.log_id == log.id
    assert log.holds(promise.signature, promise.signed())
    entry = rekor.parse_entry(promise.body)
    certificate = read(f"{TESTDATA}/rekor-cert")
    assert entry.verifier.split() == certificate.split()


def docker_manifest(path):
    manifest = oci.parse_manifest(read(path))
    assert manifest.media_type == oci.DOCKER_MANIFEST


# Other projects ----------------------------------------------------------------------------

ALICE = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEusIAt6EJ3YrTHdg2qkWVS0KuotWQ
wHDtyaXlq7Nhj8279+1u/l5pZhXJPW8PnGRRLdO5NbsuM6aT7pOcP100uw==
-----END PUBLIC KEY-----
"""
TESTIMAGE = "index.docker.io/securesystemsengineering/testimage"
REGISTRY = f"{CONNAISSEUR}/cosign/securesystemsengineering/testimage"


def connaisseur_artifacts(path, image):
    """The payloads are cosign's, so they can be made again; their digests say that they are."""
    payload = simplesigning.encode(image, TESTIMAGE, {})
    for layer in oci.parse_manifest(read(path)).layers:
        assert layer.digest == oci.digest_of(payload)
        yield SignatureArtifact(layer.media_type, payload, layer.notes)


def image_of(path):
    return oci.parse_digest(f"sha256:{re.search('sha256-([0-9a-f]{64}).sig', path)[1]}")


def several_signers(path):
    image = image_of(path)
    artifacts = list(connaisseur_artifacts(path, image))
    bob = read(f"{CONNAISSEUR}/cosign/bob.key").decode()
    assert len(artifacts) == 3
    repository = "docker.io/securesystemsengineering/testimage"
    for name in (ALICE, bob):
        assert verify(artifacts, image, repository, key_policy(name, repository))
    stranger = key_policy(read(f"{FIXTURES}/cosign2.pub").decode(), repository)
    with pytest.raises(refusals.OtherPublisher):
        verify(artifacts, image, repository, stranger)
    elsewhere = key_policy(ALICE, "docker.io/library/alpine")
    with pytest.raises(refusals.OtherRepository):
        verify(artifacts, image, "docker.io/library/alpine", elsewhere)


def one_signer(path):
    image = image_of(path)
    artifacts = list(connaisseur_artifacts(path, image))
    repository = "docker.io/securesystemsengineering/testimage"
    assert verify(artifacts, image, repository, key_policy(ALICE, repository))


def signed_image(path):
    image = oci.digest_of(read(path))
    several_signers(f"{REGISTRY}/manifests/sha256-{image.removeprefix('sha256:')}.sig.json")


def payload_of_another(path):
    payload = simplesigning.parse(read(path))
    assert (payload.reference, payload.type) == (
        "index.docker.io/phbelitz/rekor-test",
        simplesigning.COSIGN_TYPE,
    )


def no_manifest(path):
    with pytest.raises(FormatError):
        oci.parse_manifest(read(path))
    unsigned(path)


def pem_texts(path, kind="[A-Z ]+"):
    """PEM blocks in a YAML document, whatever way it breaks lines: kind and text."""
    text = re.sub(r"(\\+n)+", "\n", read(path).decode())
    for found in re.finditer(rf"-----BEGIN ({kind})-----.*?-----END \1-----", text, re.DOTALL):
        yield found[1], "\n".join(line.strip() for line in found[0].splitlines())


def broken_pem(path):
    """A key or certificate with rubbish in it makes a policy that does not compile."""
    kind, text = next(pem_texts(path))
    identity = CertificateIdentity(roots=(text,), subject="CN=a")
    publisher = (
        Publisher(name="a", keys=(text,))
        if kind == "PUBLIC KEY"
        else Publisher(name="a", identities=(identity,))
    )
    scopes = (Scope(repository="a.example/b", publishers=("a",)),)
    document = ContainerPolicy(name="x", version=1, publishers=(publisher,), scopes=scopes)
    with pytest.raises(BadContainerPolicy):
        compile_policy(document)


def yaml_keys(path):
    """Keys in other systems' policies are keys here."""
    found = [text for _, text in pem_texts(path, "PUBLIC KEY")]
    assert found
    assert all(parse_key(text).id for text in found)


def refused_key(path):
    with pytest.raises(UnusableKey):
        parse_key(read(path).decode("latin-1"))


def attestation(path):
    """A good signature of a stranger's workflow under a statement about an image: no permission."""
    statement = sigstore.parse(read(path)).content.payload
    said = json.loads(statement)["subject"][0]
    image, repository = oci.parse_digest(f"sha256:{said['digest']['sha256']}"), said["name"]
    rules = identity_policy(
        repository,
        roots=(sigstore_root(),),
        logs=(rekor_key(),),
        issuer="https://github.com/login/oauth",
        san="cody@soyland.com",
    )
    artifact = SignatureArtifact(SIGSTORE_BUNDLE, read(path))
    with pytest.raises(refusals.NotAnImageSignature):
        verify([artifact], image, repository, rules)
    elsewhere = identity_policy(
        repository,
        roots=(sigstore_root(),),
        logs=(pem(signer()),),
        issuer="https://github.com/login/oauth",
    )
    with pytest.raises(refusals.UnloggedSignature):
        verify([artifact], image, repository, elsewhere)


def trusted_root(path):
    root = json.loads(read(path))
    raw = root["tlogs"][0]["publicKey"]["rawBytes"]
    text = f"-----BEGIN PUBLIC KEY-----\n{raw}\n-----END PUBLIC KEY-----\n"
    assert parse_key(text).id == parse_key(rekor_key()).id
    for chain in root["certificateAuthorities"]:
        for one in chain["certChain"]["certificates"]:
            assert parse_certificate(base64.b64decode(one["rawBytes"]))


# What the real cosign and umoci made ---------------------------------------------------------

GENERATED = "127.0.0.1:5599/cos/legacy"


def generated_layout():
    return Layout(CORPUS / "generated-oci/layout")


def generated_image():
    return generated_layout().resolve("latest")


def generated_key():
    return read("generated-cosign/cosign.pub").decode()


def generated_legacy(path):
    del path
    (layer,) = oci.parse_manifest(read("generated-cosign/legacy-manifest.json")).layers
    payload = read("generated-cosign/legacy-payload.json")
    assert layer.digest == oci.digest_of(payload)
    artifact = SignatureArtifact(COSIGN_PAYLOAD, payload, layer.notes)
    image = generated_image()
    assert verify([artifact], image, GENERATED, key_policy(generated_key(), GENERATED))
    # cosign itself accepts it from here as well.
    moved = "127.0.0.1:5599/cos/moved"
    with pytest.raises(refusals.OtherRepository):
        verify([artifact], image, moved, key_policy(generated_key(), moved))


def generated_bundle(path):
    content = read("generated-cosign/bundle.sigstore.json")
    manifest = oci.parse_manifest(read("generated-cosign/bundle-manifest.json"))
    index = oci.parse_index(read("generated-cosign/bundle-index.json"))
    assert index.manifests[0].digest == oci.digest_of(read("generated-cosign/bundle-manifest.json"))
    assert manifest.layers[0].digest == oci.digest_of(content)
    image = generated_image()
    assert manifest.subject.digest == image
    artifact = SignatureArtifact(SIGSTORE_BUNDLE, content)
    name = "127.0.0.1:5599/cos/bundle"
    assert verify([artifact], image, name, key_policy(generated_key(), name))
    with pytest.raises(refusals.OtherPublisher):
        verify([artifact], image, name, key_policy(read("generated-cosign/py.pub").decode(), name))
    key = generated_key()
    two = policy(
        {"signer": [key]},
        [Scope(repository=one, publishers=("signer",)) for one in (name, GENERATED)],
    )
    with pytest.raises(refusals.RepositoryUnclaimed):
        verify([artifact], image, name, two)
    del path


def layout_file(path):
    if path.endswith("oci-layout"):
        oci.parse_layout(read(path))
    elif path.endswith("index.json"):
        assert generated_layout().images() == (generated_image(),)
    else:
        blobs = BlobFolder(CORPUS / "generated-oci/layout/blobs")
        name = path.rpartition("/")[2]
        assert blobs.read(f"sha256:{name}", 2 * 1024 * 1024) == read(path)


def example(schema):
    """The smallest document that a schema of the specification accepts."""
    descriptor = {"mediaType": oci.IMAGE_CONFIG, "digest": oci.digest_of(b""), "size": 0}
    documents = {
        "image-manifest-schema.json": (
            oci.parse_manifest,
            {"schemaVersion": 2, "config": descriptor, "layers": [descriptor]},
        ),
        "image-index-schema.json": (
            oci.parse_index,
            {"schemaVersion": 2, "manifests": [{**descriptor, "mediaType": oci.IMAGE_MANIFEST}]},
        ),
        "image-layout-schema.json": (oci.parse_layout, {"imageLayoutVersion": "1.0.0"}),
        "content-descriptor.json": (
            lambda data: oci.parse_manifest(
                json.dumps({"schemaVersion": 2, "config": json.loads(data), "layers": []}).encode()
            ),
            descriptor,
        ),
    }
    return documents[schema.rpartition("/")[2]]


def schema(path):
    """All that the schema requires is required here."""
    parse, good = example(path)
    parse(json.dumps(good).encode())
    required = json.loads(read(path))["required"]
    assert required
    for name in required:
        with pytest.raises(FormatError):
            parse(json.dumps({k: v for k, v in good.items() if k != name}).encode())


OPENPGP = "simple signing with OpenPGP: judged by the tests of that format"
LINK = "a link to a file that the corpus does not have"
ADMISSION = "a request of Kubernetes' admission, not of an image's signature"
NOTATION = "a notation signature or policy: judged by the tests of that format"
FOREIGN = "a policy of another system, for its own engine"
SUPPORT = "used by another vector of this table"
CONFIG = "settings of another verifier; its keys are used by other vectors"

DIFFERENT = {
    f"{CONNAISSEUR}/cosign/securesystemsengineering/testimage/manifests/multi-cosigned-alice-bob-charlie.json": (
        "a threshold of several signers is not asked for: any publisher of the scope is enough"
    ),
    f"{FIXTURES}/dir-img-cosign-key-rekor-valid/signature-1": (
        "a bare key counts without its log entry"
    ),
    f"{FIXTURES}/dir-img-cosign-valid-with-tag/manifest.json": (
        "without a tag in what is asked, the digest is, and the claimed tag does not matter"
    ),
    "generated-cosign/legacy-manifest.json": "the repository that is signed is enforced",
}

FILES = {
    f"{FIXTURES}/cosign2.pub": public_key,
    f"{FIXTURES}/dir-img-cosign-fulcio-rekor-valid/signature-1": fulcio_and_rekor,
    f"{FIXTURES}/dir-img-cosign-key-rekor-valid/signature-1": key_and_rekor,
    f"{FIXTURES}/dir-img-cosign-manifest-digest-error/signature-1": damaged_link,
    f"{FIXTURES}/dir-img-cosign-mixed/signature-1": linked_unknown,
    f"{FIXTURES}/dir-img-cosign-modified-manifest/manifest.json": modified,
    f"{FIXTURES}/dir-img-cosign-no-manifest/signature-1": damaged_link,
    f"{FIXTURES}/dir-img-cosign-other-attachment/signature-1": other_attachment,
    f"{FIXTURES}/dir-img-cosign-pki-valid/signature-1": pki,
    f"{FIXTURES}/dir-img-cosign-valid-2/signature-1": LINK,
    f"{FIXTURES}/dir-img-cosign-valid-with-tag/manifest.json": resigned_with_tag,
    f"{FIXTURES}/dir-img-cosign-valid/manifest.json": resigned,
    f"{FIXTURES}/dir-img-manifest-digest-error/manifest.json": damaged_link,
    f"{FIXTURES}/dir-img-unsigned/manifest.json": unsigned,
    f"{FIXTURES}/fulcio-chain": certificates,
    f"{FIXTURES}/image.manifest.json": docker_manifest,
    f"{FIXTURES}/pki-cert": certificates,
    f"{FIXTURES}/pki_intermediate_crts.pem": certificates,
    f"{FIXTURES}/rekor-set": LINK,
    f"{FIXTURES}/rekor.pub": LINK,
    f"{FIXTURES}/some-rsa-key.pub": public_key,
    f"{FIXTURES}/unknown-cosign-key.signature": unknown_key,
    f"{TESTDATA}/cosign.pub": LINK,
    f"{TESTDATA}/rekor-cert": SUPPORT,
    f"{TESTDATA}/rekor-set": log_promise,
    f"{TESTDATA}/rekor.pub": public_key,
    **{
        f"{FIXTURES}/{name}": OPENPGP
        for name in (
            "corrupt.signature-v3",
            "dir-img-mixed/manifest.json",
            "dir-img-mixed/signature-2",
            "dir-img-modified-manifest/signature-1",
            "dir-img-valid-2/signature-1",
            "dir-img-valid-subkey/manifest.json",
            "dir-img-valid/manifest.json",
            "expired.signature",
            "invalid-blob.signature",
            "invalid-reference.signature",
            "policy.json",
            "public-key-2.gpg",
            "public-key-with-subkey.gpg",
            "pubring.gpg",
            "subkey-revoked.signature-v3",
            "subkey.signature-v3",
            "unknown-key.signature-v3",
            "unsigned-literal.signature",
        )
    },
    f"{CONNAISSEUR}/cosign/02_rekor.yaml": yaml_keys,
    f"{CONNAISSEUR}/cosign/04_rekor_err.yaml": yaml_keys,
    f"{CONNAISSEUR}/cosign/06_auth.yaml": yaml_keys,
    f"{CONNAISSEUR}/cosign/08_cert.yaml": yaml_keys,
    f"{CONNAISSEUR}/cosign/10_invalid_cert.yaml": CONFIG,
    f"{CONNAISSEUR}/cosign/12_invalid_rekor_pub_key.yaml": broken_pem,
    f"{CONNAISSEUR}/cosign/14_invalid_ct_log_pub_key.yaml": broken_pem,
    f"{CONNAISSEUR}/cosign/bob.key": public_key,
    f"{CONNAISSEUR}/cosign/default.key": public_key,
    f"{REGISTRY}/blobs/sha256:897d9e862b4599b723442f36ed7b4cfd1628bb7656643c56855988cac161d065.json": payload_of_another,
    f"{REGISTRY}/manifests/co-unsigned.json": no_manifest,
    f"{REGISTRY}/manifests/multi-cosigned-alice-bob-charlie.json": signed_image,
    f"{REGISTRY}/manifests/sha256-071bf7a986f1ca9cb2a1f0bc8392822a7777f90d58f2d2c6f271913e08de7c81.sig.json": one_signer,
    f"{REGISTRY}/manifests/sha256-bfec161fecb0a887df7cb85e4da327c65986ccda7060cf3cd92171c6c90d7533.sig.json": several_signers,
    f"{CONTROLLER}/pkg/apis/config/testdata/config-invalid-image-policy.yaml": broken_pem,
    f"{COSIGN_DATA}/garbage-there-are-limits": refused_key,
    f"{COSIGN_DATA}/google": public_key,
    f"{COSIGN_DATA}/letsencrypt-testflume-2021": refused_key,
    f"{COSIGN_DATA}/oci-attestation.sigstore.json": attestation,
    f"{COSIGN_DATA}/rsa": public_key,
    f"{COSIGN_DATA}/trusted_root_pgi.json": trusted_root,
    "generated-cosign/py.pub": public_key,
    "generated-cosign/cosign.pub": public_key,
    "generated-cosign/bundle-manifest.json": generated_bundle,
    "generated-cosign/bundle-index.json": generated_bundle,
    "generated-cosign/bundle.sigstore.json": generated_bundle,
    "generated-cosign/legacy-manifest.json": generated_legacy,
    "generated-cosign/legacy-payload.json": generated_legacy,
    **{
        f"opencontainers+image-spec/schema/{name}": schema
        for name in (
            "content-descriptor.json",
            "image-index-schema.json",
            "image-layout-schema.json",
            "image-manifest-schema.json",
        )
    },
    **{
        f"opencontainers+image-spec/schema/{name}": reason
        for name, reason in {
            "config-schema.json": "image configurations: judged where root file systems are identified",
            "defs-descriptor.json": "parts of the schemas above",
            "defs.json": "parts of the schemas above",
        }.items()
    },
}


def entry(path):
    """What the table says of a file of the manifest."""
    if path in FILES:
        return FILES[path]
    if path.startswith("generated-oci/layout/"):
        return layout_file
    if path.startswith(f"{CONNAISSEUR}/admission_requests/"):
        return ADMISSION
    if path.startswith(f"{CONNAISSEUR}/notation/"):
        return NOTATION
    if path.startswith(f"{CONTROLLER}/"):
        return yaml_keys if b"BEGIN PUBLIC KEY" in read(path) else FOREIGN
    return None


def manifest():
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "MANIFEST.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row["file"] for row in rows if row["file"].startswith(FOLDERS)]


PATHS = manifest()


def test_every_file_of_these_folders_is_judged_or_has_a_reason():
    missing = [path for path in PATHS if entry(path) is None]
    assert not missing
    assert set(FILES) <= set(PATHS)
    assert set(DIFFERENT) <= set(PATHS)
    assert len(PATHS) > 140


@pytest.mark.parametrize("path", [path for path in PATHS if callable(entry(path))])
def test_vector_has_its_verdict(path):
    entry(path)(path)


def test_no_vector_raises_anything_but_an_error_of_catena():
    """Whatever the file is, as whatever it is taken for."""
    for path in PATHS:
        content = read(path)
        for parse in (
            oci.parse_manifest,
            oci.parse_index,
            simplesigning.parse,
            sigstore.parse,
            rekor.parse_annotation,
            parse_certificate,
        ):
            try:
                parse(content)
            except CatenaError:
                continue
        artifact = SignatureArtifact(COSIGN_PAYLOAD, content, {cosign.SIGNATURE: "AAAA"})
        with pytest.raises(CatenaError):
            verify(
                [artifact],
                oci.digest_of(content),
                "registry.example.com/team/app",
                one_scope(signer()),
            )
