"""Launch policies: what a container of one image may be started with.

The predicate ``urn:catena:container:launch:v1`` of an in-toto Statement in a DSSE envelope
(``formats.dsse``), signed by the image's publisher. The statement's subject is the image's
manifest digest. A container policy holds one more, for images that have none of their own.

A **rule** is a text that has to equal the value, or, behind ``re:``, a pattern
(``formats.pattern``) that has to match the *whole* value. A last argument ``...`` stands for any
further arguments.

======================  =====================================================================
``argv``                alternatives, each a list of rules, one for every argument
``exec``                the same for commands that are run in the running container
``env``                 rule for the value, by name; a name that is not listed is refused
``mounts``              what may be mounted beside the kernel's own file systems
``capabilities``        all that the bounding set may hold
``users``               rules for ``uid:gid``
``host_namespaces``     namespaces that may be the host's (``network``, ``ipc``, ``pid``, …)
``devices``             rules for the paths of devices beyond the default ones
``hooks``               rules for the paths of the programs that the runtime may call
``restore``             whether a checkpoint may be restored
``new_privileges``      whether set-user-ID programs may gain privileges
``writable_root``       whether the root file system may be writable
``privileged``          whether masked and read-only paths may be absent, and seccomp unconfined
======================  =====================================================================
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.formats.references import Document

LAUNCH_POLICY_TYPE = "urn:catena:container:launch:v1"

Rule = Annotated[str, msgspec.Meta(max_length=4096)]
Command = Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=256)]
Commands = Annotated[tuple[Command, ...], msgspec.Meta(max_length=64)]
Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=256)]
Rules = Annotated[tuple[Rule, ...], msgspec.Meta(max_length=256)]
ANY_FURTHER = "..."
PATTERN = "re:"


class MountRule(Document, frozen=True, kw_only=True):
    """A mount that is allowed: rules for both ends, its type, and whether it must be read-only."""

    destination: Rule
    source: Rule
    type: str = "bind"
    read_only: bool = True


class LaunchPolicy(Document, frozen=True, kw_only=True):
    """See the table of the module. What is not mentioned is refused."""

    name: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    argv: Commands
    exec: Commands = ()
    env: Annotated[dict[str, Rule], msgspec.Meta(max_length=1024)] = msgspec.field(
        default_factory=dict
    )
    mounts: Annotated[tuple[MountRule, ...], msgspec.Meta(max_length=256)] = ()
    capabilities: Names = ()
    users: Rules = ()
    host_namespaces: Names = ()
    devices: Rules = ()
    hooks: Rules = ()
    restore: bool = False
    new_privileges: bool = False
    writable_root: bool = True
    privileged: bool = False
