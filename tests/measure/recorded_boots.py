"""The recorded boots of the corpus, with the truth that was read from their TPMs."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from catena.formats import ima, tcglog
from catena.formats.tcglog import EventLog
from catena.ids import HashAlg

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
BOOTS = (
    "A_nosb_uki",
    "B_sb_own_uki",
    "C_sb_own_sdboot_uki",
    "D_sb_own_uki_creds",
    "G_nosb_sdboot_type1",
    "I_sb_own_uki_smbios",
)


@dataclass(frozen=True)
class Boot:
    name: str
    log: EventLog
    ima: tuple[ima.ImaEntry, ...]
    state: dict

    def pcr(self, index, bank=HashAlg.SHA256):
        return bytes.fromhex(self.state["pcrs"][bank][str(index)])

    def variable(self, name):
        """The variable as the booted system read it: 4 bytes of attributes, then content."""
        found = [value for key, value in self.state["vars_b64"].items() if key.startswith(name)]
        return base64.b64decode(found[0])[4:] if found else None


def load_boot(name):
    folder = CORPUS / "boots" / name
    state = json.loads((folder / "state.json").read_text())
    return Boot(
        name=name,
        log=tcglog.parse((folder / "eventlog.bin").read_bytes()),
        ima=ima.parse(base64.b64decode(state["ima_b64"])),
        state=state,
    )
