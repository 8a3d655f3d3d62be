"""Certificates that speak for a publisher: the path, the leaf, the identity, the time."""

import base64
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from signing import NOW, REPOSITORY, Given, issue, legacy_artifact, pem, policy, signer

from catena.containers.images.source import SIGSTORE_BUNDLE, SignatureArtifact
from catena.containers.signature import cosign, refusals
from catena.containers.signature.key import sha256
from catena.containers.signature.verify import verify_image
from catena.formats import dsse, oci, sigstore, simplesigning
from catena.formats.containerpolicy import CertificateIdentity, Scope
from catena.formats.rekor import Promise
from catena.keys.signer import KeyAlgorithm, key_id_of

IMAGE = oci.digest_of(b"the image")
PAYLOAD = simplesigning.encode(IMAGE, REPOSITORY, {})
DAY = timedelta(days=1)
ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
PAST = (NOW - 9 * DAY, NOW - 8 * DAY)


class Holder:
    """Signs with a certificate's key, in the manner of ``PrivateKeySigner``."""

    def __init__(self, issued):
        self.issued = issued

    def sign(self, data):
        return self.issued.key.sign(data, ec.ECDSA(hashes.SHA256()))


def artifact(leaf, *above, payload=PAYLOAD, **notes):
    """One signature by a leaf, with the certificates above it."""
    return legacy_artifact(
        Holder(leaf),
        payload,
        **{
            cosign.CERTIFICATE: leaf.pem,
            cosign.CHAIN: "".join(one.pem for one in above),
            **notes,
        },
    )


def rules(*roots, **identity):
    asked = identity or {"subject": "CN=signer"}
    rule = CertificateIdentity(roots=tuple(one.pem for one in roots), **asked)
    return policy({}, [Scope(repository=REPOSITORY, publishers=("team",))], team=rule)


def verify(given, compiled, now=NOW):
    return verify_image(Given([given]), IMAGE, REPOSITORY, compiled, now)


def refused(kind, given, compiled, now=NOW):
    with pytest.raises(kind):
        verify(given, compiled, now)


def test_a_leaf_under_a_root_speaks_for_its_publisher():
    root = issue("root", authority=True)
    leaf = issue("signer", root)
    verified = verify(artifact(leaf), rules(root))
    assert (verified.publisher, verified.identity) == ("team", "subject CN=signer")
    assert verified.key == key_id_of(leaf.certificate.public_key())


def test_intermediates_may_come_in_any_order_or_stand_among_the_roots():
    root = issue("root", authority=True)
    upper = issue("upper", root, authority=True, path_length=1)
    lower = issue("lower", upper, authority=True, path_length=0)
    leaf = issue("signer", lower)
    assert verify(artifact(leaf, lower, upper), rules(root))
    assert verify(artifact(leaf, upper, issue("else", root), lower), rules(root))
    assert verify(artifact(leaf), rules(lower))
    refused(refusals.UntrustedCertificate, artifact(leaf, upper), rules(root))


def test_a_leaf_that_is_listed_itself_is_trusted():
    alone = issue("signer")
    assert verify(artifact(alone), rules(alone))


def test_a_root_that_nobody_listed_is_refused_even_in_the_chain():
    root, mine = issue("root", authority=True), issue("root", authority=True)
    leaf = issue("signer", root)
    refused(refusals.UntrustedCertificate, artifact(leaf, root), rules(mine))


def test_an_issuer_that_is_no_authority_is_refused():
    root = issue("root", authority=True)
    middle = issue("middle", root)
    refused(refusals.UntrustedCertificate, artifact(issue("signer", middle), middle), rules(root))


def test_an_issuer_that_must_not_sign_certificates_is_refused():
    root = issue("root", authority=True, cert_sign=False)
    refused(refusals.UntrustedCertificate, artifact(issue("signer", root)), rules(root))


