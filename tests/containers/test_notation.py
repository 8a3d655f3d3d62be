"""Notation signatures: who signed, what, when, under which root; and each of them wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.serialization import Encoding
from hostile import bit_flips

from catena.containers.signature import notation, notation_attributes
from catena.containers.signature.certificates import (
    BrokenChain,
    CertificateOutOfDate,
    UntrustedRoot,
)
from catena.containers.signature.identities import WrongIdentity
from catena.containers.signature.notation import (
    ExpiredSignature,
    NotationTrust,
    SignedInTheFuture,
    SignedOtherImage,
    TamperedEnvelope,
    UnsupportedSigner,
    WrongAlgorithm,
)
from catena.containers.signature.notation_attributes import (
    SignedAttributes,
    SigningScheme,
    UnknownCriticalHeader,
    WrongAttributes,
)
from catena.containers.signature.result import SignatureFormat, SignatureRefused
from catena.errors import FormatError
from catena.formats import cbor, cose, jws
from catena.formats import notation as documents
from catena.formats.cbor import Tag
from catena.formats.notation import PAYLOAD_TYPE, Payload
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from changed import replace
from code_signing import IMAGE, NOW, TARGET, issue, name, new_key, publisher

ALICE, MALLORY = publisher(1), publisher(2)
TRUST = NotationTrust((ALICE.root,))
KINDS = {
    "jws": (notation.sign_jws, notation.verify_jws),
    "cose": (notation.sign_cose, notation.verify_cose),
}
SCHEME = "io.cncf.notary.signingScheme"
HEADERS = {
    "crit": [SCHEME],
    "cty": PAYLOAD_TYPE,
    SCHEME: "notary.x509",
    "io.cncf.notary.signingTime": "2026-06-01T11:00:00Z",
}
PLAIN = {cose.CRIT: (SCHEME,), cose.CONTENT_TYPE: PAYLOAD_TYPE, SCHEME: "notary.x509", "io.cncf.notary.signingTime": Tag(1, 1780311600)}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def signed(kind, who=ALICE, target=TARGET, **options):
    return KINDS[kind][0](who.signer, who.chain, target, options.pop("now", NOW), **options)


def verified(kind, envelope, trust=TRUST, image=IMAGE, now=NOW):
    return KINDS[kind][1](envelope, image, trust, now)


def ders(chain):
    return [one.public_bytes(Encoding.DER) for one in chain]


def raw_signature(key, message):
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def jws_of(protected, *, chain=ALICE.chain, sign=None, payload=None):
    """A JWS envelope with any protected header, signed well."""
    sign = sign or partial(raw_signature, ALICE.signer._private_key)
    header = {"x5c": msgspec.Raw(msgspec.json.encode(ders(chain)))}
    unsigned = jws.JwsEnvelope(
        jws.encode_base64url(Payload(TARGET).encode() if payload is None else payload),
        jws.encode_base64url(
            protected if isinstance(protected, bytes) else json.dumps(protected).encode()
        ),
        "",
        header,
    )
    signature = jws.encode_base64url(sign(unsigned.to_be_signed()))
    return replace(unsigned, signature=signature).encode()


def cose_of(protected, *, chain=ALICE.chain, sign=None):
    """A COSE envelope with any protected headers, signed well."""
    sign = sign or partial(raw_signature, ALICE.signer._private_key)
    headers = {cose.X5CHAIN: tuple(ders(chain))}
    unsigned = cose.CoseSign1(cbor.encode(protected), headers, Payload(TARGET).encode(), b"")
    return cose.CoseSign1(
        unsigned.raw_protected, headers, unsigned.payload, sign(unsigned.to_be_signed())
    ).encode()


def with_headers(kind, **changes):
    """An envelope whose signed headers are changed; None takes one away."""
    if kind == "jws":
        fields = {"alg": "ES256", **HEADERS} | changes
        return jws_of({key: value for key, value in fields.items() if value is not None})
    fields = {cose.ALG: -7, **PLAIN}
    for key, value in changes.items():
        label = {"alg": cose.ALG, "crit": cose.CRIT, "cty": cose.CONTENT_TYPE}.get(key, key)
        fields[label] = tuple(value) if isinstance(value, list) else value
    return cose_of({key: value for key, value in fields.items() if value is not None})


def moment(kind, seconds):
    """A header's time in the envelope's own way."""
    if kind == "cose":
        return Tag(1, seconds)
    return f"{NOW.fromtimestamp(seconds, NOW.tzinfo):%Y-%m-%dT%H:%M:%SZ}"


def test_what_was_signed_is_verified(kind):
    proof = verified(kind, signed(kind, expiry=NOW + timedelta(days=1)))
    assert proof.image == IMAGE
    assert proof.format == SignatureFormat(f"notation-{kind}")
    assert proof.target == TARGET
    assert proof.key == ALICE.signer.key_id
    assert proof.certificate == ALICE.chain[0]
    assert proof.chain == ALICE.chain
    assert proof.subject == "CN=publisher 1,O=Example,ST=WA,C=US"
    assert proof.identity == "*"
    assert proof.signed_at == NOW
    assert proof.expires == NOW + timedelta(days=1)
    assert proof.scheme is SigningScheme.X509


def test_headers_made_by_hand_are_accepted_too(kind):
    """Or else the refusals below would prove nothing."""
    assert verified(kind, with_headers(kind)).key == ALICE.signer.key_id


def test_an_envelope_is_verified_as_its_media_type_says(kind):
    media_type = {"jws": documents.JWS_TYPE, "cose": documents.COSE_TYPE}[kind]
    notation.verify(media_type, signed(kind), IMAGE, TRUST, NOW)
    with pytest.raises(FormatError):
        notation.verify("application/json", signed(kind), IMAGE, TRUST, NOW)


@pytest.mark.parametrize("trusted", [0, 1, 2])
def test_any_certificate_of_the_chain_may_be_the_trusted_one(kind, trusted):
    verified(kind, signed(kind), NotationTrust((ALICE.chain[trusted],)))


def test_one_certificate_outside_a_list_is_a_chain_in_cose():
    alone = issue(name("alone"), key=new_key("p256", 7))
    envelope = cose.parse(notation.sign_cose(alone.signer, [alone.certificate], TARGET, NOW))
    headers = {cose.X5CHAIN: ders([alone.certificate])[0]}
    bare = cose.CoseSign1(envelope.raw_protected, headers, envelope.payload, envelope.signature)
    verified("cose", bare.encode(), NotationTrust((alone.certificate,)))


def proven(proof):
    """What a proof says, without the spelling of the certificates: DER has bits that nobody signs."""
    return (proof.image, proof.target, proof.key, proof.subject, proof.signed_at, proof.expires)


def test_a_tampered_envelope_is_refused(kind):
    envelope = signed(kind)
    good, refused = proven(verified(kind, envelope)), 0
    for damaged in bit_flips(envelope, step=1 + len(envelope) * 8 // 300):
        try:
            proof = verified(kind, damaged)
        except (FormatError, SignatureRefused):
            refused += 1
        else:  # only what nobody signs may differ: the agent's name
            assert proven(proof) == good
    assert refused > 250


def test_another_payload_is_tampering(kind):
    other = replace(TARGET, digest="sha256:" + "cd" * 32)
    if kind == "jws":
        parsed = jws.parse(signed(kind))
        forged = replace(parsed, payload=jws.encode_base64url(Payload(other).encode())).encode()
    else:
        parsed = cose.parse(signed(kind))
        forged = cose.CoseSign1(
            parsed.raw_protected, parsed.unprotected, Payload(other).encode(), parsed.signature
        ).encode()
    with pytest.raises(TamperedEnvelope):
        verified(kind, forged, image=other.digest)


def test_another_certificate_is_tampering(kind):
    if kind == "jws":
        parsed = jws.parse(signed(kind))
        header = {"x5c": msgspec.Raw(msgspec.json.encode(ders(MALLORY.chain)))}
        forged = replace(parsed, header=header).encode()
    else:
        parsed = cose.parse(signed(kind))
        forged = cose.CoseSign1(
            parsed.raw_protected,
            {cose.X5CHAIN: tuple(ders(MALLORY.chain))},
            parsed.payload,
            parsed.signature,
        ).encode()
    with pytest.raises(TamperedEnvelope):
        verified(kind, forged, NotationTrust((ALICE.root, MALLORY.root)))


def test_a_signature_of_another_image_is_refused(kind):
    with pytest.raises(SignedOtherImage):
        verified(kind, signed(kind), image="sha256:" + "cd" * 32)


def test_an_untrusted_root_is_refused(kind):
    with pytest.raises(UntrustedRoot):
        verified(kind, signed(kind, MALLORY))


def test_a_root_for_signing_authorities_trusts_no_signer(kind):
    with pytest.raises(UntrustedRoot):
        verified(kind, signed(kind), NotationTrust((), (ALICE.root,)))


def test_a_wrong_identity_is_refused(kind):
    trust = NotationTrust((ALICE.root,), (), ("x509.subject: C=US, ST=WA, O=Other",))
    with pytest.raises(WrongIdentity):
        verified(kind, signed(kind), trust)


def test_the_identity_that_matched_is_told(kind):
    wanted = "x509.subject: C=US, ST=WA, O=Example, CN=publisher 1"
    trust = NotationTrust((ALICE.root,), (), ("x509.subject: C=US, ST=WA, O=Other", wanted))
    assert verified(kind, signed(kind), trust).identity == wanted


def test_an_expired_signature_is_refused_from_its_expiry_on(kind):
    envelope = signed(kind, now=NOW - timedelta(days=2), expiry=NOW)
    verified(kind, envelope, now=NOW - timedelta(seconds=1))
    for now in (NOW, NOW + timedelta(days=1)):
        with pytest.raises(ExpiredSignature):
            verified(kind, envelope, now=now)


def test_a_signature_from_the_future_is_refused(kind):
    verified(kind, signed(kind, now=NOW + timedelta(minutes=4)))
    with pytest.raises(SignedInTheFuture):
        verified(kind, signed(kind, now=NOW + timedelta(minutes=6)))


def test_an_expired_certificate_is_refused_whenever_it_signed(kind):
    with pytest.raises(CertificateOutOfDate):
        verified(kind, signed(kind), now=NOW + timedelta(days=400))


def test_a_chain_without_its_root_is_refused(kind):
    headers = {"jws": {"alg": "ES256", **HEADERS}, "cose": {cose.ALG: -7, **PLAIN}}[kind]
    envelope = {"jws": jws_of, "cose": cose_of}[kind](headers, chain=ALICE.chain[:2])
    with pytest.raises(BrokenChain):
        verified(kind, envelope, NotationTrust((ALICE.chain[1],)))


# Signed attributes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "io.cncf.notary.verificationPlugin",
        "io.cncf.notary.verificationPluginMinVersion",
        "b64",
        "exp",
        "io.cncf.notary.signingTime",
    ],
)
def test_an_unknown_critical_header_is_refused(kind, header):
    value = {header: moment(kind, 1780311600) if header.endswith("Time") else "x"}
    with pytest.raises(UnknownCriticalHeader):
        verified(kind, with_headers(kind, crit=[SCHEME, header], **value))


def test_a_plugin_that_is_not_even_critical_is_refused(kind):
    with pytest.raises(UnknownCriticalHeader):
        verified(kind, with_headers(kind, **{"io.cncf.notary.verificationPlugin": "x"}))


def test_a_critical_label_that_is_a_number_is_refused():
    with pytest.raises(UnknownCriticalHeader):
        verified("cose", with_headers("cose", crit=[SCHEME, 4]))


def test_other_signed_headers_are_passed_over(kind):
    verified(kind, with_headers(kind, other="value"))


def wrong_attributes(kind):
    time = moment(kind, 1780311600)
    late = moment(kind, 1999999999)
    expiry, authentic = "io.cncf.notary.expiry", "io.cncf.notary.authenticSigningTime"
    yield "scheme not critical", {"crit": [expiry], expiry: late}
    yield "critical header absent", {"crit": [SCHEME, expiry]}
    yield "critical header twice", {"crit": [SCHEME, SCHEME]}
    yield "expiry not critical", {expiry: late}
    yield "no scheme", {SCHEME: None, "crit": []}
    yield "scheme unknown", {SCHEME: "notary.x509.other"}
    yield "scheme is a number", {SCHEME: 1} if kind == "cose" else {SCHEME: ""}
    yield "no signing time", {"io.cncf.notary.signingTime": None}
    yield "two signing times", {"crit": [SCHEME, authentic], authentic: time}
    yield "authority without its time", {SCHEME: "notary.x509.signingAuthority"}
    yield "other content", {"cty": "application/json"}
    yield "no content type", {"cty": None}


@pytest.mark.parametrize("case", [case for case, _ in wrong_attributes("jws")])
def test_contradicting_attributes_are_refused(kind, case):
    with pytest.raises(WrongAttributes):
        verified(kind, with_headers(kind, **dict(wrong_attributes(kind))[case]))


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": None},
        {"alg": 7},
        {"crit": "x"},
        {"io.cncf.notary.signingTime": "yesterday"},
        {"io.cncf.notary.signingTime": "2026-06-01T11:00:00"},
        {"io.cncf.notary.signingTime": 1780311600},
    ],
)
def test_malformed_jws_headers_are_refused(changes):
    with pytest.raises(FormatError):
        verified("jws", with_headers("jws", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": None},
        {"alg": "ES256"},
        {"crit": "x"},
        {"io.cncf.notary.signingTime": 1780311600},
        {"io.cncf.notary.signingTime": Tag(0, 1780311600)},
        {"io.cncf.notary.signingTime": Tag(1, -1)},
        {"io.cncf.notary.signingTime": Tag(1, 2**60)},
    ],
)
def test_malformed_cose_headers_are_refused(changes):
    with pytest.raises(FormatError):
        verified("cose", with_headers("cose", **changes))


def test_a_header_that_stands_twice_is_refused():
    text = json.dumps({"alg": "ES256", **HEADERS})[:-1] + ',"alg":"ES256"}'
    with pytest.raises(FormatError, match="twice"):
        verified("jws", jws_of(text.encode()))


@pytest.mark.parametrize("algorithm", ["ES384", "PS256", "HS256", "none", "RS256"])
def test_a_signature_that_names_another_algorithm_is_refused(kind, algorithm):
    names = {"ES384": -35, "PS256": -37, "HS256": 5, "none": 0, "RS256": -257}
    value = algorithm if kind == "jws" else names[algorithm]
    with pytest.raises(WrongAlgorithm):
        verified(kind, with_headers(kind, alg=value))


@pytest.mark.parametrize("expiry", [None, NOW + timedelta(days=1)])
@pytest.mark.parametrize("scheme", SigningScheme)
def test_attributes_survive_their_encoding(scheme, expiry):
    attributes = SignedAttributes("ES256", scheme, NOW, expiry)
    assert notation_attributes.from_jws(notation_attributes.to_jws(attributes)) == attributes
    headers = cbor.parse(notation_attributes.to_cose(attributes))
    assert notation_attributes.from_cose(headers) == attributes


def test_a_signing_authority_is_judged_at_its_own_time_and_roots(kind):
    attributes = SignedAttributes("ES256", SigningScheme.AUTHORITY, NOW, None)
    if kind == "jws":
        envelope = jws_of(notation_attributes.to_jws(attributes))
    else:
        envelope = cose_of(cbor.parse(notation_attributes.to_cose(attributes)))
    later = NOW + timedelta(days=4000)
    proof = verified(kind, envelope, NotationTrust((), (ALICE.root,)), now=later)
    assert (proof.scheme, proof.signed_at) == (SigningScheme.AUTHORITY, NOW)
    with pytest.raises(UntrustedRoot):
        verified(kind, envelope, NotationTrust((ALICE.root,)))
    early = NotationTrust((), (ALICE.root,))
    with pytest.raises(SignedInTheFuture):
        verified(kind, envelope, early, now=NOW - timedelta(days=1))


# Keys --------------------------------------------------------------------------------------


def own_chain(key, algorithm=None):
    return (issue(name("own"), key=key, algorithm=algorithm).certificate,)


@pytest.mark.parametrize(
    ("kind_of_key", "algorithm", "digest"),
    [
        ("rsa2048", "PS256", hashes.SHA256()),
        ("rsa3072", "PS384", hashes.SHA384()),
        ("p384", "ES384", hashes.SHA384()),
    ],
)
def test_keys_of_other_kinds_verify_with_their_algorithm(kind_of_key, algorithm, digest):
    key = new_key(kind_of_key)
    chain = own_chain(key)

    def sign(message):
        if algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return key.sign(message, pss, digest)
        r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")

    envelope = jws_of({"alg": algorithm, **HEADERS}, chain=chain, sign=sign)
    assert verified("jws", envelope, NotationTrust(chain)).subject.startswith("CN=own")


def test_an_rsa_signature_of_the_older_kind_is_refused():
    key = new_key("rsa2048")
    envelope = jws_of(
        {"alg": "PS256", **HEADERS},
        chain=own_chain(key),
        sign=lambda message: key.sign(message, padding.PKCS1v15(), hashes.SHA256()),
    )
    with pytest.raises(TamperedEnvelope):
        verified("jws", envelope, NotationTrust(own_chain(key)))


@pytest.mark.parametrize("kind_of_key", ["rsa1024", "k256"])
def test_a_weak_key_is_refused_before_its_signature(kind_of_key):
    chain = own_chain(new_key(kind_of_key))
    envelope = jws_of({"alg": "ES256", **HEADERS}, chain=chain, sign=lambda _: bytes(64))
    with pytest.raises(WrongAlgorithm):
        verified("jws", envelope, NotationTrust(chain))


@pytest.mark.parametrize("size", [0, 63, 65, 72])
def test_a_signature_of_another_length_is_refused(size):
    envelope = jws_of({"alg": "ES256", **HEADERS}, sign=lambda _: bytes(size))
    with pytest.raises(TamperedEnvelope):
        verified("jws", envelope)


@pytest.mark.parametrize("chain", [[], None, [b"no certificate"], [b""] * 9, "text"])
def test_an_envelope_without_certificates_is_refused(kind, chain):
    if kind == "jws":
        value = {} if chain is None else {"x5c": msgspec.Raw(msgspec.json.encode(chain))}
        forged = replace(jws.parse(signed(kind)), header=value).encode()
    else:
        parsed = cose.parse(signed(kind))
        value = {} if chain is None else {cose.X5CHAIN: tuple(chain)}
        forged = cose.CoseSign1(
            parsed.raw_protected, value, parsed.payload, parsed.signature
        ).encode()
    with pytest.raises(FormatError):
        verified(kind, forged)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519])
def test_only_a_p256_key_signs(kind, algorithm):
    signer = PrivateKeySigner(generate_key(algorithm))
    with pytest.raises(UnsupportedSigner):
        KINDS[kind][0](signer, ALICE.chain, TARGET, NOW)


@pytest.mark.parametrize("chain", [(), MALLORY.chain])
def test_a_signer_needs_its_own_certificate(kind, chain):
    with pytest.raises(UnsupportedSigner):
        KINDS[kind][0](ALICE.signer, chain, TARGET, NOW)


def test_thumbprints_name_the_chain():
    assert json.loads(notation.thumbprints(ALICE.chain)) == [
        one.fingerprint(hashes.SHA256()).hex() for one in ALICE.chain
    ]


def test_a_proof_holds_a_certificate_and_no_private_key():
    proof = verified("jws", signed("jws"))
    assert isinstance(proof.certificate, x509.Certificate)
