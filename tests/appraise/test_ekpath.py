"""Paths: what issuers may do, which way is found, and that looking for one ends."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier
from forged import key
from test_endorsement import (
    EK_USAGE,
    LEAF,
    MIDDLE,
    MIDDLE_KEY,
    NOW,
    ROOT,
    ROOT_KEY,
    ROOTS,
    YEAR,
    authority,
    certificate,
    leaf,
    name,
    rsa_ek,
    rsa_key,
    usage,
)

from catena.appraise import ekpath
from catena.appraise import endorsement_refusal as refusals
from catena.appraise.certificate import parse_certificate as parse
from catena.appraise.endorsement import (
    EndorsementKind,
    TrustRoot,
    TrustRoots,
    authorities_above,
    authority_digest,
    endorse,
)
from catena.appraise.revocation import (
    MalformedRevocationList,
    RevocationList,
    parse_revocation_list,
)
from changed import replace

CA = (x509.BasicConstraints(ca=True, path_length=None), True)
SIGNS = (usage("key_cert_sign"), True)
CRL_SIGNS = (usage("key_cert_sign", "crl_sign"), True)
BELOW = leaf(issuer="middle", issuer_key=MIDDLE_KEY)


def middle(*extensions, **changes) -> bytes:
    return certificate("middle", MIDDLE_KEY.public_key(), "root", ROOT_KEY, *extensions, **changes)


@pytest.mark.parametrize(
    "usages",
    [[EK_USAGE], [ObjectIdentifier(ekpath.ANY_USAGE)], [ObjectIdentifier("1.2.3"), EK_USAGE]],
)
def test_an_issuer_that_may_issue_ek_certificates_does(usages):
    issuer = middle(CA, SIGNS, (x509.ExtendedKeyUsage(usages), False))
    endorse([BELOW, issuer], rsa_ek(), ROOTS, NOW)


def test_an_issuer_for_other_certificates_is_refused():
    other = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")])
    with pytest.raises(refusals.EkUsageNotNested):
        endorse([BELOW, middle(CA, SIGNS, (other, False))], rsa_ek(), ROOTS, NOW)


def test_name_constraints_that_are_not_critical_are_refused_too():
    limits = x509.NameConstraints([x509.DNSName("example.org")], None)
    with pytest.raises(refusals.ConstrainedEkNames):
        endorse([BELOW, middle(CA, SIGNS, (limits, False))], rsa_ek(), ROOTS, NOW)


def test_an_empty_subject_with_a_critical_alternative_name_is_what_the_profile_asks_for():
    names = x509.SubjectAlternativeName([x509.DirectoryName(name("TPM"))])
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([]),
        issuer_name=name("root"),
        public_key=rsa_key().public_key(),
        serial_number=7,
        not_valid_before=NOW - YEAR,
        not_valid_after=NOW + YEAR,
    ).add_extension(names, critical=True)
    for extension, critical in LEAF:
        builder = builder.add_extension(extension, critical)
    der = builder.sign(ROOT_KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    endorse([der], rsa_ek(), ROOTS, NOW)


def test_a_self_issued_certificate_does_not_count_as_length():
    """A root that rolled its key over: the new one is certified by the old, in the same name."""
    root = authority("root", ROOT_KEY, "root", ROOT_KEY, length=1)
    rolled = authority("root", key(140), "root", ROOT_KEY)
    one = authority("one", key(141), "root", key(140))
    roots = TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, root),))
    endorse([leaf(issuer="one", issuer_key=key(141)), one, rolled], rsa_ek(), roots, NOW)
    two = authority("two", key(142), "one", key(141))
    with pytest.raises(refusals.EkPathTooLong):
        endorse([leaf(issuer="two", issuer_key=key(142)), two, one, rolled], rsa_ek(), roots, NOW)


def test_the_chain_of_an_on_die_authority_fits():
    chain, above = [], ("root", ROOT_KEY)
    for number in range(ekpath.MAX_INTERMEDIATES):
        chain.append(authority(f"ca{number}", key(200 + number), *above))
        above = (f"ca{number}", key(200 + number))
    endorse([leaf(issuer=above[0], issuer_key=above[1]), *chain], rsa_ek(), ROOTS, NOW)


def test_the_order_in_which_intermediates_are_sent_does_not_matter():
    one = authority("one", key(150), "root", ROOT_KEY)
    two = authority("two", key(151), "one", key(150))
    der = leaf(issuer="two", issuer_key=key(151))
    endorse([der, one, two], rsa_ek(), ROOTS, NOW)
    endorse([der, two, one], rsa_ek(), ROOTS, NOW)


def test_an_authority_that_was_certified_twice_is_tried_both_ways():
    stranger = authority("middle", MIDDLE_KEY, "stranger", key(160))
    expired = authority("middle", MIDDLE_KEY, "root", ROOT_KEY, end=NOW - timedelta(days=1))
    endorse([BELOW, stranger, expired, MIDDLE], rsa_ek(), ROOTS, NOW)
    with pytest.raises(refusals.ExpiredEkCertificate):
        endorse([BELOW, stranger, expired], rsa_ek(), ROOTS, NOW)


def test_a_sent_certificate_that_cannot_be_read_helps_nothing_and_stops_nothing():
    endorse([BELOW, b"\x30\x03\x02\x01\x01", MIDDLE], rsa_ek(), ROOTS, NOW)
    with pytest.raises(refusals.MalformedEkCertificate):
        endorse([BELOW, MIDDLE[:-1]], rsa_ek(), ROOTS, NOW)


def test_many_authorities_of_one_name_do_not_make_the_search_long():
    """A fork at every level: 4^6 paths, of which none leads anywhere."""
    pool = tuple(
        authority(
            f"level {level}", key(400 + level), f"level {level + 1}", key(401 + level), length=9 - n
        )
        for level in range(8)
        for n in range(4)
    )
    crowded = replace(ROOTS, intermediates=pool)
    with pytest.raises(refusals.EkPathSearchTooWide):
        endorse([leaf(issuer="level 0", issuer_key=key(400))], rsa_ek(), crowded, NOW)


def test_validity_is_that_of_the_time_asked_for():
    later = NOW + YEAR * 3 // 2
    der = leaf(issuer="middle", issuer_key=MIDDLE_KEY, end=NOW + 2 * YEAR)
    root = authority("root", ROOT_KEY, "root", ROOT_KEY, end=NOW + 2 * YEAR)
    roots = TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, root),))
    endorse([der, MIDDLE], rsa_ek(), roots, NOW)
    with pytest.raises(refusals.ExpiredEkCertificate):
        endorse([der, MIDDLE], rsa_ek(), roots, later)


# Revocation --------------------------------------------------------------------------------


def crl(
    *serials: int,
    issuer: str = "root",
    signer=ROOT_KEY,
    start=NOW - timedelta(days=1),
    end=NOW + timedelta(days=1),
    extensions=(),
) -> bytes:
    builder = x509.CertificateRevocationListBuilder(name(issuer), start, end)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder(serial, start, [])
        builder = builder.add_revoked_certificate(entry.build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def revoking(*lists: bytes, roots: TrustRoots = ROOTS) -> TrustRoots:
    return replace(roots, revoked=tuple(map(parse_revocation_list, lists)))


def crl_root(*, extensions=(CA, CRL_SIGNS)) -> TrustRoots:
    root = certificate("root", ROOT_KEY.public_key(), "root", ROOT_KEY, *extensions)
    return TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, root),))


ACCEPTED = crl_root()


def test_a_certificate_that_is_on_no_list_endorses():
    endorse([leaf()], rsa_ek(), revoking(crl(8), roots=ACCEPTED), NOW)
    endorse([leaf()], rsa_ek(), revoking(crl(7, issuer="another"), roots=ACCEPTED), NOW)


def test_a_revoked_ek_certificate_is_refused():
    with pytest.raises(refusals.RevokedEkCertificate):
        endorse([leaf()], rsa_ek(), revoking(crl(6, 7), roots=ACCEPTED), NOW)


def test_a_revoked_intermediate_is_refused():
    with pytest.raises(refusals.RevokedEkCertificate):
        endorse([BELOW, MIDDLE], rsa_ek(), revoking(crl(7), roots=ACCEPTED), NOW)


@pytest.mark.parametrize("days", [-2, 2])
def test_a_list_that_is_not_current_refuses_everything_of_its_issuer(days):
    with pytest.raises(refusals.StaleRevocationList):
        endorse([leaf()], rsa_ek(), revoking(crl(8), roots=ACCEPTED), NOW + timedelta(days=days))


def test_what_was_revoked_stays_revoked_when_the_list_is_stale_or_superseded():
    old = crl(7, start=NOW - YEAR, end=NOW - timedelta(days=300))
    with pytest.raises(refusals.RevokedEkCertificate):
        endorse([leaf()], rsa_ek(), revoking(old, roots=ACCEPTED), NOW)
    with pytest.raises(refusals.RevokedEkCertificate):
        endorse([leaf()], rsa_ek(), revoking(old, crl(8), roots=ACCEPTED), NOW)


def test_a_newer_list_takes_the_place_of_a_stale_one():
    old = crl(8, start=NOW - YEAR, end=NOW - timedelta(days=300))
    endorse([leaf()], rsa_ek(), revoking(old, crl(8), roots=ACCEPTED), NOW)


def test_a_list_in_an_issuers_name_that_its_key_did_not_sign_refuses():
    """It revokes nothing, and it does not count as current either."""
    with pytest.raises(refusals.ForeignRevocationList):
        endorse([leaf()], rsa_ek(), revoking(crl(8, signer=key(170)), roots=ACCEPTED), NOW)
    both = revoking(crl(7, signer=key(170)), crl(8), roots=ACCEPTED)
    endorse([leaf()], rsa_ek(), both, NOW)


def test_a_list_of_an_issuer_that_may_not_sign_lists_refuses():
    with pytest.raises(refusals.ForeignRevocationList):
        endorse([leaf()], rsa_ek(), revoking(crl(8), roots=crl_root(extensions=(CA, SIGNS))), NOW)
    endorse([leaf()], rsa_ek(), revoking(crl(8), roots=crl_root(extensions=(CA,))), NOW)


def test_a_list_is_read_with_its_issuer_and_times():
    found = parse_revocation_list(crl(1, 2, 3))
    assert isinstance(found, RevocationList)
    assert (found.issuer_text, found.revoked) == ("CN=root", frozenset({1, 2, 3}))
    assert (found.this_update, found.next_update) == (
        NOW - timedelta(days=1),
        NOW + timedelta(days=1),
    )


PARTIAL = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=True,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)


@pytest.mark.parametrize("odd", [PARTIAL, x509.DeltaCRLIndicator(4)])
def test_a_list_of_some_certificates_only_is_malformed(odd):
    with pytest.raises(MalformedRevocationList, match="critical"):
        parse_revocation_list(crl(8, extensions=((odd, True),)))


def test_a_truncated_list_is_malformed():
    der = crl(8)
    for size in range(len(der)):
        with pytest.raises(MalformedRevocationList):
            parse_revocation_list(der[:size])
    with pytest.raises(MalformedRevocationList):
        parse_revocation_list(der + b"\0")


def test_a_list_without_a_next_update_is_malformed():
    outer = asn1_crl.CertificateList.load(crl(8))
    del outer["tbs_cert_list"]["next_update"]
    with pytest.raises(MalformedRevocationList):
        parse_revocation_list(outer.dump(force=True))


def test_a_certificate_is_no_list():
    with pytest.raises(MalformedRevocationList):
        parse_revocation_list(ROOT)


# Whatever the time -----------------------------------------------------------------------------


def test_without_a_time_what_is_only_old_is_not_refused():
    stale = crl(8, start=NOW - YEAR, end=NOW - timedelta(days=300))
    with pytest.raises(refusals.StaleRevocationList):
        endorse([leaf()], rsa_ek(), revoking(stale, roots=ACCEPTED), NOW)
    endorse([leaf()], rsa_ek(), revoking(stale, roots=ACCEPTED), None)
    expired = leaf(start=NOW - 2 * YEAR, end=NOW - YEAR)
    with pytest.raises(refusals.ExpiredEkCertificate):
        endorse([expired], rsa_ek(), ROOTS, NOW)
    endorse([expired], rsa_ek(), ROOTS, None)


def test_without_a_time_a_revocation_counts_behind_a_stale_list_too():
    """The EK's own issuer has a stale list; a list of the root above names that issuer."""
    issuer = certificate("middle", MIDDLE_KEY.public_key(), "root", ROOT_KEY, CA, CRL_SIGNS)
    old = {"start": NOW - YEAR, "end": NOW - timedelta(days=300)}
    stale = crl(8, issuer="middle", signer=MIDDLE_KEY, **old)
    revoked = crl(7)
    with pytest.raises(refusals.StaleRevocationList):
        endorse([BELOW, issuer], rsa_ek(), revoking(stale, revoked, roots=ACCEPTED), NOW)
    with pytest.raises(refusals.RevokedEkCertificate):
        endorse([BELOW, issuer], rsa_ek(), revoking(stale, revoked, roots=ACCEPTED), None)


