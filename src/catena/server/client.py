"""The admin API as the command line calls it; ``profile`` says where it is and who asks."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from catena.audit.people import PREFIX, Person
from catena.errors import CatenaError, ExitCode, NotFound, Unavailable
from catena.formats.nodeapi import ErrorBody
from catena.server.profile import NoServerNamed, NoToken, Profile, read_token
from catena.service.pages import MAX_PAGE
from catena.service.views import (
    ApprovalRequest,
    CaptureRequest,
    CaptureView,
    CosigningReport,
    Demanded,
    DemandRequest,
    EndorsementDetail,
    EndorsementImport,
    EndorsementRequest,
    EndorsementView,
    ExpectedView,
    ExplanationView,
    Farewell,
    FarewellRequest,
    Forgotten,
    Imported,
    InventoryRequest,
    LabelsRequest,
    LabelsView,
    LoginOffer,
    LoginRequest,
    NewToken,
    NodeView,
    PcrPolicyRequest,
    PolicyHistory,
    PolicyView,
    ReferenceDetail,
    ReferenceView,
    RejudgingView,
    RekeyRequest,
    RekeyView,
    Removed,
    ReplacementRequest,
    RevocationRequest,
    RevocationView,
    SecretDetail,
    SecretReading,
    SecretRequest,
    SecretRotation,
    SecretValue,
    SecretView,
    SimulationRequest,
    SimulationView,
    TokenRequest,
    TokenView,
)

if TYPE_CHECKING:
    import httpx

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
TIMEOUT = 30.0
PAUSES = (0.2, 1.0, 3.0)
"""Seconds before a request is sent again whose answer was lost, or that is still being decided."""
STILL_DECIDED = "idempotency-in-progress"

T = TypeVar("T")


class ServerUnreachable(Unavailable):
    """The server does not answer, or is not the one the CA vouches for."""

    code = "server-unreachable"
    remedy = "Check the address and the CA file, and that `catena server run` is running."


class AnswerLost(ServerUnreachable):
    """The connection broke before the answer was here; the request may have taken effect."""

    code = "answer-lost"
    remedy = "See whether it took effect before you try again; the server may have stopped."


class UnreadableAnswer(Unavailable):
    """An answer that is not of this API."""

    code = "unreadable-answer"
    remedy = "Check that client and server have the same version."


class ServerRefusal(CatenaError):
    """What the server answered, with its own code, message and remedy."""

    def __init__(self, status: int, body: ErrorBody) -> None:
        super().__init__(body.detail, expected=body.expected, got=body.got)
        # The instance takes over what its class usually says.
        self.code = body.code  # type: ignore[misc]
        self.remedy = body.remedy  # type: ignore[misc]
        self.exit_code = _exit_code(status, body)  # type: ignore[misc]


_EXIT_OF_CODE: Mapping[str, ExitCode] = {
    "unknown-node": ExitCode.UNKNOWN_NODE,
    "reference-unusable": ExitCode.MALFORMED,
}
_EXIT_OF_STATUS: Mapping[int, ExitCode] = {
    400: ExitCode.USAGE,
    401: ExitCode.UNTRUSTED,
    403: ExitCode.UNTRUSTED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.USAGE,
}


def _exit_code(status: int, body: ErrorBody) -> ExitCode:
    if body.code == "policy" or body.code.startswith("policy-"):
        return ExitCode.POLICY
    if body.offset is not None:
        return ExitCode.MALFORMED
    return _EXIT_OF_CODE.get(body.code) or _EXIT_OF_STATUS.get(status, ExitCode.INTERNAL)


class AdminClient:
    """One server's admin API; close it, or use it as a context manager."""

    def __init__(
        self,
        http: httpx.Client,
        random: Callable[[int], bytes] = os.urandom,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._http = http
        self._random = random
        self._pause = pause

    @classmethod
    def connect(cls, profile: Profile) -> AdminClient:
        """A client that trusts the profile's CA and nothing else."""
        if profile.token_file is None:
            raise NoToken("no token file is named")
        token = read_token(Path(profile.token_file))
        return cls._connect(profile, {"authorization": f"Bearer {token}"})

    @classmethod
    def nameless(cls, profile: Profile) -> AdminClient:
        """A client without a token, for whoever wants to log in."""
        return cls._connect(profile, {})

    @classmethod
    def _connect(cls, profile: Profile, headers: dict[str, str]) -> AdminClient:
        import httpx  # noqa: PLC0415 - only commands that call a server load it

        try:
            context = ssl.create_default_context(cafile=profile.ca)
        except (OSError, ssl.SSLError) as error:
            raise NoServerNamed(f"cannot use CA file {profile.ca}") from error
        return cls(
            httpx.Client(
                base_url=profile.server,
                headers=headers,
                verify=context,
                timeout=TIMEOUT,
                trust_env=False,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def nodes(
        self, *, state: str | None = None, role: str | None = None, retired: bool = False
    ) -> tuple[NodeView, ...]:
        """Every node on the rolls, or those of a state or role; with ``retired`` those, too."""
        query = {"state": state, "role": role, "retired": "true" if retired else None}
        return self._list(admin_path("nodes"), NodeView, query)

    def node(self, node: str) -> NodeView:
        """One node."""
        return self._call("GET", admin_path("nodes", node), NodeView)

    def explanation(self, node: str) -> ExplanationView:
        """A node's last verdict and boot."""
        return self._call("GET", admin_path("nodes", node, "explanation"), ExplanationView)

    def approve(self, node: str, request: ApprovalRequest) -> NodeView:
        """Approve or readmit a node."""
        return self._call("POST", admin_path("nodes", node, "approval"), NodeView, request)

    def retire(self, node: str, request: FarewellRequest) -> Farewell:
        """Take a node off the rolls."""
        return self._call("POST", admin_path("nodes", node, "retirement"), Farewell, request)

    def replace(self, node: str, request: ReplacementRequest) -> Farewell:
        """Retire a node for a TPM that takes its place."""
        return self._call("POST", admin_path("nodes", node, "replacement"), Farewell, request)

    def reject(self, node: str, request: FarewellRequest) -> Farewell:
        """Refuse what waits for approval."""
        return self._call("POST", admin_path("nodes", node, "rejection"), Farewell, request)

    def demand(self, request: DemandRequest) -> Demanded:
        """Have nodes attest now."""
        return self._call("POST", admin_path("demands"), Demanded, request)

    def expected(self, *, all_listed: bool = False) -> tuple[ExpectedView, ...]:
        """Machines that have not shown up, or all that are listed."""
        query = {"all": "true" if all_listed else None}
        return self._list(admin_path("inventory"), ExpectedView, query)

    def expect(self, request: InventoryRequest) -> Imported:
        """Add machines to the inventory."""
        return self._call("POST", admin_path("inventory"), Imported, request)

    def unlist(self, name: str) -> ExpectedView:
        """Take a machine off the inventory."""
        return self._call("DELETE", admin_path("inventory", name), ExpectedView)

    def revoke(self, node: str, request: RevocationRequest) -> RevocationView:
        """Take a node's trust back."""
        return self._call("POST", admin_path("nodes", node, "revocation"), RevocationView, request)

    def preview_capture(self, node: str) -> CaptureView:
        """What a capture of this node would accept."""
        return self._call("GET", admin_path("nodes", node, "capture"), CaptureView)

    def capture(self, request: CaptureRequest) -> ReferenceView:
        """Accept a node's firmware."""
        return self._call("POST", admin_path("captures"), ReferenceView, request)

    def secrets(self) -> tuple[SecretView, ...]:
        """Every secret, without values."""
        return self._list(admin_path("secrets"), SecretView)

    def label(self, node: str, request: LabelsRequest) -> LabelsView:
        """Set and remove a node's labels."""
        return self._call("POST", admin_path("nodes", node, "labels"), LabelsView, request)

    def secret(self, name: str) -> SecretDetail:
        """One secret's versions and holders."""
        return self._call("GET", admin_path("secrets", name), SecretDetail)

    def read_secret(self, name: str, request: SecretReading) -> SecretValue:
        """A secret's value."""
        return self._call("POST", admin_path("secrets", name, "reading"), SecretValue, request)

    def rekey(self, request: RekeyRequest) -> RekeyView:
        """Move some secrets under another storage key."""
        return self._call("POST", admin_path("rekeying"), RekeyView, request)

    def rotation(self) -> tuple[SecretRotation, ...]:
        """Which secrets need a new version."""
        return self._call("GET", admin_path("rotation"), tuple[SecretRotation, ...])

    def put_secret(self, name: str, request: SecretRequest) -> SecretView:
        """Store a new version."""
        return self._call("PUT", admin_path("secrets", name), SecretView, request)

    def remove_secret(self, name: str, version: int | None = None) -> Removed:
        """Wipe a secret, or one version of it."""
        query = "" if version is None else f"?version={version}"
        return self._call("DELETE", admin_path("secrets", name) + query, Removed)

    def references(self) -> tuple[ReferenceView, ...]:
        """Every active reference."""
        return self._list(admin_path("references"), ReferenceView)

    def reference(self, name: str) -> ReferenceDetail:
        """One reference with its document."""
        return self._call("GET", admin_path("references", name), ReferenceDetail)

    def import_reference(self, envelope: bytes) -> ReferenceView:
        """Accept a signed document."""
        return self._call("POST", admin_path("references"), ReferenceView, envelope)

    def import_pcr_policy(self, request: PcrPolicyRequest) -> ReferenceView:
        """Accept a PCR policy under a name and version."""
        return self._call("POST", admin_path("pcr-policies"), ReferenceView, request)

    def endorsements(self) -> tuple[EndorsementView, ...]:
        """Everything that may vouch for a TPM."""
        return self._list(admin_path("endorsements"), EndorsementView)

    def endorsement(self, name: str) -> EndorsementDetail:
        """One of them, with its certificate or list."""
        return self._call("GET", admin_path("endorsements", name), EndorsementDetail)

    def import_endorsements(self, request: EndorsementRequest) -> EndorsementImport:
        """Accept certificates and lists."""
        return self._call("POST", admin_path("endorsements"), EndorsementImport, request)

    def withdraw_endorsement(self, name: str) -> EndorsementView:
        """Let one no longer count."""
        return self._call("DELETE", admin_path("endorsements", name), EndorsementView)

    def rejudging(self) -> RejudgingView:
        """Which changed authorities' nodes are being judged again."""
        return self._call("GET", admin_path("rejudging"), RejudgingView)

    def policy(self) -> PolicyHistory:
        """The policy in force and its history."""
        return self._call("GET", admin_path("policy"), PolicyHistory)

    def apply_policy(self, envelope: bytes) -> PolicyView:
        """Put a signed policy in force."""
        return self._call("POST", admin_path("policy"), PolicyView, envelope)

    def simulate(self, request: SimulationRequest) -> SimulationView:
        """Which verdicts would change."""
        return self._call("POST", admin_path("policy", "simulation"), SimulationView, request)

    def people(self) -> tuple[Person, ...]:
        """Who the pseudonyms of the log stand for."""
        return self._list(admin_path("people"), Person)

    def forget(self, pseudonym: str) -> Forgotten:
        """Delete the name behind a pseudonym."""
        return self._call("DELETE", admin_path("people", pseudonym.removeprefix(PREFIX)), Forgotten)

    def tokens(self) -> tuple[TokenView, ...]:
        """Every token, without values."""
        return self._list(admin_path("tokens"), TokenView)

    def create_token(self, request: TokenRequest) -> NewToken:
        """Make a token, which is shown here and never again."""
        return self._call("POST", admin_path("tokens"), NewToken, request)

    def remove_token(self, name: str) -> tuple[TokenView, ...]:
        """Withdraw the tokens with this label, or the one with this id."""
        return self._call("DELETE", admin_path("tokens", name), tuple[TokenView, ...])

    def login_offer(self) -> LoginOffer:
        """Where to log in."""
        return self._call("GET", "/v1/login", LoginOffer)

    def login(self, request: LoginRequest) -> NewToken:
        """A token for an ID token."""
        return self._call("POST", "/v1/login", NewToken, request)

    def witnesses(self) -> CosigningReport:
        """How far the log's cosignatures lag."""
        return self._call("GET", admin_path("witnesses"), CosigningReport)

    def _list(
        self, path: str, kind: type[T], query: Mapping[str, str | None] | None = None
    ) -> tuple[T, ...]:
        """All pages of a list, joined. Raises as ``_call``."""
        found: list[T] = []
        given = {name: value for name, value in (query or {}).items() if value is not None}
        following: str | None = f"{path}?{urlencode({'limit': MAX_PAGE, **given})}"
        seen = set()
        while following is not None:
            if not following.startswith(f"{path}?") or following in seen:
                raise UnreadableAnswer("the server's pages lead elsewhere, or in a circle")
            seen.add(following)
            response = self._request("GET", following, None)
            found += _decode(response.content, tuple[kind, ...])  # type: ignore[valid-type]
            following = response.links.get("next", {}).get("url")
        return tuple(found)

    def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: msgspec.Struct | bytes | None = None,
    ) -> T:
        """One call. Raises ``ServerRefusal``, ``ServerUnreachable`` or ``UnreadableAnswer``."""
        content = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        return _decode(self._request(method, path, content).content, answer)

    def _request(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """One request, sent again if its answer was lost.

        A write has an idempotency key of its own, so that the server does it once.
        """
        headers = {} if method == "GET" else {"idempotency-key": f'"{self._random(16).hex()}"'}
        for pause in PAUSES:
            try:
                return self._attempt(method, path, content, headers)
            except AnswerLost:
                self._pause(pause)
            except ServerRefusal as error:
                if error.code != STILL_DECIDED:
                    raise
                self._pause(pause)
        return self._attempt(method, path, content, headers)

    def _attempt(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        import httpx  # noqa: PLC0415 - only commands that call a server load it

        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
            raise AnswerLost(_no_answer(self._http, error)) from error
        except httpx.HTTPError as error:
            raise ServerUnreachable(_no_answer(self._http, error)) from error
        if response.is_success:
            return response
        raise ServerRefusal(response.status_code, _decode(response.content, ErrorBody))


def _no_answer(http: httpx.Client, error: Exception) -> str:
    return f"no answer from {http.base_url}: {type(error).__name__}: {error}"


def _decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableAnswer("the server's answer cannot be read") from error


class NoSuchName(NotFound):
    """Something that no node, secret or reference can be called."""

    code = "no-such-name"
    remedy = "Give a name or the first digits of an id, as the noun's `list` shows them."


def admin_path(*segments: str) -> str:
    """A path of the admin API; what a person typed stays one segment. Raises ``NoSuchName``."""
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            raise NoSuchName("not a name", got=ascii(segment[:80]))
    return "/".join(("/v1/admin", *segments))
