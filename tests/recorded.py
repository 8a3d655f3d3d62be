"""The corpus' boots in the folders that ``catena lab fleet`` reads."""

from __future__ import annotations

from pathlib import Path

from appraise.forged import corpus_boot

TRUSTED = ("B_sb_own_uki", "C_sb_own_sdboot_uki")


def record_boots(folder: Path, names: tuple[str, ...] = TRUSTED) -> Path:
    """Write the logs of real boots; the folder."""
    for name in names:
        boot, place = corpus_boot(name), folder / name
        place.mkdir(parents=True)
        (place / "eventlog.bin").write_bytes(boot.log)
        (place / "ima.bin").write_bytes(boot.ima or b"")
    return folder