def test_who_may_stand_above_a_certificate_is_known_by_name():
    names = {text: ekpath_name(text) for text in ("root", "middle", "other")}
    assert ekpath.names_above(parse(leaf()), []) == {names["root"]}
    assert ekpath.names_above(parse(BELOW), []) == {names["middle"]}
    known = [parse(MIDDLE), parse(authority("other", key(150), "root", ROOT_KEY))]
    assert ekpath.names_above(parse(BELOW), known) == {names["middle"], names["root"]}
    circle = [parse(authority("root", key(151), "middle", MIDDLE_KEY)), parse(MIDDLE)]
    assert ekpath.names_above(parse(BELOW), circle) == {names["middle"], names["root"]}


def ekpath_name(text: str) -> bytes:
    return name(text).public_bytes()


def test_what_a_change_may_concern_is_the_ek_the_names_above_and_the_roots_of_these_names():
    ek = rsa_ek()
    pin = hashlib.sha256(ek.raw).hexdigest()
    root = hashlib.sha256(ROOT).hexdigest()
    found = authorities_above([BELOW, MIDDLE], ek, ROOTS)
    names = {authority_digest(ekpath_name(one)) for one in ("root", "middle")}
    assert found == {pin, root, *names}
    assert authorities_above([BELOW], ek, TrustRoots()) == {
        pin,
        authority_digest(ekpath_name("middle")),
    }
    assert authorities_above([], ek, ROOTS) == authorities_above([b"junk"], ek, ROOTS) == {pin}


def test_an_endorsement_names_what_of_the_nodes_own_it_rests_on():
    unused = authority("other", key(150), "root", ROOT_KEY)
    padded = BELOW + b"\xff" * 8
    found = endorse([padded, unused, MIDDLE, ROOT], rsa_ek(), ROOTS, NOW)
    assert found.certificates == (BELOW, MIDDLE)
    helped = replace(ROOTS, intermediates=(MIDDLE,))
    assert endorse([BELOW], rsa_ek(), helped, NOW).certificates == (BELOW,)
