"""One simulated node: its keys, the boot it repeats, and the evidence it sends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from catena.evidence import Evidence, LogEntry, qualifying_data
from catena.ids import HashAlg
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.softtpm import RequestKey, SoftwareTpm


@dataclass(frozen=True, slots=True)
class BootLogs:
    """What all nodes with the same boot share."""

    boot: RecordedBoot
    manifest: tuple[LogEntry, ...]
    all_logs: dict[str, bytes] = field(repr=False)
    later_logs: dict[str, bytes] = field(repr=False)
    """Without the firmware's log, which travels once."""
    pcr_digest: bytes

    @classmethod
    def of(cls, boot: RecordedBoot) -> BootLogs:
        """Manifest and contents of a boot."""
        manifest = tuple(entry for entry, _ in boot.logs)
        contents = {entry.sha256: content for entry, content in boot.logs}
        later = {entry.sha256: contents[entry.sha256] for entry in manifest if entry.kind != "tcg2"}
        digest = hashlib.sha256(b"".join(boot.pcrs)).digest()
        return cls(boot, manifest, contents, later, digest)


@dataclass(slots=True)
class FleetNode:
    """A node of the fleet. Its request key is made once: the server cannot tell."""

    tpm: SoftwareTpm
    logs: BootLogs
    node_id: str = ""
    request: RequestKey = field(default_factory=RequestKey.make)
    attested: bool = False

    def evidence(self, nonce: bytes, *, whole: bool = False) -> Evidence:
        """Honest evidence; ``whole`` with the boot's log."""
        qualifying = qualifying_data(nonce, self.request.spki, self.logs.manifest)
        quote = self.tpm.attested(qualifying, self.logs.pcr_digest).encode()
        return self.wrap(nonce, quote, whole=whole)

    def wrap(self, nonce: bytes, quote: bytes, *, whole: bool = False) -> Evidence:
        """Any quote as this node's evidence, signed by its key."""
        first = whole or not self.attested
        return Evidence(
            node_id=self.node_id,
            nonce=nonce,
            bank=HashAlg.SHA256.value,
            quote=quote,
            signature=self.tpm.sign(quote),
            csr=self.request.csr,
            pcrs=self.logs.boot.pcrs,
            manifest=self.logs.manifest,
            logs=self.logs.all_logs if first else self.logs.later_logs,
        )
