"""Container policies as references: which publisher may have signed for which repository.

A record names the policy that decided by its digest (``formats.containerpolicy``). Only one that was
imported accounts for what ran under it. Signatures are the gate's to verify; what a record says
about them is compared with the policy once more, as far as names go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from catena.errors import CatenaError, ExitCode
from catena.formats.containerpolicy import ContainerPolicy, Scope, policy_digest, scopes_over
from catena.ids import Sha256Hex

MAX_NAMED = 4
"""Publishers that a sentence names."""


class AmbiguousContainerPolicy(CatenaError):
    """A container policy that says two things about one name, or names a publisher it has not."""

    code = "container-policy-ambiguous"
    exit_code = ExitCode.MALFORMED
    remedy = "Give every publisher and every scope once, and every scope publishers of this policy."


@dataclass(frozen=True, slots=True)
class ContainerReference:
    """One accepted policy; ``claim`` is what events that it accounts for say."""

    digest: Sha256Hex
    label: str
    scopes: Mapping[str, Scope]

    @property
    def claim(self) -> str:
        """``container-policy:acme@3``."""
        return f"container-policy:{self.label}"

    def objection(self, repository: str, publisher: str) -> str | None:
        """Why this policy would not have let ``publisher`` speak for ``repository``, or None."""
        names = (name for name in scopes_over(repository) if name in self.scopes)
        scope = self.scopes.get(next(names, ""))
        if scope is None:
            return f"{self.label} has no scope for this repository"
        if publisher not in scope.publishers:
            named = ", ".join(scope.publishers[:MAX_NAMED])
            return f"{self.label} lets {named} publish there, not this publisher"
        return None


def container_reference(document: ContainerPolicy) -> ContainerReference:
    """A verified policy, ready for comparison. Raises ``AmbiguousContainerPolicy``."""
    names = [publisher.name for publisher in document.publishers]
    label = f"{document.name}@{document.version}"
    for what, several in (
        ("publisher", names),
        ("scope", [scope.repository for scope in document.scopes]),
    ):
        name, times = Counter(several).most_common(1)[0]
        if times > 1:
            raise AmbiguousContainerPolicy(f"{label} has a {what} twice", got=ascii(name[:80]))
    unknown = {name for scope in document.scopes for name in scope.publishers} - set(names)
    if unknown:
        raise AmbiguousContainerPolicy(f"{label} has no such publisher", got=min(unknown))
    scopes = {scope.repository: scope for scope in document.scopes}
    return ContainerReference(policy_digest(document), label, scopes)
