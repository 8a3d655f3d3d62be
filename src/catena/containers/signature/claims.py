"""What a signature has to name, for an image that runs under another name than it was signed under.

A scope's ``claim`` says it. Behind a scope ``mirror.example/vendor/*`` a claim ``vendor.example/*`` moves
what stands for the ``*``; any other claim is one name, for all of the scope. A claim with a tag
asks for exactly that reference.
"""

from __future__ import annotations

from catena.formats.containerpolicy import Scope

_BELOW = "/*"


def expected_claim(scope: Scope, repository: str) -> str:
    """The reference that a signature of ``repository`` has to name under ``scope``."""
    if not scope.claim:
        return repository
    if not scope.claim.endswith(_BELOW):
        return scope.claim
    below = repository.removeprefix(scope.repository.removesuffix("*"))
    return scope.claim.removesuffix("*") + below
