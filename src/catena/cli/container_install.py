"""``catena container install`` and ``uninstall``: whether an engine starts the wrapper.

``catena container`` mounts both verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.containers.engines import Engine
    from catena.containers.install import Installed

_PATH = click.Path(path_type=Path)
_ENGINES = ("containerd", "podman", "docker", "crio")

_runtime_option = click.option(
    "--runtime",
    "engines",
    type=click.Choice(_ENGINES),
    multiple=True,
    required=True,
    help="The engine; may be given more than once.",
)
_root_option = click.option(
    "--root", type=_PATH, default="/", show_default=True, help="Work in the file system below here."
)


@click.command(
    cls=output.Verb,
    exits=[ExitCode.NOT_FOUND, ExitCode.MALFORMED],
    examples=[
        "catena container install --runtime containerd",
        "catena container install --runtime podman --real-runc /usr/local/bin/runc",
    ],
)
@_runtime_option
@click.option(
    "--real-runc", type=_PATH, default="/usr/sbin/runc", show_default=True, help="The real runtime."
)
@click.option(
    "--gate",
    type=_PATH,
    default="/run/catena-gate/gate.sock",
    show_default=True,
    help="The gate's socket.",
)
@_root_option
@output.output_option
def install(
    *,
    engines: tuple[str, ...],
    real_runc: Path,
    gate: Path,
    root: Path,
    as_json: bool,
) -> None:
    """Put the gate before every container that an engine starts.

    Each file that is changed is kept and listed below /var/lib/catena/container-install;
    `uninstall` restores it. The engine has to be restarted to read its configuration.
    """
    from catena.containers.install import Installer

    done = Installer(root).install(_chosen(engines), runtime=real_runc, gate=gate)
    output.emit(done, _print_installed, as_json=as_json)


@click.command(
    cls=output.Verb,
    exits=[ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED],
    examples=["catena container uninstall --runtime containerd"],
)
@_runtime_option
@_root_option
@output.output_option
def uninstall(engines: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Restore every file that `install` changed, byte for byte.

    If one of them was changed since, nothing is done.
    """
    from catena.containers.install import Installer

    output.emit(Installer(root).uninstall(_chosen(engines)), _print_removed, as_json=as_json)


def _chosen(engines: tuple[str, ...]) -> tuple[Engine, ...]:
    from catena.containers.engines import Engine

    return tuple(dict.fromkeys(map(Engine, engines)))


def _print_installed(done: Installed) -> None:
    for path in done.files:
        click.echo(f"wrote     {path}")
    for what in done.uncovered:
        click.echo(f"not kept  {what}")
    click.echo(f"restart   {', '.join(done.engines)}, and see that catena-gate runs")


def _print_removed(done: Installed) -> None:
    for path in done.files:
        click.echo(f"restored  {path}")
    click.echo(f"restart   {', '.join(done.engines)}")
