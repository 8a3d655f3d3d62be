"""Fixtures shared by the tests of ``service``, ``server`` and the admin commands."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from appraise.forged import CORPUS, Boot, corpus_boot, keyset_of, release_of
from catena.audit.entries import Entry
from catena.audit.verify import VerifiedEntry, verify_folder
from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.formats.dsse import Statement
from catena.formats.references import KEYSET_TYPE, RELEASE_TYPE
from catena.keys import hierarchy
from catena.keys.envelope import seal
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.server.config import Config
from catena.server.folder import OpenServer, open_server
from catena.server.founding import Sources, init
from catena.service import shipped
from catena.service.endorsements import Endorsements
from catena.service.nodes import Nodes
from catena.service.pages import MAX_PAGE, NodesRequest, PageRequest, whole
from catena.service.people import People
from catena.service.references import References
from catena.service.secrets import Secrets
from catena.service.tokens import Tokens
from catena.service.trust import TrustService
from catena.service.views import ApprovalRequest, CaptureRequest, SecretRequest
from catena.tpm.device import open_tpm
from service.machine import Machine
from swtpm import SoftwareTpm, software_tpm

START = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
"""Later than the certificates that are made for the tests."""
PASSWORD = b"correct horse battery staple"


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    time: datetime = START

    def __call__(self) -> datetime:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class Server:
    """A server's folder in use."""

    folder: Path
    keys: KeyFolder
    token: str
    clock: Clock
    opened: OpenServer

    @property
    def service(self) -> TrustService:
        return self.opened.service

    def call(self, path: str, body: msgspec.Struct, kind: type) -> msgspec.Struct:
        """What ``server`` does with a node's request, without HTTP."""
        verbs = {
            "/v1/enroll": (nodeapi.EnrollRequest, self.service.enrolment.begin),
            "/v1/enroll/activate": (nodeapi.ActivateRequest, self.service.enrolment.finish),
            "/v1/nonce": (nodeapi.NonceRequest, self.service.attestation.nonce),
            "/v1/attest": (Evidence, self.service.attestation.attest),
        }
        wanted, verb = verbs[path]
        answer = verb(nodeapi.decode(msgspec.json.encode(body), wanted))
        return msgspec.json.decode(msgspec.json.encode(answer), type=kind)

    def reopen(self) -> None:
        self.opened.close()
        self.opened = open_server(self.folder, now=self.clock, random=os.urandom)

    def entries(self) -> list[Entry]:
        """Every entry of the audit log, after the log was verified as anybody would."""
        found: list[VerifiedEntry] = []
        verify_folder(self.folder / "log", self.keys.public_key(KeyName.LOG), visit=found.append)
        return [verified.entry for verified in found]

    def name(self, pseudonym: str) -> str:
        """Who is behind an entry's pseudonym."""
        return {one.pseudonym: one.name for one in whole(self.service.people.page)}[pseudonym]

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.entries()]

    def node(self, name: str):
        with self.opened.database.snapshot() as rows:
            return rows.nodes.find(name)

    def import_references(self, boot: Boot) -> None:
        for kind, document in ((KEYSET_TYPE, keyset_of(boot)), (RELEASE_TYPE, release_of(boot))):
            self.service.references.accept(signed(self.keys, kind, document), "admin")

    def admit(self, machine: Machine, *, name: str = "n1", role: str = "web") -> None:
        """The whole way of a new machine, up to where its next attestation is trusted."""
        machine.enrol(self.call)
        machine.attest(self.call)
        capture(self.service, machine.node_id)
        self.service.approval.approve(
            machine.node_id, ApprovalRequest(name=name, role=role), "admin"
        )
        self.clock.pass_(1)


def listed(verbs: Nodes | Secrets | References | Endorsements | People | Tokens) -> tuple:
    """All that is listed, on one page; retired nodes too, but not the rules that catena ships."""
    if isinstance(verbs, Nodes):
        return verbs.page(NodesRequest(retired=True, limit=MAX_PAGE)).items
    found = verbs.page(PageRequest(limit=MAX_PAGE)).items
    return tuple(one for one in found if one not in shipped.views())


