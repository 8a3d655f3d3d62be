"""A stand-in for the trust service, behind real TLS from a real cluster CA.

It plays the documented node API (``formats.nodeapi``) and checks what only a node can get
wrong: the challenge's secret, the quote's signature and what it is bound to. It appraises
nothing. The agent against the real service is tested with the service.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from catena.agent.enrolment import node_id
from catena.evidence import Evidence, qualifying_data
from catena.formats.nodeapi import (
    ActivateRequest,
    AttestResult,
    DemandResponse,
    EnrollChallenge,
    EnrollRequest,
    EnrollResult,
    ErrorBody,
    NodeState,
    NodeToken,
    NonceRequest,
    NonceResponse,
    SealedSecret,
    decode,
)
from catena.formats.tlogproof import TlogProof
from catena.formats.tpm2 import Public, parse_attest, parse_public, parse_signature
from catena.ids import HashAlg, NodeName
from catena.keys import authority
from catena.keys.protect import make_credential, seal_to_tpm
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key

FIRST_ENTRY = 7


def receipts(count):
    """As many as an answer needs; the agent keeps them for somebody with the log's key."""
    texts = (TlogProof(FIRST_ENTRY + n, (), "lab\n8\nAAAA\n", b"entry") for n in range(count))
    return tuple(one.encode() for one in texts)


DAY = timedelta(days=1)


class ClusterCa:
    """A cluster CA and what it issues."""

    def __init__(self, now: datetime) -> None:
        self.signer = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
        self.certificate = authority.issue_cluster_ca(self.signer, organisation="Lab", now=now)

    def server_context(
        self, folder: Path, *, address: str = "127.0.0.1", not_before: datetime, lifetime: timedelta
    ) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.issue_server_certificate(
            self.signer,
            self.certificate,
            key.public_key(),
            names=[ip_address(address)],
            not_before=not_before,
            lifetime=lifetime,
        )
        pem = folder / "server.pem"
        pem.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    def node_certificate(
        self,
        public_key: ec.EllipticCurvePublicKey,
        lifetime: timedelta = timedelta(minutes=10),
        not_before: datetime | None = None,
    ) -> str:
        issued = authority.issue_node_certificate(
            self.signer,
            self.certificate,
            public_key,
            trust_domain="lab.test",
            node_name=NodeName("node-1"),
            not_before=not_before or datetime.now(UTC),
            lifetime=lifetime,
        )
        return issued.public_bytes(Encoding.PEM).decode()


class Refused(Exception):
    """What the stand-in answers instead of a body."""

    def __init__(self, status: int, code: str, **fields: object) -> None:
        super().__init__(code)
        self.status = status
        self.body = msgspec.structs.replace(ErrorBody.of(status, code, "no"), **fields)


