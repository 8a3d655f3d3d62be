"""What an admitted node receives: a certificate for its fresh key, and its role's secrets.

A grant is made first, then logged entry by entry, then remembered, and handed out last.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from catena.audit.entries import CertificateIssued, Entry, SecretReleased
from catena.errors import CatenaError
from catena.formats.nodeapi import SealedSecret
from catena.keys.svid import NodeCertificate, NodeCertificates
from catena.service.authorities import Issuing
from catena.service.judgement import Proven
from catena.service.pseudonyms import SERVER
from catena.service.secrets import Secrets
from catena.service.setting import Setting
from catena.store.credentials import Certificate
from catena.store.database import Transaction
from catena.store.nodes import Node
from catena.store.secrets import Release


class UnprovenGrant(CatenaError):
    """A node about to be admitted without proof: a defect, stopped here."""

    code = "unproven-grant"
    remedy = "This is a defect in catena; report it."


@dataclass(frozen=True, slots=True)
class Grant:
    """A certificate for the key ``spki`` (DER) and sealed secrets, or nothing."""

    certificate: NodeCertificate | None = None
    spki: bytes = b""
    secrets: tuple[SealedSecret, ...] = ()

    @property
    def pem(self) -> str | None:
        """The certificate as the node gets it."""
        if self.certificate is None:
            return None
        return ssl.DER_cert_to_PEM_cert(self.certificate.der)

    def entries(self, node: Node, now: datetime) -> tuple[Entry, ...]:
        """One log entry for each thing that will be handed out."""
        if self.certificate is None:
            return ()
        releases = (
            SecretReleased(
                at=now,
                actor=SERVER,
                node_id=node.id,
                node_name=node.name,
                secret=secret.name,
                version=secret.version,
            )
            for secret in self.secrets
        )
        return (_certificate_entry(self.certificate, self.spki, node, now), *releases)

    def row(self, node: Node, now: datetime) -> Certificate | None:
        """What the database keeps of the certificate, for expiry."""
        if self.certificate is None:
            return None
        return Certificate(
            serial=serial_of(self.certificate),
            node_id=node.id,
            issued_at=now,
            not_after=self.certificate.not_after,
        )

    def releases(self, node: Node, now: datetime) -> tuple[Release, ...]:
        """What the database keeps of the secrets, for rotation."""
        return tuple(
            Release(node_id=node.id, name=secret.name, version=secret.version, at=now)
            for secret in self.secrets
        )


NOTHING = Grant()


class Grants:
    """Makes grants."""

    def __init__(self, setting: Setting, secrets: Secrets) -> None:
        self._setting = setting
        self._secrets = secrets
        self._made: tuple[Issuing, NodeCertificates] | None = None

    def make(self, rows: Transaction, node: Node, proven: Proven | None, now: datetime) -> Grant:
        """Certificate and secrets for an admitted node. Raises ``UnprovenGrant``."""
        if proven is None or node.name is None:
            raise UnprovenGrant("only a completed appraisal of a named node admits")
        certificate = self._certificates(now).issue(
            proven.spki,
            node_name=node.name,
            not_before=now,
            lifetime=self._setting.certificate_lifetime,
        )
        secrets = self._secrets.sealed_for(rows, node, proven.bank, proven.pcrs)
        return Grant(certificate, proven.spki, secrets)

    def _crl_of(self, issuing: Issuing) -> str | None:
        """Where its own list is, also when another authority issues (RFC 5280, section 4.2.1.13)."""
        url = self._setting.crl_url
        return None if url is None else f"{url}/{issuing.signer.key_id}"

    def _certificates(self, now: datetime) -> NodeCertificates:
        """What issues now; made anew when another authority does."""
        issuing, made = self._setting.authorities.issuing(now), self._made
        if made is None or made[0] is not issuing:  # two threads may make the same one
            made = (
                issuing,
                NodeCertificates.under(
                    issuing.signer,
                    issuing.certificate,
                    self._setting.trust_domain,
                    crl_url=self._crl_of(issuing),
                ),
            )
            self._made = made
        return made[1]


def remember_grants(rows: Transaction, grants: Sequence[tuple[Grant, Node]], now: datetime) -> None:
    """Write down what was handed out to whom."""
    certificates = [row for grant, node in grants if (row := grant.row(node, now)) is not None]
    if certificates:
        rows.certificates.insert_all(certificates)
    for grant, node in grants:
        for release in grant.releases(node, now):
            rows.secrets.record_release(release)


def serial_of(certificate: NodeCertificate) -> str:
    """The serial number in lower-case hex."""
    return f"{certificate.serial:x}"


def _certificate_entry(
    certificate: NodeCertificate, spki: bytes, node: Node, now: datetime
) -> CertificateIssued:
    return CertificateIssued(
        at=now,
        actor=SERVER,
        node_id=node.id,
        node_name=node.name,
        serial=serial_of(certificate),
        certificate_sha256=hashlib.sha256(certificate.der).hexdigest(),
        spki_sha256=hashlib.sha256(spki).hexdigest(),
        not_after=certificate.not_after,
    )