def capture(service: TrustService, node: str) -> None:
    seen = service.references.preview(node)
    request = CaptureRequest(node=node, name="ovmf", boot_log=seen.boot_log)
    service.references.capture(request, "admin")


def signed(keys: KeyFolder, kind: str, document: msgspec.Struct, signer=KeyName.RELEASE) -> bytes:
    statement = Statement(
        subject=(),
        predicate_type=kind,
        predicate=msgspec.Raw(msgspec.json.encode(document)),
    )
    return seal(keys.signer(signer), statement).encode()


def put_secret(service: TrustService, name: str, role: str, value: bytes = PASSWORD) -> None:
    service.secrets.put(name, SecretRequest(roles=(role,), value=value), "admin")


@functools.cache
def enterprise(base: Path) -> KeyFolder:
    """Made once per run, however many rooms import the fixture: RSA keys take their time."""
    folder = base / "enterprise-keys"
    return hierarchy.init(folder, organisation="Acme", now=datetime.now(UTC))


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> KeyFolder:
    return enterprise(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def boot() -> Boot:
    if not (CORPUS / "boots").is_dir():
        pytest.skip("the corpus of real boots is not here")
    return corpus_boot("B_sb_own_uki")


@pytest.fixture(scope="session")
def tpm_ca(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tpm-vendor") / "ca"


@pytest.fixture(scope="session")
def booted_tpm(tmp_path_factory, tpm_ca, boot) -> Iterator[SoftwareTpm]:
    """A TPM that measured the boot; tests only quote with it."""
    with software_tpm(tmp_path_factory.mktemp("tpm"), ca=tpm_ca) as tpm:
        with open_tpm(tpm.tcti) as opened:
            Machine(opened, boot).measure()
        yield tpm


@pytest.fixture
def machine(booted_tpm, boot) -> Iterator[Machine]:
    with open_tpm(booted_tpm.tcti) as tpm:
        yield Machine(tpm, boot)


@pytest.fixture
def running_machine(tmp_path, tpm_ca, boot) -> Iterator[Machine]:
    """A machine of its own, whose PCRs a test may go on extending."""
    with software_tpm(tmp_path / "own-tpm", ca=tpm_ca) as tpm, open_tpm(tpm.tcti) as opened:
        machine = Machine(opened, boot)
        machine.measure()
        yield machine


def make_server(folder: Path, keys: KeyFolder, roots: tuple[str, ...] = (), **settings) -> Server:
    settings.setdefault("log_publish_ms", 0)  # a test reads the log as soon as it was written
    config = Config(
        listen="127.0.0.1:0",
        names=("localhost", "127.0.0.1"),
        trust_domain="acme.example",
        log_origin="acme.example/log",
        ca_key=str(keys.path / "ca.key"),
        ca_certificate=str(keys.path / "ca.crt"),
        log_key=str(keys.path / "log.key"),
        release_keys=(str(keys.path / "release.pub"),),
        ek_roots=roots,
        **settings,
    )
    clock = Clock()
    token = init(folder, Sources(keys=keys, config=config, now=clock, random=os.urandom))
    opened = open_server(folder, now=clock, random=os.urandom)
    return Server(folder, keys, token, clock, opened)


@pytest.fixture
def server(tmp_path, keys) -> Iterator[Server]:
    """A server that knows no TPM vendor."""
    server = make_server(tmp_path / "server", keys)
    yield server
    server.opened.close()


@pytest.fixture
def trusting(tmp_path, keys, booted_tpm, boot) -> Iterator[Server]:
    """A server that knows the TPM's vendor and what the boot may measure, but no firmware."""
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "trusting", keys, roots)
    server.import_references(boot)
    yield server
    server.opened.close()


__all__ = [
    "boot",
    "booted_tpm",
    "keys",
    "machine",
    "running_machine",
    "server",
    "tpm_ca",
    "trusting",
]
