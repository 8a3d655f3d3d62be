"""Launch policies: what a container of one image may be started with.

The predicate ``urn:catena:container:launch:v1`` of an in-toto Statement in a DSSE envelope
(``formats.dsse``), signed by the image's publisher. The statement's subject is the image's
manifest digest. A container policy holds one more, for images that have none of their own.

A **rule** is a text that has to equal the value, or, behind ``re:``, a pattern
(``formats.pattern``) that has to match the *whole* value. A last argument ``...`` stands for any
further arguments. A word ``image:…`` stands for what the image's own configuration says:

======================  =====================================================================
``image:argv``          alone in a command: the image's entrypoint and command, exactly
``image:entrypoint``    first in a command: the image's entrypoint, then rules follow
``image:env``           as a name in ``env`` (its rule is ``""``): the image's variables, unchanged
``image:user``          in ``users``: the image's user; if it is a name, any user but root
``image:cwd``           in ``cwd``: the image's working directory
======================  =====================================================================

What a policy says, field by field. What is not mentioned is refused.

======================  =====================================================================
``argv``                alternatives, each a list of rules, one for every argument
``exec``                the same for commands that are run in the running container
``env``                 rule for the value, by name (or ``re:`` for names)
``cwd``                 rules for the working directory
``users``               rules for ``uid:gid``
``groups``              rules for further group IDs beside the user's own
``mounts``              what may be mounted beside the kernel's own file systems
``capabilities``        all that any of the five sets may hold
``host_namespaces``     namespaces that may be the host's (``network``, ``ipc``, ``pid``, …)
``joins``               namespaces that may be another container's (a pod's)
``devices``             rules for ``PATH TYPE MAJOR:MINOR`` of devices beyond the default ones, for
                        ``TYPE MAJOR:MINOR`` in the device cgroup, and for ``net NAME``
``sysctls``             rules for ``name=value`` beyond those that Kubernetes calls safe
``hooks``               rules for programs that the runtime calls: path and arguments as a shell
                        would take them
``restore``             whether a checkpoint may be restored
``new_privileges``      whether set-user-ID programs may gain privileges
``writable_root``       whether the root file system may be writable
``unconfined``          whether there may be no seccomp filter
``privileged``          whether masked and read-only paths may be absent, ``/sys`` and cgroups
                        writable, and mounts shared with the host
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
IMAGE_ARGV = "image:argv"
IMAGE_ENTRYPOINT = "image:entrypoint"
IMAGE_ENV = "image:env"
IMAGE_USER = "image:user"
IMAGE_CWD = "image:cwd"


class MountRule(Document, frozen=True, kw_only=True):
    """A mount that is allowed: rules for both ends, its type, and whether it must be read-only."""

    destination: Rule
    source: Rule
    type: str = "bind"
    read_only: bool = True


class LaunchPolicy(Document, frozen=True, kw_only=True):
    """See the tables of the module."""

    name: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    argv: Commands
    exec: Commands = ()
    env: Annotated[dict[str, Rule], msgspec.Meta(max_length=1024)] = msgspec.field(
        default_factory=dict
    )
    cwd: Rules = (IMAGE_CWD,)
    users: Rules = ()
    groups: Rules = ()
    mounts: Annotated[tuple[MountRule, ...], msgspec.Meta(max_length=256)] = ()
    capabilities: Names = ()
    host_namespaces: Names = ()
    joins: Names = ()
    devices: Rules = ()
    sysctls: Rules = ()
    hooks: Rules = ()
    restore: bool = False
    new_privileges: bool = False
    writable_root: bool = True
    unconfined: bool = False
    privileged: bool = False
