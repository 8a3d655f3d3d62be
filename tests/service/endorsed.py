"""Nodes whose vendor's authorities were imported: one real TPM's, and fleets of rows with certificates."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ObjectIdentifier

from catena.appraise.ekpath import EK_USAGE
from catena.appraise.endorsement import authorities_above
from catena.formats.tpm2 import parse_public as parse
from catena.ids import NodeId
from catena.server.folder import OpenServer, open_server
from catena.store.nodes import Node
from service.fixtures import START, Server, make_server
from service.machine import Machine
from service.revocable import prepare
from service.vendor import YEAR, Authority, name_of, request
from small_eks import ecc_ek, usage


@dataclass
class Vendor:
    """The authority that issued the TPM's certificate, with its own key, and that certificate's number."""

    issuer: Authority
    serial: int


@pytest.fixture
def vendor(booted_tpm, machine) -> Vendor:
    leaf = x509.load_der_x509_certificate(machine.enrolment().ek_certificates[0])
    folder = booted_tpm.root_ca_pem_paths[1].parent
    signer = load_pem_private_key((folder / "signkey.pem").read_bytes(), None)
    return Vendor(Authority(leaf.issuer, key=signer), leaf.serial_number)


def vouching(server: Server, machine: Machine, vendor: Vendor) -> Server:
    """It imported the TPM's vendor, and has the TPM's node: trusted, with a secret."""
    server.import_references(machine.boot)
    server.service.endorsements.accept(request(vendor.issuer.der, vouches="software"), "alice")
    return prepare(server, machine)


@pytest.fixture
def vouched(tmp_path, keys, machine, vendor) -> Iterator[Server]:
    """A server whose TPMs' vendor was imported, with a node."""
    server = vouching(make_server(tmp_path / "vouched", keys), machine, vendor)
    yield server
    server.opened.close()


@pytest.fixture
def vouched_twice(tmp_path, keys, machine, vendor, postgresql) -> Iterator[tuple[Server, Server]]:
    """As ``vouched``, with a second server over the same PostgreSQL."""
    places = {"database": postgresql.new_database(), "log": "database:"}
    first = vouching(make_server(tmp_path / "first", keys, **places), machine, vendor)
    shutil.copytree(first.folder, tmp_path / "second")
    opened = open_server(tmp_path / "second", now=first.clock, random=os.urandom)
    yield first, replace(first, folder=tmp_path / "second", opened=opened)
    first.opened.close()
    opened.close()


def certified(issuer: Authority, serial: int) -> tuple[bytes, bytes]:
    """An EK's public area and its certificate."""
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(
            subject_name=name_of(f"TPM {serial}"),
            issuer_name=issuer.subject,
            public_key=private.public_key(),
            serial_number=serial,
            not_valid_before=START - YEAR,
            not_valid_after=START + YEAR,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("key_agreement"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(EK_USAGE)]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    return ecc_ek(private).raw, certificate.public_bytes(Encoding.DER)


def fleet(
    server: Server | OpenServer, issuer: Authority, count: int, first: int = 1, **changes
) -> list[NodeId]:
    """Approved, trusted nodes as enrolment leaves them, without their TPMs; their ids, sorted."""
    endorsements, ids = server.service.endorsements, []
    for serial in range(first, first + count):
        public, der = certified(issuer, serial)
        ek = parse(public)
        values = {
            "id": NodeId(hash_of(public)),
            "name": f"row-{issuer.serial}-{serial}",
            "role": "web",
            "state": "trusted",
            "ek_public": public,
            "ak_public": b"ak",
            "ek_root": "vendor:Acme",
            "mode": "approve",
            "enrolled_at": server.service.setting.now(),
            "approved_at": server.service.setting.now(),
            "last_attested": server.service.setting.now(),
            "endorsement": "",
        }
        node = Node(**{**values, **changes})
        above = authorities_above((der,), ek, endorsements.roots())
        with server.service.setting.database.transaction() as rows:
            rows.nodes.insert(node)
            rows.ek_certificates.put(node.id, (der,), server.service.setting.now())
            rows.ek_certificates.place_under(node.id, above)
        ids.append(node.id)
    return sorted(ids)


def hash_of(content: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    return digest.finalize().hex()


__all__ = ["certified", "fleet", "vendor", "vouched", "vouched_twice"]
