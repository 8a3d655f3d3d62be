"""Everything a lab needs before its first boot, made with the commands a person would type."""

from __future__ import annotations

import secrets
import shutil
import socket
import tomllib
from pathlib import Path

from catena.errors import UsageError
from catena.lab import swtpm, tree
from catena.lab.narration import Narrator
from catena.lab.operator import Operator
from catena.lab.publishing import make_policy, publish
from catena.lab.workspace import (
    RELEASE,
    ROLE,
    SEALED_PORT,
    SECRET,
    TRUST_DOMAIN,
    Workspace,
    guest_server_url,
)

DEFAULT_MODE = "approve"
VERSION = "1"
SECURITY_VERSION = "1"
NODE_MODULES = ("virtio_console",)
"""Beyond what every release loads: the port that sealed secrets are copied to."""


class OtherMode(UsageError):
    """The lab's server was made in another mode than is asked for now."""

    code = "other-mode"
    remedy = "Use another folder (--dir), or leave --mode out to go on with this one."


def prepare(
    workspace: Workspace, operator: Operator, narrator: Narrator, *, mode: str | None = None
) -> None:
    """Make what is missing: keys, firmware, root file system, release, server.

    Each part is made once and kept; a part that failed half-way leaves nothing behind.
    """
    if workspace.server.exists():
        _same_mode(workspace, mode)
    workspace.found()
    if not workspace.keys.exists():
        _keys(workspace, operator, narrator)
    if not workspace.keyset.exists():
        _firmware(workspace, operator, narrator)
    if not workspace.container_policy.exists():
        with narrator.step("container policy signed") as step:
            make_policy(workspace, operator, step)
    if not workspace.data_disk.exists():
        with narrator.step("images published") as step:
            publish(workspace, operator, step)
    if not workspace.release.exists():
        _release(workspace, operator, narrator)
    if not workspace.server.exists():
        _server(workspace, operator, narrator, mode or DEFAULT_MODE)


def _same_mode(workspace: Workspace, mode: str | None) -> None:
    made = tomllib.loads((workspace.server / "server.toml").read_text()).get("mode")
    if mode is not None and mode != made:
        raise OtherMode("this lab's server has another mode", expected=str(made), got=mode)


def _keys(workspace: Workspace, operator: Operator, narrator: Narrator) -> None:
    with narrator.step("enterprise keys made") as step:
        operator.run("keys", "init", workspace.keys, "--organisation", "catena lab")
        step.checked("PK, KEK, db, release key, cluster CA, log key")


def _firmware(workspace: Workspace, operator: Operator, narrator: Narrator) -> None:
    with narrator.step("firmware enrolled") as step:
        workspace.varstore.parent.mkdir(exist_ok=True)
        workspace.varstore.unlink(missing_ok=True)  # one without its key set is half made
        document = operator.run("keys", "enroll", workspace.keys, "--varstore", workspace.varstore)
        step.checked(f"only our PK, KEK, db; Secure Boot on; PCR 7 will be {_pcr(document, '7')}")


def _release(workspace: Workspace, operator: Operator, narrator: Narrator) -> None:
    with narrator.step("root file system") as step:
        shutil.rmtree(workspace.tree, ignore_errors=True)
        tree.make_tree(
            workspace.tree,
            workspace.cache,
            tree.NodeSettings(
                server_url=guest_server_url(),
                cluster_ca=(workspace.keys / "ca.crt").read_bytes(),
                interval=workspace.interval,
                container_policy=workspace.container_policy.read_bytes(),
                release_key=(workspace.keys / "release.pub").read_bytes(),
                sealed_copy=SEALED_PORT,
            ),
            step.doing,
        )
        step.checked(f"Debian {tree.SUITE} with the agent inside (cache: {workspace.cache.folder})")
    with narrator.step("release built and signed") as step:
        kernel = workspace.cache.kernel(step.doing)
        step.doing("squashfs, dm-verity, initrd, UKI, disk")
        document = operator.run(*build_words(workspace, kernel, workspace.release))
        step.checked(f"root hash {_short(document['root']['root_hash'])}")
        step.checked(f"UKI {_short(document['uki']['authenticode']['sha256'])}")
        step.checked(f"PCR 4, 5, 7, 9, 11, 12 predicted, PCR 11 = {_pcr(document, '11')}")


def build_words(workspace: Workspace, kernel: Path, output: Path) -> list[str | Path]:
    """The ``catena os build`` command of this lab."""
    return [
        *("os", "build", output),
        *("--kernel", next((kernel / "boot").glob("vmlinuz-*"))),
        *("--modules", next((kernel / "lib/modules").iterdir())),
        *("--root", workspace.tree, "--keys", workspace.keys, "--keyset", workspace.keyset),
        # Compiled Python, made from hashes and not from dates: half of the agent's start-up time.
        *("--keep", "... __pycache__"),
        *("--name", RELEASE, "--version", VERSION, "--security-version", SECURITY_VERSION),
        *(word for name in NODE_MODULES for word in ("--module", name)),
    ]


def _server(workspace: Workspace, operator: Operator, narrator: Narrator, mode: str) -> None:
    with narrator.step("trust service made") as step:
        # The TPM vendor must exist before the server can be told to accept its root.
        sample = workspace.folder / "vendor-sample"
        swtpm.manufacture(sample.absolute(), workspace.vendor)
        shutil.rmtree(sample)
        roots = [
            word
            for root in workspace.vendor.roots
            for word in ("--ek-roots", f"software={root.absolute()}")
        ]
        document = operator.run(
            *("server", "init", workspace.server, "--keys", workspace.keys),
            *("--listen", f"127.0.0.1:{_free_port()}"),
            *("--name", "127.0.0.1", "--name", guest_server_url().split("/")[2].split(":")[0]),
            *("--trust-domain", TRUST_DOMAIN, "--mode", mode),
            *("--interval", str(workspace.interval)),
            *roots,
        )
        try:
            _save_token(workspace, document["admin_token"])
        except BaseException:
            # Nobody else knows the token: without it the server is of no use.
            shutil.rmtree(workspace.server, ignore_errors=True)
            raise
        step.checked(f"SQLite, TLS from the cluster CA, mode {mode}")


def accept_references(workspace: Workspace, operator: Operator, narrator: Narrator) -> None:
    """Tell the running server what may boot, and give it the lab's secret."""
    with narrator.step("references accepted") as step:
        for path in (
            workspace.keyset,
            workspace.release / "release.dsse.json",
            workspace.container_policy,
        ):
            document = operator.run("reference", "import", path)
            step.checked(f"{document['kind']} {document['name']}")
    if not operator.run("secret", "list"):
        with narrator.step("secret stored") as step:
            value = secrets.token_urlsafe(24).encode()
            path = workspace.folder / "secret-for-comparison"
            path.touch(mode=0o600)
            path.write_bytes(value)
            operator.run("secret", "put", SECRET, "--role", ROLE, stdin=value)
            step.checked(f"{SECRET}, for role {ROLE}, encrypted at rest")


def _save_token(workspace: Workspace, token: str) -> None:
    """Keep the admin token beside the profile: convenient, and for a lab only."""
    path = workspace.server / "admin.token"
    path.touch(mode=0o600)
    path.write_text(token + "\n")
    with workspace.profile.open("a") as profile:
        profile.write(f'token_file = "{path.name}"\n')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pcr(document: dict[str, dict[str, dict[str, str]]], index: str) -> str:
    return _short(document["pcrs"]["sha256"][index])


def _short(digest: str) -> str:
    return f"{digest[:12]}…"
