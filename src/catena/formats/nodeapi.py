"""The JSON bodies that nodes and the trust service exchange (node API, version 1).

====================================  =====================  ==========================
``POST /v1/enroll``                   ``EnrollRequest``       ``EnrollChallenge``
``POST /v1/enroll/activate``          ``ActivateRequest``     ``EnrollResult``
``POST /v1/nonce``                    ``NonceRequest``        ``NonceResponse``
``POST /v1/attest``                   ``catena.evidence``     ``AttestResult``
``POST /v1/demand``                   ``NonceRequest``        ``DemandResponse``
====================================  =====================  ==========================

Every failure is an ``ErrorBody`` (RFC 9457) with a 4xx or 5xx status. Binary fields are base64. Limits
here bound what a decoder accepts; the server bounds the whole body before that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from catena.errors import FormatError

Blob = Annotated[bytes, msgspec.Meta(max_length=8192)]
Hex256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
Hint = Annotated[str, msgspec.Meta(max_length=253)]

PROBLEM_JSON = "application/problem+json"
ERROR_TYPE = "urn:catena:error:"

JITTER = 0.1
"""The part of an interval by which an agent lengthens or shortens it, at most."""

NodeState = Literal["pending", "trusted", "untrusted", "stale", "retired"]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all bodies: strict, immutable, named fields."""


class EnrollRequest(Body, frozen=True, kw_only=True):
    """TRUST enrolment step 1. ``ek_certificates`` are DER, leaf first; may be empty if the
    server pins the EK. ``ek_public`` and ``ak_public`` are TPMT_PUBLIC.
    """

    ek_certificates: Annotated[tuple[Blob, ...], msgspec.Meta(max_length=8)] = ()
    ek_public: Blob
    ak_public: Blob
    name_hint: Hint | None = None


class EnrollChallenge(Body, frozen=True, kw_only=True):
    """TRUST enrolment step 4. ``credential_blob`` is the marshalled TPM2B_ID_OBJECT and
    ``encrypted_secret`` the TPM2B_ENCRYPTED_SECRET that TPM2_ActivateCredential takes;
    ``ticket`` is the server's sealed memory of this challenge, returned unchanged.
    """

    node_id: Hex256
    credential_blob: Blob
    encrypted_secret: Blob
    ticket: Annotated[bytes, msgspec.Meta(max_length=65536)]


class ActivateRequest(Body, frozen=True, kw_only=True):
    """TRUST enrolment step 5: the secret that only this TPM could have opened."""

    ticket: Annotated[bytes, msgspec.Meta(max_length=65536)]
    secret: Annotated[bytes, msgspec.Meta(max_length=64)]


class EnrollResult(Body, frozen=True, kw_only=True):
    """The node as the server now knows it; ``name`` is set once a person approved."""

    node_id: Hex256
    state: NodeState
    name: str | None = None


class NonceRequest(Body, frozen=True, kw_only=True):
    """Ask for a nonce for this node."""

    node_id: Hex256


class NonceResponse(Body, frozen=True, kw_only=True):
    """A self-verifying nonce, good for ``expires_in`` seconds."""

    nonce: Blob
    expires_in: int


class DemandResponse(Body, frozen=True, kw_only=True):
    """Whether somebody waits for an attestation of this node: then it attests at once.

    Nobody is authenticated here, and nothing but the waste of a round can be had by lying.
    """

    attest: bool


class SealedSecret(Body, frozen=True, kw_only=True):
    """A secret only this TPM in this boot state can open.

    ``public`` (TPM2B_PUBLIC), ``duplicate`` (TPM2B_PRIVATE) and ``seed``
    (TPM2B_ENCRYPTED_SECRET) are the marshalled arguments of TPM2_Import under the EK; the
    imported object seals a 32-byte AES-256-GCM key under TPM2_PolicyPCR over ``pcrs`` of
    ``bank``. ``nonce`` and ``ciphertext`` carry the payload with ``name`` and ``version``
    as associated data.
    """

    name: str
    version: int
    bank: str
    pcrs: tuple[int, ...]
    public: Blob
    duplicate: Blob
    seed: Blob
    nonce: Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]
    ciphertext: Annotated[bytes, msgspec.Meta(max_length=1_100_000)]

    def associated_data(self) -> bytes:
        """What AES-GCM authenticates beside the payload."""
        return f"catena/secret/v1\n{self.name}\n{self.version}".encode()


class Reason(Body, frozen=True, kw_only=True):
    """One reason of a verdict: stable ``code``, sentence, and the measurement it is about."""

    code: str
    message: str
    pcr: int | None = None
    digest: str | None = None
    remedy: str = ""


Audience = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,80}\Z")]
"""For whom a token is: a name or an address, as its reader calls itself."""
Audiences = Annotated[tuple[Audience, ...], msgspec.Meta(min_length=1, max_length=8)]


class NodeToken(Body, frozen=True, kw_only=True):
    """Two JSON Web Tokens for one audience: who the node is, and what was found (``service.vouching``)."""

    audience: str
    jwt_svid: str
    result: str
    not_after: datetime


class AttestResult(Body, frozen=True, kw_only=True):
    """TRUST attestation step 7. ``certificate`` is PEM, leaf first, only when admitted."""

    verdict: Literal["trusted", "untrusted"]
    state: NodeState
    name: str | None = None
    reasons: tuple[Reason, ...] = ()
    certificate: str | None = None
    secrets: tuple[SealedSecret, ...] = ()
    receipts: tuple[str, ...]
    """Proof that the verdict, the certificate and each secret's release are in the log, in that order: C2SP
    tlog-proofs (``formats.tlogproof``), each with its entry."""
    interval: int
    """Seconds until the server wants the next attestation."""
    bundle: Annotated[str, msgspec.Meta(max_length=65_536)] | msgspec.UnsetType = msgspec.UNSET
    """PEM: the cluster CAs to believe from now on, and no others. Only once the CA was rotated."""
    tokens: tuple[NodeToken, ...] | msgspec.UnsetType = msgspec.UNSET
    """For the audiences that were asked for and are allowed."""
    poll: int | msgspec.UnsetType = msgspec.UNSET
    """Seconds between two questions whether an attestation is demanded; absent: do not ask."""


class ErrorBody(Body, frozen=True, kw_only=True):
    """Every failure: problem details (RFC 9457, section 3), with extension members behind ``detail``.

    ``type`` is ``urn:catena:error:CODE``; ``missing_logs`` comes with the code ``logs-missing`` only.
    """

    type: str
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    detail: str
    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9:-]{0,99}\Z")]
    request_id: str = ""
    """What the request is called in the server's own log."""
    remedy: str = ""
    expected: str | None = None
    got: str | None = None
    offset: int | None = None
    missing_logs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a type that names another code."""
        if self.type != f"{ERROR_TYPE}{self.code}":
            raise ValueError("`type` and `code` disagree")

    @classmethod
    def of(cls, status: int, code: str, detail: str) -> ErrorBody:
        """The problem with this code; ``title`` is the same whenever it occurs (section 3.1.3)."""
        return cls(
            type=f"{ERROR_TYPE}{code}",
            title=code.replace("-", " ").capitalize(),
            status=status,
            detail=detail,
            code=code,
        )


B = TypeVar("B", bound=msgspec.Struct)
_MAX_COMPLAINT = 200


def decode(data: bytes, kind: type[B]) -> B:
    """Decode one body strictly. Raises ``FormatError``."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The decoder quotes names that the sender chose, at any length.
        raise FormatError(f"not a {kind.__name__}: {str(error)[:_MAX_COMPLAINT]}") from error