def test_a_path_longer_than_an_authority_allows_is_refused():
    root = issue("root", authority=True, path_length=0)
    middle = issue("middle", root, authority=True)
    leaf = issue("signer", middle)
    refused(refusals.UntrustedCertificate, artifact(leaf, middle), rules(root))


def test_a_path_that_never_ends_is_refused():
    issuer = root = issue("root", authority=True)
    above = []
    for number in range(10):
        issuer = issue(f"authority {number}", issuer, authority=True)
        above.insert(0, issuer)
    refused(refusals.UntrustedCertificate, artifact(issue("signer", issuer), *above), rules(root))


def test_an_unknown_critical_extension_is_refused():
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")
    root = issue("root", authority=True)
    odd = issue("odd", root, authority=True, extensions=[(unknown, True)])
    for given in (
        artifact(issue("signer", root, extensions=[(unknown, True)])),
        artifact(issue("signer", odd), odd),
    ):
        refused(refusals.UntrustedCertificate, given, rules(root))
    assert verify(artifact(issue("signer", root, extensions=[(unknown, False)])), rules(root))


@pytest.mark.parametrize("critical", [True, False])
def test_an_authority_with_name_constraints_is_refused_because_nobody_checks_them(critical):
    limit = x509.NameConstraints(None, [x509.DNSName("example.com")])
    root = issue("root", authority=True, extensions=[(limit, critical)])
    refused(refusals.UntrustedCertificate, artifact(issue("signer", root)), rules(root))


def test_a_leaf_for_another_purpose_is_refused():
    root = issue("root", authority=True)
    web = issue("signer", root, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    refused(refusals.UntrustedCertificate, artifact(web), rules(root))
    silent = issue("signer", root, digital_signature=False)
    refused(refusals.UntrustedCertificate, artifact(silent), rules(root))
    assert verify(artifact(issue("signer", root, usages=None)), rules(root))


def test_another_subject_or_name_or_issuer_is_refused():
    root = issue("root", authority=True)
    issuer = x509.UnrecognizedExtension(ISSUER_V1, b"https://id.example.com")
    leaf = issue("signer", root, san="dev@example.com", extensions=[(issuer, False)])
    good = {"subject": "CN=signer", "san": "dev@example.com", "issuer": "https://id.example.com"}
    verified = verify(artifact(leaf), rules(root, **good))
    assert "san dev@example.com" in verified.identity
    for name, value in good.items():
        bad = {**good, name: f"{value}x"}
        refused(refusals.OtherIdentity, artifact(leaf), rules(root, **bad))
    bare = issue("signer", root)
    for name in ("san", "issuer"):
        refused(refusals.OtherIdentity, artifact(bare), rules(root, **{name: good[name]}))


def test_the_newer_issuer_extension_counts_alone():
    root = issue("root", authority=True)
    older = x509.UnrecognizedExtension(ISSUER_V1, b"https://old.example.com")
    text = b"https://new.example.com"
    newer = x509.UnrecognizedExtension(ISSUER_V2, bytes((0x0C, len(text))) + text)
    leaf = issue("signer", root, extensions=[(older, False), (newer, False)])
    assert verify(artifact(leaf), rules(root, issuer="https://new.example.com"))
    refused(refusals.OtherIdentity, artifact(leaf), rules(root, issuer="https://old.example.com"))
    broken = x509.UnrecognizedExtension(ISSUER_V2, b"\x0c\x40https")
    leaf = issue("signer", root, extensions=[(broken, False)])
    refused(refusals.UntrustedCertificate, artifact(leaf), rules(root, issuer="https"))


def test_a_certificate_that_is_not_valid_now_is_refused():
    root = issue("root", authority=True, valid=(NOW - 20 * DAY, NOW + 20 * DAY))
    for valid in (PAST, (NOW + DAY, NOW + 2 * DAY)):
        given = artifact(issue("signer", root, valid=valid))
        refused(refusals.CertificateNotValid, given, rules(root))
    old = issue("old", authority=True, valid=PAST)
    refused(refusals.CertificateNotValid, artifact(issue("signer", old)), rules(old))


def test_a_certificate_beside_a_signature_of_another_key_is_refused():
    root = issue("root", authority=True)
    leaf = issue("signer", root)
    forged = legacy_artifact(signer(), PAYLOAD, **{cosign.CERTIFICATE: leaf.pem})
    refused(refusals.ForgedByCertificate, forged, rules(root))


def test_a_bare_key_of_the_policy_counts_whatever_certificate_lies_beside_it():
    key = signer()
    given = legacy_artifact(key, PAYLOAD, **{cosign.CERTIFICATE: issue("anybody").pem})
    scope = Scope(repository=REPOSITORY, publishers=("team",))
    assert verify(given, policy({"team": [pem(key)]}, [scope])).identity == ""


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_certificate_that_cannot_be_read_is_malformed(text):
    root = issue("root", authority=True)
    given = legacy_artifact(signer(), PAYLOAD, **{cosign.CERTIFICATE: text})
    refused(refusals.MalformedSignature, given, rules(root))


# Transparency logs -------------------------------------------------------------------------


def promise(log, leaf, signature, *, at=NOW - 8.5 * DAY, payload=PAYLOAD, verifier=None):
    """What a log says that saw a signature."""
    body = {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": sha256(payload)}},
            "signature": {
                "content": signature,
                "publicKey": {"content": (verifier or leaf).pem.encode()},
            },
        },
    }
    encoded = base64.b64encode(msgspec.json.encode(body)).decode()
    unsigned = Promise(encoded, int(at.timestamp()), 7, log.key_id, b"")
    return Promise(encoded, int(at.timestamp()), 7, log.key_id, log.sign(unsigned.signed()))


