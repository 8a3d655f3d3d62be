"""Payloads, bundles and log entries of image signatures: read exactly, or refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from fuzz_seeds import log_annotation, log_entries, sigstore_bundles
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import dsse, oci, rekor, sigstore, simplesigning

IMAGE = oci.digest_of(b"image")
PAYLOAD = simplesigning.encode(IMAGE, "a.example/b:1", {"version": "1"})
STATEMENT = sigstore.statement("0" * 64, {"version": "1"})
BUNDLE, BARE = sigstore_bundles()


def edited(data, path, value):
    """A JSON document with the member at ``path`` set, or removed where the value is None."""
    document = json.loads(data)
    *above, last = path
    place = document
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


PARSERS = {
    "payload": (simplesigning.parse, PAYLOAD),
    "statement": (sigstore.parse_statement, STATEMENT),
    "bundle": (sigstore.parse, BUNDLE),
    "bare bundle": (sigstore.parse, BARE),
    "annotation": (rekor.parse_annotation, log_annotation()),
}


@pytest.mark.parametrize("what", PARSERS)
def test_what_is_cut_anywhere_is_refused_and_no_flipped_bit_breaks_a_reader(what):
    parse, good = PARSERS[what]
    parse(good)
    for end in range(len(good)):
        with pytest.raises(FormatError):
            parse(good[:end])
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(good, 3))


@pytest.mark.parametrize("what", PARSERS)
def test_an_unknown_member_or_one_that_occurs_twice_is_refused(what):
    parse, good = PARSERS[what]
    with pytest.raises(FormatError):
        parse(edited(good, ["unknown"], 1))
    text = good.decode()
    name, _, rest = text[2:].partition('":')
    with pytest.raises(FormatError):
        parse(f'{{"{name}":{rest[:-1]},"{name}":{rest}'.encode())
    with pytest.raises(FormatError):
        parse(good + b"{}")


# Simple signing ----------------------------------------------------------------------------


def test_a_payload_says_what_is_signed():
    said = simplesigning.parse(PAYLOAD)
    assert (said.type, said.image, said.reference) == (
        simplesigning.COSIGN_TYPE,
        IMAGE,
        "a.example/b:1",
    )
    assert (dict(said.texts), said.timestamp, said.creator) == ({"version": "1"}, None, "")


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=5), st.text(max_size=9))
def test_annotations_survive_their_encoding(annotations, reference):
    said = simplesigning.parse(simplesigning.encode(IMAGE, reference, annotations))
    assert (dict(said.texts), said.reference) == (annotations, reference)


def test_no_annotations_are_null_as_cosign_writes_it():
    assert simplesigning.encode(IMAGE, "a", {}).endswith(b'"optional":null}')


def test_a_time_is_read_and_must_be_one():
    good = edited(PAYLOAD, ["optional"], {"timestamp": 1458239713, "creator": "tool"})
    said = simplesigning.parse(good)
    assert said.timestamp == datetime(2016, 3, 17, 18, 35, 13, tzinfo=UTC)
    assert said.creator == "tool"
    for bad in (1.5, True, -1, 2**38, [], {"a": 1}):
        with pytest.raises(FormatError):
            simplesigning.parse(edited(PAYLOAD, ["optional"], {"timestamp": bad}))
    with pytest.raises(FormatError):
        simplesigning.parse(edited(PAYLOAD, ["optional"], {"creator": 1}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["critical"], None),
        (["critical", "type"], None),
        (["critical", "image"], None),
        (["critical", "identity"], None),
        (["critical", "more"], 1),
        (["critical", "image", "more"], 1),
        (["critical", "identity", "more"], 1),
        (["critical", "image", "docker-manifest-digest"], "sha512:" + "0" * 128),
        (["critical", "image", "docker-manifest-digest"], "0" * 64),
        (["optional"], []),
        (["optional"], "x"),
    ],
)
def test_a_payload_is_refused_with(path, value):
    with pytest.raises(FormatError):
        simplesigning.parse(edited(PAYLOAD, path, value))


# Bundles -----------------------------------------------------------------------------------


def test_a_bundle_around_a_statement_is_read():
    bundle = sigstore.parse(BUNDLE)
    assert (bundle.certificates, bundle.promises) == ((), ())
    assert isinstance(bundle.content, sigstore.SignedStatement)
    assert bundle.content.message == dsse.pae(dsse.IN_TOTO, bundle.content.payload)


def test_a_bundle_around_a_bare_signature_is_read():
    bundle = sigstore.parse(BARE)
    assert bundle.certificates == (b"DER",)
    assert bundle.content == sigstore.SignedDigest("00" * 32, b"sig")
    (promise,) = bundle.promises
    assert (promise.integrated_time, promise.log_index) == (2, 1)
    assert base64.b64decode(promise.body) == log_entries()[1]


MATERIAL = ["verificationMaterial"]
ENTRY = [*MATERIAL, "tlogEntries", 0]


@pytest.mark.parametrize(
    ("good", "path", "value"),
    [
        (BUNDLE, ["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.2"),
        (BUNDLE, [*MATERIAL, "publicKey"], None),
        (BUNDLE, [*MATERIAL, "certificate"], {"rawBytes": "AAAA"}),
        (BUNDLE, [*MATERIAL, "unknown"], 1),
        (BUNDLE, ["dsseEnvelope"], None),
        (BUNDLE, ["messageSignature"], {"signature": "AAAA"}),
        (BUNDLE, ["dsseEnvelope", "signatures"], []),
        (BUNDLE, ["dsseEnvelope", "signatures"], [{"sig": "AAAA"}] * 2),
        (BUNDLE, ["dsseEnvelope", "payload"], "no base64"),
        (BARE, [*MATERIAL, "x509CertificateChain", "certificates"], []),
        (BARE, [*MATERIAL, "x509CertificateChain", "certificates"], [{"rawBytes": ""}] * 17),
        (BARE, ["messageSignature", "messageDigest", "algorithm"], "SHA2_512"),
        (BARE, ["messageSignature", "messageDigest", "digest"], "AAAA"),
        (BARE, [*ENTRY, "integratedTime"], 2),
        (BARE, [*ENTRY, "integratedTime"], "-2"),
        (BARE, [*ENTRY, "integratedTime"], "9" * 19),
        (BARE, [*ENTRY, "logIndex"], "x"),
    ],
)
def test_a_bundle_is_refused_with(good, path, value):
    with pytest.raises(FormatError):
        sigstore.parse(edited(good, path, value))


def test_log_entries_without_a_promise_promise_nothing():
    assert sigstore.parse(edited(BARE, [*ENTRY, "inclusionPromise"], None)).promises == ()
    assert sigstore.parse(edited(BARE, [*ENTRY, "logId"], None)).promises == ()


def test_a_statement_is_about_one_image():
    said = sigstore.parse_statement(STATEMENT)
    assert (said.predicate_type, said.sha256) == (sigstore.SIGN_PREDICATE, "0" * 64)
    assert dict(said.annotations) == {"version": "1"}
    for path, value in (
        (["_type"], "https://example.com/else"),
        (["subject"], []),
        (["subject"], json.loads(STATEMENT)["subject"] * 2),
        (["subject", 0, "unknown"], 1),
        (["predicateType"], None),
    ):
        with pytest.raises(FormatError):
            sigstore.parse_statement(edited(STATEMENT, path, value))


# Log entries -------------------------------------------------------------------------------


def test_both_kinds_of_log_entries_are_read():
    for entry in log_entries():
        said = rekor.parse_entry(base64.b64encode(entry).decode())
        assert (said.sha256, said.signature, said.verifier) == ("0" * 64, b"sig", b"PEM")


@pytest.mark.parametrize(
    ("number", "path", "value"),
    [
        (0, ["apiVersion"], "0.0.2"),
        (0, ["kind"], "intoto"),
        (0, ["spec"], {}),
        (0, ["spec", "data", "hash", "algorithm"], "sha512"),
        (1, ["spec", "signatures"], []),
        (1, ["spec", "unknown"], 1),
    ],
)
def test_a_log_entry_is_refused_with(number, path, value):
    entry = edited(log_entries()[number], path, value)
    with pytest.raises(FormatError):
        rekor.parse_entry(base64.b64encode(entry).decode())


@pytest.mark.parametrize("body", ["", "%", "AA=A", "e30="])
def test_what_is_no_log_entry_is_refused(body):
    with pytest.raises(FormatError):
        rekor.parse_entry(body)


def test_what_a_log_signs_is_canonical():
    promise = rekor.parse_annotation(log_annotation())
    assert (
        promise.signed()
        == json.dumps(json.loads(promise.signed()), sort_keys=True, separators=(",", ":")).encode()
    )
    for bad in (-1, 2**38, "1", 1.5):
        with pytest.raises(FormatError):
            rekor.parse_annotation(edited(log_annotation(), ["Payload", "integratedTime"], bad))
