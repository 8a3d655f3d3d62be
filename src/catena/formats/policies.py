"""Policy documents: the text of a policy with a name and a version that only ever grows.

The predicate ``urn:catena:policy:v1`` of an in-toto Statement in a DSSE envelope (``formats.dsse``),
signed by the release key. The statement's subject is the text, by its SHA-256.

============  ===========================================================================
``name``      a DNS label
``version``   1 to 2^31 - 1; a policy is applied only over one with a lower version
``text``      the policy, at most 64 Ki characters
``previous``  SHA-256 of the text that it is meant to replace, if whoever signed it said so
============  ===========================================================================
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.formats.references import Document

POLICY_TYPE = "urn:catena:policy:v1"
MAX_POLICY_TEXT = 64 * 1024

PolicyName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
PolicyVersion = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
TextDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class PolicyDocument(Document, frozen=True, kw_only=True):
    """One version of a policy; that its text compiles is for whoever applies it to check."""

    name: PolicyName
    version: PolicyVersion
    text: Annotated[str, msgspec.Meta(max_length=MAX_POLICY_TEXT)]
    previous: TextDigest | None = None