def annotation(said):
    payload = {
        "body": said.body,
        "integratedTime": said.integrated_time,
        "logIndex": said.log_index,
        "logID": said.log_id,
    }
    return msgspec.json.encode(
        {"SignedEntryTimestamp": said.signature, "Payload": payload}
    ).decode()


def logged_rules(root, *logs):
    return rules(root, subject="CN=signer", logs=tuple(pem(log) for log in logs))


@pytest.fixture
def expired():
    """A root, and a leaf of it that was valid eight days ago."""
    root = issue("root", authority=True, valid=(NOW - 20 * DAY, NOW + 20 * DAY))
    return root, issue("signer", root, valid=PAST)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_log_s_word_for_the_time_makes_an_expired_certificate_count(expired, algorithm):
    root, leaf = expired
    log, given = signer(algorithm), artifact(leaf)
    signature = base64.b64decode(given.annotations[cosign.SIGNATURE])
    said = promise(log, leaf, signature)
    given = artifact_with(given, said)
    assert verify(given, logged_rules(root, log)).signed_at == NOW - 8.5 * DAY
    late = artifact_with(given, promise(log, leaf, signature, at=NOW))
    refused(refusals.CertificateNotValid, late, logged_rules(root, log))


def artifact_with(given, said):
    notes = {**given.annotations, cosign.LOG_ENTRY: annotation(said)}
    return SignatureArtifact(given.media_type, given.content, notes)


def test_a_log_s_word_about_anything_else_does_not_count(expired):
    root, leaf = expired
    log, given = signer(), artifact(leaf)
    signature = base64.b64decode(given.annotations[cosign.SIGNATURE])
    good = promise(log, leaf, signature)
    compiled = logged_rules(root, log)
    for said in (
        promise(signer(), leaf, signature),
        promise(log, leaf, b"another signature"),
        promise(log, leaf, signature, payload=b"another payload"),
        promise(log, leaf, signature, verifier=issue("another", root)),
        replace(good, integrated_time=good.integrated_time + 1),
        replace(good, log_index=8),
        replace(good, signature=b"\0"),
        Promise(
            "e30=", 1, 1, log.key_id, log.sign(Promise("e30=", 1, 1, log.key_id, b"").signed())
        ),
    ):
        refused(refusals.UnloggedSignature, artifact_with(given, said), compiled)
    refused(refusals.UnloggedSignature, given, compiled)