@dataclass
class StandIn:
    """The stand-in's memory and its mood; tests change both."""

    ca: ClusterCa
    url: str = ""
    verdict: str = "trusted"
    state: NodeState = "trusted"
    interval: int = 30
    bundle: str | None = None
    """The cluster CAs that an answer names."""
    context: ssl.SSLContext | None = None
    poll: int | msgspec.UnsetType = msgspec.UNSET
    demanded: bool = False
    lifetime: timedelta = timedelta(minutes=10)
    secrets: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    seal: Callable[[SealedSecret], SealedSecret] = lambda sealed: sealed
    faults: list[Refused] = field(default_factory=list)
    before_attest: Callable[[], None] = lambda: None
    enrolled: dict[str, tuple[Public, Public]] = field(default_factory=dict)
    challenges: dict[bytes, tuple[bytes, str, Public, Public]] = field(default_factory=dict)
    hints: list[str | None] = field(default_factory=list)
    nonces: set[bytes] = field(default_factory=set)
    logs: dict[str, bytes] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> msgspec.Struct:
        self.requests.append(path)
        if self.faults:
            raise self.faults.pop(0)
        match path:
            case "/v1/enroll":
                return self.enroll(decode(body, EnrollRequest))
            case "/v1/enroll/activate":
                return self.activate(decode(body, ActivateRequest))
            case "/v1/nonce":
                return self.nonce(decode(body, NonceRequest))
            case "/v1/attest":
                return self.attest(decode(body, Evidence))
            case "/v1/demand":
                decode(body, NonceRequest)
                return DemandResponse(attest=self.demanded)
        raise Refused(404, "no-such-path")

    def enroll(self, request: EnrollRequest) -> EnrollChallenge:
        ek, ak = parse_public(request.ek_public), parse_public(request.ak_public)
        leaf = x509.load_der_x509_certificate(request.ek_certificates[0])
        assert leaf.public_key() == ek.key()
        identity, secret, ticket = node_id(request.ek_public), os.urandom(32), os.urandom(16)
        blob, encrypted = make_credential(ek, ak.name(), secret, seed=os.urandom(32))
        self.challenges[ticket] = (secret, identity, ek, ak)
        self.hints.append(request.name_hint)
        return EnrollChallenge(
            node_id=identity, credential_blob=blob, encrypted_secret=encrypted, ticket=ticket
        )

    def activate(self, request: ActivateRequest) -> EnrollResult:
        secret, identity, ek, ak = self.challenges.pop(request.ticket)
        if request.secret != secret:
            raise Refused(403, "wrong-activation-secret")
        self.enrolled[identity] = (ek, ak)
        return EnrollResult(node_id=identity, state=self.state)

    def nonce(self, request: NonceRequest) -> NonceResponse:
        if request.node_id not in self.enrolled:
            raise Refused(404, "unknown-node")
        nonce = os.urandom(40)
        self.nonces.add(nonce)
        return NonceResponse(nonce=nonce, expires_in=60)

    def attest(self, evidence: Evidence) -> AttestResult:
        self.before_attest()
        if evidence.nonce not in self.nonces:
            raise Refused(403, "stale-nonce")
        self.nonces.remove(evidence.nonce)
        missing = tuple(
            entry.sha256
            for entry in evidence.manifest
            if entry.sha256 not in self.logs | evidence.logs
        )
        if missing:
            raise Refused(409, "logs-missing", missing_logs=missing)
        self.logs.update(evidence.logs)
        self.evidence.append(evidence)
        ek, ak = self.enrolled[evidence.node_id]
        csr = x509.load_der_x509_csr(evidence.csr)
        assert csr.is_signature_valid
        self.check_quote(evidence, ak, csr)
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        admitted = self.verdict == "trusted" and self.state == "trusted"
        secrets = tuple(self.sealed(evidence, ek)) if admitted else ()
        return AttestResult(
            verdict=self.verdict,  # type: ignore[arg-type]
            state=self.state,
            name="node-1",
            certificate=self.ca.node_certificate(key, self.lifetime) if admitted else None,
            secrets=secrets,
            receipts=receipts(1 + admitted + len(secrets)),
            interval=self.interval,
            bundle=self.bundle or msgspec.UNSET,
            poll=self.poll,
            tokens=(self.tokens(evidence) if admitted else ()) or msgspec.UNSET,
        )

    @staticmethod
    def tokens(evidence: Evidence) -> tuple[NodeToken, ...]:
        """For whom the node asks; there are none for ``nobody``."""
        wanted = () if evidence.audiences is msgspec.UNSET else evidence.audiences
        until = datetime.now(UTC) + DAY
        return tuple(
            NodeToken(audience=one, jwt_svid=f"svid {one}", result="result", not_after=until)
            for one in wanted
            if one != "nobody"
        )

    @staticmethod
    def check_quote(evidence: Evidence, ak: Public, csr: x509.CertificateSigningRequest) -> None:
        key = ak.key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        signature = parse_signature(evidence.signature).signature_bytes()
        key.verify(signature, evidence.quote, ec.ECDSA(hashes.SHA256()))
        spki = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        quoted = parse_attest(evidence.quote)
        assert quoted.extra_data == qualifying_data(evidence.nonce, spki, evidence.manifest)
        assert quoted.quote is not None
        assert quoted.quote.pcr_digest == HashAlg.SHA256.digest(b"".join(evidence.pcrs))

    def sealed(self, evidence: Evidence, ek: Public) -> Iterator[SealedSecret]:
        values = {pcr: evidence.pcrs[pcr] for pcr in (0, 2, 4, 7)}
        for name, (version, payload) in self.secrets.items():
            yield self.seal(
                seal_to_tpm(
                    ek,
                    payload,
                    name=name,
                    version=version,
                    bank=HashAlg(evidence.bank),
                    pcr_values=values,
                    random=os.urandom,
                )
            )


@contextmanager
def https_server(
    context: ssl.SSLContext,
    respond: Callable[[str, bytes], tuple[int, bytes]],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """An HTTPS server on a free port; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = respond(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
