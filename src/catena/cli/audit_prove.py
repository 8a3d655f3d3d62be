"""``catena audit prove``: take a proof out of a log, for somebody who does not have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.audit_log import LogSource, key_options, log_source
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.reader import LogReader
    from catena.keys.signer import PublicKey

_FILE = click.Path(path_type=Path, dir_okay=False)


class ProofView(msgspec.Struct, frozen=True, kw_only=True):
    """A proof that was verified before it was handed out; ``text`` is a tlog-proof.

    With ``--from`` it is a tlog-witness request instead: the consistency proof and the checkpoint.
    """

    origin: str
    size: int
    index: int | None
    old_size: int | None
    text: str
    file: str | None = None


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit prove 41 --log /var/lib/catena/log --key log.pub --to 41.tlog-proof",
        "catena audit prove sha256:5f70… --log https://catena.example:8443/log --key log.pub",
        "catena audit prove --from old-checkpoint --log ./log --key log.pub",
    ),
)
@click.argument("entry", required=False)
@log_source
@key_options
@click.option("--from", "old", type=_FILE, help="Prove that the log grew from this checkpoint.")
@click.option("--to", "target", type=_FILE, help="File to write; must not exist.")
@output.output_option
def prove(
    *,
    entry: str | None,
    source: LogSource,
    key: PublicKey,
    origin: str | None,
    old: Path | None,
    target: Path | None,
    as_json: bool,
) -> None:
    """Write the proof that ENTRY is in the log: its index, or the SHA-256 of its leaf.

    The proof is a C2SP tlog-proof that holds the entry; `catena audit verify FILE` checks it with
    nothing but the log's public key.
    """
    if (entry is None) == (old is None):
        raise click.UsageError("Give either an ENTRY or --from.")
    with source.opened() as log:
        if entry is not None:
            view = _inclusion(log, entry, key, origin)
        else:
            assert old is not None  # noqa: S101  one of the two is there
            view = _growth(log, old, key, origin)
    if target is not None:
        from catena.keys.signer import write_new

        write_new(target, view.text.encode(), mode=0o644)
        view = msgspec.structs.replace(view, file=str(target))
    output.emit(view, _render, as_json=as_json)


def _inclusion(log: LogReader, entry: str, key: PublicKey, origin: str | None) -> ProofView:
    from catena.audit.receipt import prove as proof_of
    from catena.audit.receipt import verify_proof

    proof = proof_of(log, entry, key, origin=origin)
    head = verify_proof(proof.encode().encode(), key, origin=origin).checkpoint
    return ProofView(
        origin=head.origin, size=head.size, index=proof.index, old_size=None, text=proof.encode()
    )


def _growth(log: LogReader, old: Path, key: PublicKey, origin: str | None) -> ProofView:
    from catena.audit.follow import prove_growth

    with old.open("rb") as file:
        past = file.read()
    request = prove_growth(log, past, key, origin=origin)
    return ProofView(
        origin=request.checkpoint.origin,
        size=request.checkpoint.size,
        index=None,
        old_size=request.old_size,
        text=request.encode().decode(),
    )


def _render(view: ProofView) -> None:
    if view.file is None:
        click.echo(view.text, nl=False)
        return
    what = f"entry {view.index}" if view.old_size is None else f"growth from {view.old_size}"
    click.echo(f"proof of {what} in {view.origin}, {view.size} entries: {view.file}")
