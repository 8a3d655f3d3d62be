"""Trusted identities: every attribute counts, the order does not, and none stands twice."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from catena.containers.signature.identities import (
    MalformedIdentity,
    WrongIdentity,
    match_identity,
    parse_identity,
)
from code_signing import name

SUBJECT = name("signer")


@pytest.mark.parametrize(
    "identity",
    [
        "*",
        "x509.subject: C=US, ST=WA, O=Example",
        "x509.subject:C=US,ST=WA,O=Example",
        "x509.subject: O=Example, CN=signer, C=US, S=WA",
        "x509.subject: c=US, st=WA, o=Example",
    ],
)
def test_a_subject_with_every_attribute_matches(identity):
    assert match_identity(SUBJECT, [identity]) == identity


@pytest.mark.parametrize(
    "identity",
    [
        "x509.subject: C=US, ST=WA, O=example",
        "x509.subject: C=US, ST=WA, O=Exampl",
        "x509.subject: C=US, ST=OR, O=Example",
        "x509.subject: C=US, ST=WA, O=Example, OU=Builds",
        "x509.subject: C=US, ST=WA, O=Example, CN=signer2",
    ],
)
def test_a_subject_that_lacks_one_does_not(identity):
    with pytest.raises(WrongIdentity):
        match_identity(SUBJECT, [identity])


def test_no_identity_matches_nobody():
    with pytest.raises(WrongIdentity):
        match_identity(SUBJECT, [])


def test_a_comma_in_a_value_is_escaped():
    subject = name("signer", organisation="Example, Inc.")
    assert match_identity(subject, ["x509.subject: C=US, ST=WA, O=Example\\, Inc."])
    with pytest.raises(MalformedIdentity):
        match_identity(subject, ["x509.subject: C=US, ST=WA, O=Example, Inc."])


def test_a_subject_with_an_attribute_twice_matches_no_name():
    twice = x509.Name([*SUBJECT, x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")])
    with pytest.raises(WrongIdentity):
        match_identity(twice, ["x509.subject: C=US, ST=WA, O=Example"])


@pytest.mark.parametrize(
    "identity",
    [
        "",
        "C=US, ST=WA, O=Example",
        "x509.san: C=US, ST=WA, O=Example",
        "x509.subject:",
        "x509.subject: C=US, ST=WA",
        "x509.subject: C=US, ST=WA, O=",
        "x509.subject: C=US, ST=WA, O=Example, O=Other",
        "x509.subject: C=US, ST=WA, S=OR, O=Example",
        "x509.subject: C=US, ST=WA, O=Example, X=1",
        "x509.subject: C=US, ST=WA, O=Example, CN",
        "x509.subject: C=US+ST=WA, ST=WA, O=Example",
        "x509.subject: C=US, ST=WA, O=*,",
        "x509.subject: C=US, ST=WA, O=" + "x" * 1024,
    ],
)
def test_a_malformed_identity_is_refused(identity):
    with pytest.raises(MalformedIdentity):
        parse_identity(identity)