# Bundles -----------------------------------------------------------------------------------


def bundle(leaf, *above, key=None, entries=()):
    statement = sigstore.statement(IMAGE.removeprefix("sha256:"), {})
    holder = key or Holder(leaf)
    signature = holder.sign(dsse.pae(dsse.IN_TOTO, statement))
    chain = [{"rawBytes": one.der} for one in (leaf, *above)]
    material = (
        {"x509CertificateChain": {"certificates": chain}} if above else {"certificate": chain[0]}
    )
    content = {
        "mediaType": sigstore.BUNDLE_TYPE,
        "verificationMaterial": {**material, "tlogEntries": list(entries)},
        "dsseEnvelope": {
            "payload": statement,
            "payloadType": dsse.IN_TOTO,
            "signatures": [{"sig": signature}],
        },
    }
    return SignatureArtifact(SIGSTORE_BUNDLE, msgspec.json.encode(content)), statement, signature


def test_a_bundle_s_certificate_speaks_for_its_publisher():
    root = issue("root", authority=True)
    middle = issue("middle", root, authority=True)
    assert verify(bundle(issue("signer", root))[0], rules(root)).identity == "subject CN=signer"
    assert verify(bundle(issue("signer", middle), middle)[0], rules(root))
    refused(refusals.UntrustedCertificate, bundle(issue("signer", middle))[0], rules(root))
    forged = bundle(issue("signer", root), key=signer())[0]
    refused(refusals.ForgedByCertificate, forged, rules(root))


def test_a_bundle_s_log_entry_says_when_it_was_signed(expired):
    root, leaf = expired
    log = signer()
    _, statement, signature = bundle(leaf)
    body = {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": ""},
            "payloadHash": {"algorithm": "sha256", "value": sha256(statement)},
            "signatures": [{"signature": signature, "verifier": leaf.pem.encode()}],
        },
    }
    content = msgspec.json.encode(body)
    at = int((NOW - 8.5 * DAY).timestamp())
    said = Promise(base64.b64encode(content).decode(), at, 7, log.key_id, b"")
    entry = {
        "logIndex": "7",
        "logId": {"keyId": bytes.fromhex(log.key_id)},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": str(at),
        "inclusionPromise": {"signedEntryTimestamp": log.sign(said.signed())},
        "canonicalizedBody": content,
    }
    # ECDSA signs differently each time: the entry has to stand beside the very same signature.
    again = {
        "mediaType": sigstore.BUNDLE_TYPE,
        "verificationMaterial": {"certificate": {"rawBytes": leaf.der}, "tlogEntries": [entry]},
        "dsseEnvelope": {
            "payload": statement,
            "payloadType": dsse.IN_TOTO,
            "signatures": [{"sig": signature}],
        },
    }
    given = SignatureArtifact(SIGSTORE_BUNDLE, msgspec.json.encode(again))
    assert verify(given, logged_rules(root, log)).signed_at == NOW - 8.5 * DAY
    refused(refusals.UnloggedSignature, bundle(leaf, entries=[entry])[0], logged_rules(root, log))


def test_an_unclaimed_bundle_of_a_certificate_that_two_scopes_accept_is_refused():
    root = issue("root", authority=True)
    leaf = issue("signer", root, san="dev@example.com")
    given = bundle(leaf)[0]
    scopes = [
        Scope(repository=REPOSITORY, publishers=("team",)),
        Scope(repository="registry.example.com/b", publishers=("rival",)),
    ]
    team = CertificateIdentity(roots=(root.pem,), subject="CN=signer")
    same = CertificateIdentity(roots=(root.pem,), san="dev@example.com")
    other = CertificateIdentity(roots=(root.pem,), san="else@example.com")
    refused(refusals.RepositoryUnclaimed, given, policy({}, scopes, team=team, rival=same))
    assert verify(given, policy({}, scopes, team=team, rival=other)).publisher == "team"
