"""The trust service: all verbs over one setting."""

from __future__ import annotations

from dataclasses import dataclass

from catena.service.approval import Approval
from catena.service.attestation import Attestation
from catena.service.crl import RevocationList
from catena.service.demands import Demands
from catena.service.denials import Denials
from catena.service.endorsements import Endorsements
from catena.service.enrolment import Enrolment
from catena.service.grant import Grants
from catena.service.idempotency import Idempotency
from catena.service.inventory import Inventory
from catena.service.labels import Labels
from catena.service.nodes import Nodes
from catena.service.people import People
from catena.service.policies import Policies
from catena.service.references import References
from catena.service.rejudging import Rejudging
from catena.service.rekeying import Rekeying
from catena.service.retirement import Retirement
from catena.service.revocation import Revocations
from catena.service.secretreading import SecretReader
from catena.service.secrets import Secrets
from catena.service.setting import Setting
from catena.service.simulation import Simulation
from catena.service.staleness import Staleness
from catena.service.tokens import Tokens
from catena.service.uses import TokenUses


@dataclass(frozen=True, slots=True)
class TrustService:
    """The verbs, grouped by what they are about; made by ``build``."""

    setting: Setting
    enrolment: Enrolment
    attestation: Attestation
    approval: Approval
    nodes: Nodes
    secrets: Secrets
    references: References
    endorsements: Endorsements
    rejudging: Rejudging
    policies: Policies
    simulation: Simulation
    uses: TokenUses
    idempotency: Idempotency
    people: People
    tokens: Tokens
    retirement: Retirement
    demands: Demands
    inventory: Inventory
    staleness: Staleness
    revocations: Revocations
    crl: RevocationList
    labels: Labels
    secret_reader: SecretReader
    rekeying: Rekeying


def build(setting: Setting) -> TrustService:
    """Put the verbs together."""
    denials = Denials(setting.journal, setting.now)
    nodes = Nodes(setting)
    secrets = Secrets(setting)
    references, policies = References(setting), Policies(setting)
    grants, endorsements = Grants(setting, secrets), Endorsements(setting)
    rejudging = Rejudging(setting, endorsements)
    return TrustService(
        setting=setting,
        enrolment=Enrolment(setting, denials, endorsements, rejudging),
        attestation=Attestation(setting, denials, references, policies, grants),
        approval=Approval(setting, nodes),
        nodes=nodes,
        secrets=secrets,
        references=references,
        endorsements=endorsements,
        rejudging=rejudging,
        policies=policies,
        simulation=Simulation(setting, references, policies),
        uses=TokenUses(setting.journal, setting.now),
        idempotency=Idempotency(setting),
        people=People(setting.journal, setting.database, setting.now),
        tokens=Tokens(setting, setting.token_longest),
        retirement=Retirement(setting, nodes),
        demands=Demands(setting, nodes),
        inventory=Inventory(setting),
        staleness=Staleness(setting),
        revocations=Revocations(setting),
        crl=RevocationList(setting),
        labels=Labels(setting),
        secret_reader=SecretReader(setting),
        rekeying=Rekeying(setting),
    )
