"""Who may do what: rights, and the four roles that are sets of them.

=====================  ======  =======  ========  =====
right                  viewer  auditor  operator  admin
=====================  ======  =======  ========  =====
``nodes:read``         yes     yes      yes       yes
``references:read``    yes     yes      yes       yes
``policy:read``        yes     yes      yes       yes
``nodes:explain``              yes      yes       yes
``secrets:read``               yes      yes       yes
``status:read``                yes      yes       yes
``log:read``                   yes                yes
``tokens:read``                yes                yes
``nodes:write``                         yes       yes
``secrets:write``                       yes       yes
``references:write``                              yes
``policy:write``                                  yes
``tokens:write``                                  yes
``secrets:reveal``                                yes
``people:read``                                   yes
``people:write``                                  yes
=====================  ======  =======  ========  =====

The roles are no ladder: an auditor reads and proves everything and changes nothing; an operator admits
machines and keeps secrets, but decides neither what is acceptable nor who may come in. Only
``secrets:reveal`` shows the value of a secret, and none that of a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Right(StrEnum):
    """One thing that may be done. A token's *scope* is a list of these."""

    NODES_READ = "nodes:read"
    """Which nodes there are and where each stands."""
    NODES_EXPLAIN = "nodes:explain"
    """What a node measured: explanations, captures to look at, simulated policies."""
    NODES_WRITE = "nodes:write"
    """Approve and readmit."""
    REFERENCES_READ = "references:read"
    REFERENCES_WRITE = "references:write"
    """Say what is acceptable: references, captures."""
    POLICY_READ = "policy:read"
    POLICY_WRITE = "policy:write"
    SECRETS_READ = "secrets:read"
    """Names, versions and roles; never a value."""
    SECRETS_WRITE = "secrets:write"
    SECRETS_REVEAL = "secrets:reveal"
    """The value of a secret, each time with an entry in the log."""
    STATUS_READ = "status:read"
    """Witnesses and exports of the log."""
    LOG_READ = "log:read"
    """The audit log, with everything that it names."""
    PEOPLE_READ = "people:read"
    """Who the pseudonyms of the log stand for."""
    PEOPLE_WRITE = "people:write"
    """Forget somebody."""
    TOKENS_READ = "tokens:read"
    """Who may come in, and when each last did."""
    TOKENS_WRITE = "tokens:write"


class Role(StrEnum):
    """What a token's owner is."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    ADMIN = "admin"


_VIEWER: Final = frozenset({Right.NODES_READ, Right.REFERENCES_READ, Right.POLICY_READ})
_LOOK: Final = _VIEWER | {Right.NODES_EXPLAIN, Right.SECRETS_READ, Right.STATUS_READ}
RIGHTS: Final[Mapping[Role, frozenset[Right]]] = {
    Role.VIEWER: _VIEWER,
    Role.AUDITOR: _LOOK | {Right.LOG_READ, Right.TOKENS_READ},
    Role.OPERATOR: _LOOK | {Right.NODES_WRITE, Right.SECRETS_WRITE},
    Role.ADMIN: frozenset(Right),
}
"""The module's table."""
_BY_NAME: Final[Mapping[str, frozenset[Right]]] = {str(role): RIGHTS[role] for role in Role}


def rights_of(role: str, scope: Iterable[str] = ()) -> frozenset[Right]:
    """What a role may do, narrowed to a scope unless that is empty. An unknown role may do nothing."""
    rights = _BY_NAME.get(role, frozenset())
    narrowed = frozenset(scope)
    return rights & narrowed if narrowed else rights


def roles_with(right: Right) -> tuple[Role, ...]:
    """The roles that have a right."""
    return tuple(role for role in Role if right in RIGHTS[role])
