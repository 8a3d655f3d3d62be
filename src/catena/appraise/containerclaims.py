"""Who accounts for what ran in containers: TRUST, attestation step 5i, for the gate's record.

A start is claimed by the container policy that it names if that policy was accepted and would let
the publisher speak for the repository, and if the record is in order there. Everything else is
a reason, whatever the policy over the facts says: a node that ran anything unverified is untrusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from catena.appraise.containers import Account, Use
from catena.appraise.facts import ContainerFacts
from catena.appraise.recorded import register_name
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


def judge_containers(
    account: Account | None, policies: Policies, pcr: int, nv_index: int | None = None
) -> Contained:
    """Claim every use of a record; ``policies`` are the accepted ones, by digest.

    ``pcr`` holds the record, or seals the NV index that does.
    """
    if account is None:
        return _NOTHING
    of = _Record(pcr, "" if nv_index is None else f" of {register_name(None, nv_index)}")
    uses = tuple(_claimed(use, policies) for use in account.uses)
    unclaimed = [one for one in uses if one.why is not None]
    reasons = (
        *_faults(account, of),
        *_unknown(account, policies, of),
        *_unclaimed(unclaimed, policies, of),
    )
    unverified = account.unsound + sum(one.use.count for one in unclaimed)
    accepted = {
        one.policy: policies[Sha256Hex(one.policy)].claim
        for one in account.policies
        if one.policy in policies
    }
    return Contained(account, uses, accepted, _facts(account, policies, unverified), reasons)


def facts_together(parts: Sequence[Contained]) -> ContainerFacts:
    """The facts of several records at once: counts add up, and a policy has to be in force in each."""
    told = [one for one in parts if one.account is not None]
    if len(told) <= 1:
        return told[0].facts if told else _NOTHING.facts
    facts = [one.facts for one in told]
    accounts = [one.account for one in told if one.account is not None]
    policies = sorted({one["container_policy"] for one in facts})
    images = {image for account in accounts for image in account.images}
    publishers = {name for account in accounts for name in account.publishers}
    return ContainerFacts(
        container_policy=", ".join(policies) if all(policies) else "",
        container_records=sum(one["container_records"] for one in facts),
        containers_started=sum(one["containers_started"] for one in facts),
        containers_refused=sum(one["containers_refused"] for one in facts),
        containers_unverified=sum(one["containers_unverified"] for one in facts),
        container_publishers=_named(tuple(sorted(publishers))),
        container_images=_named(tuple(sorted(images))),
        container_images_total=len(images),
        gate_restarts=sum(one["gate_restarts"] for one in facts),
    )


class _Record(NamedTuple):
    """Which record a reason is about; ``name`` tells it from others of the node."""

    pcr: int
    name: str


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


def _faults(account: Account, of: _Record) -> Iterator[Reason]:
    for fault in account.faults:
        yield Reason(
            code=fault.code,
            message=f"Container record {fault.record}{of.name}: {fault.message}",
            pcr=of.pcr,
            remedy="The record contradicts itself: replace the node.",
        )
    rest = account.faults_total - len(account.faults)
    if rest > 0:
        yield Reason(
            code="container-faults-omitted",
            message=f"{rest} more faults of the container record{of.name}",
        )


def _unknown(account: Account, policies: Policies, of: _Record) -> Iterator[Reason]:
    for one in account.policies:
        if Sha256Hex(one.policy) not in policies:
            yield Reason(
                code="container-policy-unknown",
                message=f"Container record {one.record}{of.name}: the policy in force, which calls itself "
                f"{one.name}@{one.version}, was not accepted",
                pcr=of.pcr,
                digest=one.policy,
                remedy="Import the node's container policy with `catena reference import`.",
            )


def _unclaimed(unclaimed: list[ClaimedUse], policies: Policies, of: _Record) -> Iterator[Reason]:
    """One reason for each publisher and repository; those under an unknown policy have theirs."""
    known = [one for one in unclaimed if one.use.policy in policies]
    for one in known[:MAX_CLAIM_REASONS]:
        use = one.use
        yield Reason(
            code="container-unverified",
            message=f"Container {use.container} (record {use.record}{of.name}) ran an image of "
            f"{use.repository or 'no repository'} signed by {use.publisher or 'nobody'}: {one.why}",
            pcr=of.pcr,
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
