"""Who accounts for what ran in containers: TRUST, attestation step 5i, for the gate's record.

A start is claimed by the container policy that it names if that policy was accepted and would let
the publisher speak for the repository, and if the record is in order there. Everything else is
a reason, whatever the policy over the facts says: a node that ran anything unverified is untrusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from catena.appraise.containers import Account, Use
from catena.appraise.facts import ContainerFacts
from catena.formats.nodeapi import Reason
from catena.ids import Sha256Hex

if TYPE_CHECKING:
    from catena.appraise.containerpolicy import ContainerReference

Policies = Mapping[Sha256Hex, "ContainerReference"]

MAX_IMAGES = 256
"""Images and publishers that are named as facts; ``MORE`` stands for the rest, so no `all()` skips it."""
MORE = "more"
MAX_CLAIM_REASONS = 64
_REMEDY = "Find out what ran and why; import the policy if it is yours, or replace the node."


class ClaimedUse(msgspec.Struct, frozen=True, gc=False):
    """A use with the policy that accounts for it, or why none does. One of the two is set."""

    use: Use
    claimed_by: str | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Contained:
    """What ran in containers, judged. ``account`` is None where there is no record.

    ``accepted`` maps the digests of policies that were in force and are accepted to their claims.
    """

    account: Account | None
    uses: tuple[ClaimedUse, ...]
    accepted: Mapping[str, str]
    facts: ContainerFacts
    reasons: tuple[Reason, ...]


def judge_containers(account: Account | None, policies: Policies, pcr: int) -> Contained:
    """Claim every use of a record; ``policies`` are the accepted ones, by digest."""
    if account is None:
        return _NOTHING
    uses = tuple(_claimed(use, policies) for use in account.uses)
    unclaimed = [one for one in uses if one.why is not None]
    reasons = (
        *_faults(account, pcr),
        *_unknown(account, policies, pcr),
        *_unclaimed(unclaimed, policies, pcr),
    )
    unverified = account.unsound + sum(one.use.count for one in unclaimed)
    accepted = {
        one.policy: policies[Sha256Hex(one.policy)].claim
        for one in account.policies
        if one.policy in policies
    }
    return Contained(account, uses, accepted, _facts(account, policies, unverified), reasons)


def _claimed(use: Use, policies: Policies) -> ClaimedUse:
    policy = policies.get(Sha256Hex(use.policy))
    why = "its policy was not accepted" if policy is None else None
    if policy is not None:
        why = policy.objection(use.repository, use.publisher)
    claimed = policy.claim if policy is not None and why is None else None
    return ClaimedUse(use, claimed, why)


def _facts(account: Account, policies: Policies, unverified: int) -> ContainerFacts:
    policy = policies.get(Sha256Hex(account.policy))
    return ContainerFacts(
        container_policy="" if policy is None else policy.label,
        container_records=account.records,
        containers_started=account.started,
        containers_refused=account.refused,
        containers_unverified=unverified,
        container_publishers=_named(account.publishers),
        container_images=_named(account.images),
        container_images_total=len(account.images),
        gate_restarts=max(account.gates - 1, 0),
    )


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if len(names) <= MAX_IMAGES else (*names[:MAX_IMAGES], MORE)


def _faults(account: Account, pcr: int) -> Iterator[Reason]:
    for fault in account.faults:
        yield Reason(
            code=fault.code,
            message=f"Container record {fault.record}: {fault.message}",
            pcr=pcr,
            remedy="The record contradicts itself: replace the node.",
        )
    rest = account.faults_total - len(account.faults)
    if rest > 0:
        yield Reason(
            code="container-faults-omitted", message=f"{rest} more faults of the container record"
        )


def _unknown(account: Account, policies: Policies, pcr: int) -> Iterator[Reason]:
    for one in account.policies:
        if Sha256Hex(one.policy) not in policies:
            yield Reason(
                code="container-policy-unknown",
                message=f"Container record {one.record}: the policy in force, which calls itself "
                f"{one.name}@{one.version}, was not accepted",
                pcr=pcr,
                digest=one.policy,
                remedy="Import the node's container policy with `catena reference import`.",
            )


def _unclaimed(unclaimed: list[ClaimedUse], policies: Policies, pcr: int) -> Iterator[Reason]:
    """One reason for each publisher and repository; those under an unknown policy have theirs."""
    known = [one for one in unclaimed if one.use.policy in policies]
    for one in known[:MAX_CLAIM_REASONS]:
        use = one.use
        yield Reason(
            code="container-unverified",
            message=f"Container {use.container} (record {use.record}) ran an image of "
            f"{use.repository or 'no repository'} signed by {use.publisher or 'nobody'}: {one.why}",
            pcr=pcr,
            digest=use.policy,
            remedy=_REMEDY,
        )
    rest = len(known) - MAX_CLAIM_REASONS
    if rest > 0:
        yield Reason(
            code="containers-unverified-omitted", message=f"{rest} more publishers and repositories"
        )


_NOTHING = Contained(
    None,
    (),
    {},
    ContainerFacts(
        container_policy="",
        container_records=0,
        containers_started=0,
        containers_refused=0,
        containers_unverified=0,
        container_publishers=(),
        container_images=(),
        container_images_total=0,
        gate_restarts=0,
    ),
    (),
)
