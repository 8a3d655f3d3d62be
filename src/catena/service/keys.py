"""The keys that decisions rest on: that one counts, or no longer does, is in the log before it is so.

They are named in ``server.toml``, which nobody but the operator changes. A server that starts holds
them against those that the last one started with, so that no key is exchanged in silence.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator

from catena.appraise.endorsement import authority_name
from catena.audit.entries import KeyChanged
from catena.keys.signer import key_id_of
from catena.service.authorities import KEY as CLUSTER_CA
from catena.service.pseudonyms import SERVER
from catena.service.setting import Setting
from catena.store.errors import Conflict
from catena.store.keysinforce import KeyInForce

ATTEMPTS = 3
_BATCH = 256


def keys_in_force(setting: Setting) -> frozenset[KeyInForce]:
    """What each public key is for, and the SHA-256 of its SubjectPublicKeyInfo.

    ``tpm-root`` has the digest of a whole certificate, ``pinned-ek`` the id of a TPM that needs none:
    SHA-256 of its EK's public area.
    """
    releases = (("release", key_id_of(key)) for key in setting.release_keys)
    roots = (
        ("tpm-root", hashlib.sha256(root.certificate).hexdigest()) for root in setting.roots.roots
    )
    pinned = (("pinned-ek", one) for one in setting.roots.pinned)
    own = [("log", key_id_of(setting.journal.public_key))]
    own += [("former-log", key_id_of(key)) for key in setting.former_log_keys]
    if not _is_rotated(setting):
        issuing = setting.authorities.issuing(setting.now())
        own.append((CLUSTER_CA, key_id_of(issuing.signer.public_key)))
    if setting.vouching is not None:
        own.append(("jwt-svid", setting.vouching.signer.key_id))
    return frozenset(itertools.chain(own, releases, roots, pinned))


def note_keys(setting: Setting) -> tuple[KeyChanged, ...]:
    """Log what changed since a server started last, then remember it.

    A server of the same fleet that starts at the same time may log the same. Raises
    ``LogUnwritable``, ``DatabaseGone``, ``Conflict``: then the server must not start.
    """
    now = keys_in_force(setting)
    for attempt in range(ATTEMPTS):
        with setting.journal.deciding("keys"):
            with setting.database.snapshot() as rows:
                before = rows.keys_in_force.all()
            if _is_rotated(setting):
                before = frozenset(one for one in before if one[0] != CLUSTER_CA)
            if now == before:
                break
            changes = _changes(setting, before, now)
            for start in range(0, len(changes), _BATCH):
                setting.journal.record(*changes[start : start + _BATCH])
            try:
                with setting.journal.effect() as rows:
                    rows.keys_in_force.change(now - before, before - now)
                    for name, title in _authorities(setting, now ^ before):
                        rows.rejudgements.ask(name, title, setting.now())
            except Conflict:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            return changes
    return ()


def _is_rotated(setting: Setting) -> bool:
    """Whether the cluster CA is no longer the settings' own: its rotations are logged by themselves."""
    return bool(setting.authorities.schedule(setting.now()))


def _authorities(setting: Setting, changed: Iterable[KeyInForce]) -> Iterator[tuple[str, str]]:
    """Whose nodes are to be judged again, as ``authorities_above`` has it, with a name for people.

    A root that is new may have nodes below its name; of one that is gone only the digest is known.
    """
    names = {
        hashlib.sha256(root.certificate).hexdigest(): (authority_name(root.certificate), root.name)
        for root in setting.roots.roots
    }
    for key, sha256 in sorted(changed):
        if key == "tpm-root":
            yield names.get(sha256, (sha256, f"root {sha256[:16]} of server.toml"))
        elif key == "pinned-ek":
            yield sha256, f"pinned EK {sha256[:16]}"


def _changes(
    setting: Setting, before: frozenset[KeyInForce], now: frozenset[KeyInForce]
) -> tuple[KeyChanged, ...]:
    at = setting.now()
    removed = [
        KeyChanged(at=at, actor=SERVER, action="removed", key=key, key_sha256=sha256)
        for key, sha256 in sorted(before - now)
    ]
    added = [
        KeyChanged(at=at, actor=SERVER, action="added", key=key, key_sha256=sha256)
        for key, sha256 in sorted(now - before)
    ]
    return (*removed, *added)
