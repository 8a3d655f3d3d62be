"""The admin API: what people and their tools call, each with a bearer token.

The table says all that is to be known of an operation; ``catena server openapi`` prints it for programs, and
``/v1/docs`` shows it to people.
"""

from __future__ import annotations

from typing import Final

from catena.appraise.clause import PolicyError
from catena.appraise.reference import UnusableReference
from catena.audit.people import PREFIX, Person
from catena.errors import FormatError
from catena.formats.dsse import Envelope
from catena.formats.nodeapi import Hex256
from catena.keys.envelope import ForgedEnvelope, NoTrustedKeys, UnsignedEnvelope, UntrustedSigner
from catena.server.cosigning import NotCosigned
from catena.server.operation import Operation, Parts
from catena.service import shipped
from catena.service.approval import NameAndRoleNeeded, NothingToApprove, WaitingKeyUnseen
from catena.service.endorsements import (
    AmbiguousEndorsement,
    FixedEndorsement,
    NoSuchEndorsement,
    TamperedEndorsement,
)
from catena.service.labels import TooManyLabels
from catena.service.nodes import NeverAttested, UnknownNode
from catena.service.pages import BadCursor, NodesRequest, PageRequest
from catena.service.people import PersonInUse, UnknownPerson
from catena.service.policies import PolicyMoved, PolicyRollback
from catena.service.pseudonyms import ReservedName
from catena.service.references import (
    BadReferenceName,
    BootLogMoved,
    NoBootLog,
    NoSuchReference,
    ReferenceTaken,
    UnknownReferenceKind,
)
from catena.service.rekeying import UnknownKek
from catena.service.roles import Right
from catena.service.secrets import BadSecretName, NewestVersion, NoAudience, NoSuchSecret
from catena.service.simulation import SimulationRunning
from catena.service.states import NotVouchedFor
from catena.service.tokens import (
    LabelTaken,
    LastAdmin,
    TokenTooLong,
    UnknownToken,
    UselessScope,
)
from catena.service.views import (
    ApprovalRequest,
    CaptureRequest,
    CaptureView,
    CosigningReport,
    EndorsementDetail,
    EndorsementImport,
    EndorsementRequest,
    EndorsementView,
    ExplanationView,
    ExportsReport,
    Forgotten,
    LabelsRequest,
    LabelsView,
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
    RemovalRequest,
    Removed,
    RevocationRequest,
    RevocationView,
    SecretDetail,
    SecretName,
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
from catena.store.errors import AmbiguousNode, Conflict, KekMoved, NameTaken, NodeMoved

_NODE = (UnknownNode, AmbiguousNode)
_SIGNED = (FormatError, UnsignedEnvelope, ForgedEnvelope, UntrustedSigner, NoTrustedKeys)


def _witnesses(at: Parts) -> CosigningReport:
    if at.collector is None:
        raise NotCosigned("this server has no witnesses")
    return at.collector.status()


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/v1/admin/nodes",
        "Every node on the rolls, oldest enrolment first",
        right=Right.NODES_READ,
        answer=tuple[NodeView, ...],
        query=NodesRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.nodes.page(call.query),
    ),
    Operation(
        "GET",
        "/v1/admin/nodes/{name}",
        "One node",
        right=Right.NODES_READ,
        answer=NodeView,
        refuses=_NODE,
        verb=lambda at, call: at.service.nodes.show(call.name),
    ),
    Operation(
        "GET",
        "/v1/admin/nodes/{name}/explanation",
        "A node's last verdict and its boot, event by event",
        right=Right.NODES_EXPLAIN,
        answer=ExplanationView,
        refuses=(*_NODE, NeverAttested),
        verb=lambda at, call: at.service.nodes.explain(call.name),
    ),
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/approval",
        "Give a node its name and role, or let it back in",
        right=Right.NODES_WRITE,
        takes=ApprovalRequest,
        answer=NodeView,
        refuses=(
            *_NODE,
            NameTaken,
            NameAndRoleNeeded,
            WaitingKeyUnseen,
            NothingToApprove,
            NotVouchedFor,
            Conflict,
        ),
        verb=lambda at, call: at.service.approval.approve(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/labels",
        "Give a node labels, or take some away",
        right=Right.NODES_WRITE,
        takes=LabelsRequest,
        answer=LabelsView,
        refuses=(*_NODE, TooManyLabels, NodeMoved),
        verb=lambda at, call: at.service.labels.label(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/revocation",
        "Take a node's trust, certificates and secrets back",
        right=Right.NODES_WRITE,
        takes=RevocationRequest,
        answer=RevocationView,
        refuses=(*_NODE, NodeMoved),
        verb=lambda at, call: at.service.revocations.revoke(call.name, call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/nodes/{name}/capture",
        "What a capture of this node's firmware would accept",
        right=Right.NODES_EXPLAIN,
        answer=CaptureView,
        refuses=(*_NODE, NoBootLog),
        verb=lambda at, call: at.service.references.preview(call.name),
    ),
    Operation(
        "POST",
        "/v1/admin/captures",
        "Accept a node's firmware as a reference",
        right=Right.REFERENCES_WRITE,
        takes=CaptureRequest,
        answer=ReferenceView,
        refuses=(*_NODE, NoBootLog, BootLogMoved, ReferenceTaken),
        verb=lambda at, call: at.service.references.capture(call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/secrets",
        "Every secret, without values",
        right=Right.SECRETS_READ,
        answer=tuple[SecretView, ...],
        query=PageRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.secrets.page(call.query),
    ),
    Operation(
        "GET",
        "/v1/admin/secrets/{name}",
        "One secret's versions and who holds them, without values",
        right=Right.SECRETS_READ,
        name=SecretName,
        answer=SecretDetail,
        refuses=(NoSuchSecret,),
        verb=lambda at, call: at.service.secret_reader.show(call.name),
    ),
    Operation(
        "POST",
        "/v1/admin/secrets/{name}/reading",
        "A secret's value; that it was read is in the log before the answer",
        right=Right.SECRETS_REVEAL,
        name=SecretName,
        takes=SecretReading,
        answer=SecretValue,
        refuses=(NoSuchSecret,),
        verb=lambda at, call: at.service.secret_reader.read(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/rekeying",
        "Move some secrets under another storage key; ask again until none remains",
        right=Right.SECRETS_WRITE,
        takes=RekeyRequest,
        answer=RekeyView,
        refuses=(UnknownKek, KekMoved),
        verb=lambda at, call: at.service.rekeying.rekey(call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/rotation",
        "Which secrets need a new version since a node that holds them was revoked",
        right=Right.SECRETS_READ,
        answer=tuple[SecretRotation, ...],
        verb=lambda at, _: at.service.secrets.rotation(),
    ),
    Operation(
        "PUT",
        "/v1/admin/secrets/{name}",
        "A new version of a secret",
        right=Right.SECRETS_WRITE,
        takes=SecretRequest,
        name=SecretName,
        answer=SecretView,
        refuses=(BadSecretName, NoAudience, Conflict),
        verb=lambda at, call: at.service.secrets.put(call.name, call.body, call.actor),
    ),
    Operation(
        "DELETE",
        "/v1/admin/secrets/{name}",
        "Wipe every version of a secret, or one that is not the newest",
        right=Right.SECRETS_WRITE,
        name=SecretName,
        answer=Removed,
        query=RemovalRequest,
        refuses=(NoSuchSecret, NewestVersion),
        verb=lambda at, call: at.service.secrets.remove(call.name, call.actor, call.query.version),
    ),
    Operation(
        "GET",
        "/v1/admin/references",
        "Every reference in force, and the quirk rules that catena ships",
        right=Right.REFERENCES_READ,
        answer=tuple[ReferenceView, ...],
        query=PageRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.references.page(call.query),
    ),
    Operation(
        "POST",
        "/v1/admin/references",
        "Accept a signed reference: a DSSE envelope around an in-toto Statement",
        right=Right.REFERENCES_WRITE,
        takes=Envelope,
        verbatim=True,
        answer=ReferenceView,
        refuses=(*_SIGNED, UnknownReferenceKind, BadReferenceName, ReferenceTaken),
        verb=lambda at, call: at.service.references.accept(call.content, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/pcr-policies",
        "Accept a PCR policy of CoreOS or Flatcar",
        right=Right.REFERENCES_WRITE,
        takes=PcrPolicyRequest,
        answer=ReferenceView,
        refuses=(*_SIGNED, BadReferenceName, ReferenceTaken, UnusableReference),
        verb=lambda at, call: at.service.references.accept_policy(call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/references/{name}",
        "One reference with its document",
        right=Right.REFERENCES_READ,
        answer=ReferenceDetail,
        refuses=(NoSuchReference,),
        verb=lambda at, call: shipped.find(call.name) or at.service.references.show(call.name),
    ),
    Operation(
        "GET",
        "/v1/admin/endorsements",
        "Everything that may vouch for a TPM, with its provenance",
        right=Right.REFERENCES_READ,
        answer=tuple[EndorsementView, ...],
        query=PageRequest,
        refuses=(BadCursor, TamperedEndorsement),
        verb=lambda at, call: at.service.endorsements.page(call.query),
    ),
    Operation(
        "POST",
        "/v1/admin/endorsements",
        "Accept roots, intermediates and revocation lists; what is of no use is told",
        right=Right.REFERENCES_WRITE,
        takes=EndorsementRequest,
        answer=EndorsementImport,
        refuses=(TamperedEndorsement,),
        verb=lambda at, call: at.service.endorsements.accept(call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/endorsements/{name}",
        "One root, intermediate or revocation list",
        right=Right.REFERENCES_READ,
        answer=EndorsementDetail,
        refuses=(NoSuchEndorsement, AmbiguousEndorsement, TamperedEndorsement),
        verb=lambda at, call: at.service.endorsements.show(call.name),
    ),
    Operation(
        "DELETE",
        "/v1/admin/endorsements/{name}",
        "Let one no longer count",
        right=Right.REFERENCES_WRITE,
        answer=EndorsementView,
        refuses=(NoSuchEndorsement, AmbiguousEndorsement, FixedEndorsement, TamperedEndorsement),
        verb=lambda at, call: at.service.endorsements.withdraw(call.name, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/rejudging",
        "Which authorities changed whose nodes are being judged again, and how many nodes cannot be",
        right=Right.REFERENCES_READ,
        answer=RejudgingView,
        verb=lambda at, _: at.service.rejudging.progress(),
    ),
    Operation(
        "GET",
        "/v1/admin/policy",
        "The policy in force, and all that were, newest first",
        right=Right.POLICY_READ,
        answer=PolicyHistory,
        verb=lambda at, _: at.service.policies.show(),
    ),
    Operation(
        "POST",
        "/v1/admin/policy",
        "Put a signed policy in force: a DSSE envelope around an in-toto Statement",
        right=Right.POLICY_WRITE,
        takes=Envelope,
        verbatim=True,
        answer=PolicyView,
        refuses=(*_SIGNED, PolicyError, PolicyRollback, PolicyMoved, Conflict),
        verb=lambda at, call: at.service.policies.apply(call.content, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/policy/simulation",
        "Which verdicts would change; it changes nothing",
        right=Right.NODES_EXPLAIN,
        takes=SimulationRequest,
        changes_nothing=True,
        answer=SimulationView,
        refuses=(*_SIGNED, PolicyError, NoSuchReference, SimulationRunning),
        verb=lambda at, call: at.service.simulation.run(call.body),
    ),
    Operation(
        "GET",
        "/v1/admin/people",
        "Who is behind each pseudonym of the log; not everybody's to know",
        right=Right.PEOPLE_READ,
        answer=tuple[Person, ...],
        query=PageRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.people.page(call.query),
    ),
    Operation(
        "DELETE",
        "/v1/admin/people/{name}",
        "Forget who is behind a pseudonym, which is named by its digits",
        right=Right.PEOPLE_WRITE,
        name=Hex256,
        answer=Forgotten,
        refuses=(UnknownPerson, PersonInUse),
        verb=lambda at, call: at.service.people.forget(PREFIX + call.name, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/tokens",
        "Every token, without values",
        right=Right.TOKENS_READ,
        answer=tuple[TokenView, ...],
        query=PageRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.tokens.page(call.query),
    ),
    Operation(
        "POST",
        "/v1/admin/tokens",
        "Make a token, which is in the answer and nowhere else",
        right=Right.TOKENS_WRITE,
        takes=TokenRequest,
        answer=NewToken,
        refuses=(ReservedName, LabelTaken, TokenTooLong, UselessScope, Conflict),
        verb=lambda at, call: at.service.tokens.create(call.body, call.actor),
    ),
    Operation(
        "DELETE",
        "/v1/admin/tokens/{name}",
        "Withdraw all tokens with this label, or the one with this id",
        right=Right.TOKENS_WRITE,
        answer=tuple[TokenView, ...],
        refuses=(UnknownToken, LastAdmin),
        verb=lambda at, call: at.service.tokens.remove(call.name, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/witnesses",
        "How far the log's cosignatures lag",
        right=Right.STATUS_READ,
        answer=CosigningReport,
        refuses=(NotCosigned,),
        verb=lambda at, _: _witnesses(at),
    ),
    Operation(
        "GET",
        "/v1/admin/export",
        "How far each receiver of the log's entries is",
        right=Right.STATUS_READ,
        answer=ExportsReport,
        verb=lambda at, _: at.exporters.status() if at.exporters else ExportsReport(),
    ),
)
