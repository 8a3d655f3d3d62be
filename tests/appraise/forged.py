"""Everything a hostile or honest node can send, made from a real boot and a key of our own.

A P-256 key plays the TPM's AK, so a test can have signed whatever it likes: that is what an
attacker with a broken TPM could do, and more than one with a sound TPM can.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from catena.appraise.appraisal import appraise
from catena.appraise.capture import capture_firmware
from catena.appraise.nonce import make_nonce
from catena.appraise.policy import compile_policy, default_policy_text
from catena.appraise.quote import ClockState
from catena.appraise.reference import RELEASE_PCRS, build_references
from catena.appraise.verdict import Appraisal, KnownNode
from catena.evidence import Evidence, LogKind, log_entry, qualifying_data
from catena.formats import efi, ima, tcglog, tpm2
from catena.formats.references import (
    ExpectedEvent,
    FirmwareCapture,
    KeySet,
    ReleaseManifest,
    Uki,
    VerityRoot,
)
from catena.formats.tcglog import Event, EventLog, EventType
from catena.formats.tpm2 import EccCurve, Public, Scheme, TpmAlg, TpmaObject
from catena.ids import HashAlg, NodeId
from catena.measure.replay import replay, replay_ima
from changed import replace

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
NODE = NodeId("5a" * 32)
NONCE_KEY = b"k" * 32
AK_ATTRIBUTES = (
    TpmaObject.FIXED_TPM
    | TpmaObject.FIXED_PARENT
    | TpmaObject.SENSITIVE_DATA_ORIGIN
    | TpmaObject.USER_WITH_AUTH
    | TpmaObject.NO_DA
    | TpmaObject.RESTRICTED
    | TpmaObject.SIGN_ENCRYPT
)
SHA256, SHA384, SHA1 = HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA1
_HASHES = {SHA1: hashes.SHA1(), SHA256: hashes.SHA256(), SHA384: hashes.SHA384()}
POLICY = compile_policy(default_policy_text())


def key(seed: int) -> ec.EllipticCurvePrivateKey:
    """The same key for the same seed, so that tests repeat."""
    return ec.derive_private_key(seed, ec.SECP256R1())


AK_KEY, CSR_KEY = key(11), key(22)


def ecc_public(
    private: ec.EllipticCurvePrivateKey,
    *,
    attributes: TpmaObject = AK_ATTRIBUTES,
    scheme: Scheme | None = Scheme(TpmAlg.ECDSA, SHA256),  # noqa: B008  frozen
    name_alg: HashAlg = SHA256,
) -> bytes:
    """TPMT_PUBLIC of an AK."""
    point = private.public_key().public_numbers()
    return tpm2.encode_public(
        Public(
            kind="ecc",
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=b"",
            symmetric=None,
            scheme=scheme,
            key_bits=256,
            raw=b"",
            curve=EccCurve.P256,
            x=point.x.to_bytes(32, "big"),
            y=point.y.to_bytes(32, "big"),
        )
    )


AK_PUBLIC = ecc_public(AK_KEY)


def qualified_signer(public: bytes = AK_PUBLIC, hierarchy: int = tpm2.RH_ENDORSEMENT) -> bytes:
    return tpm2.primary_qualified_name(tpm2.parse_public(public).name(), hierarchy)


def csr(private: ec.EllipticCurvePrivateKey = CSR_KEY) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


def spki(private: ec.EllipticCurvePrivateKey = CSR_KEY) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


CSR = csr()


def signature(
    data: bytes, private: ec.EllipticCurvePrivateKey = AK_KEY, alg: HashAlg = SHA256
) -> bytes:
    """TPMT_SIGNATURE by ECDSA."""
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(_HASHES[alg])))
    return b"".join(
        (
            TpmAlg.ECDSA.to_bytes(2, "big"),
            alg.tpm_id.to_bytes(2, "big"),
            tpm2.sized2b(r.to_bytes(32, "big")),
            tpm2.sized2b(s.to_bytes(32, "big")),
        )
    )


@dataclass(frozen=True)
class Attest:
    """The fields of a TPMS_ATTEST of type quote, to be bent."""

    magic: int = tpm2.TPM_GENERATED_VALUE
    type: int = tpm2.TPM_ST_ATTEST_QUOTE
    signer: bytes = field(default_factory=qualified_signer)
    extra: bytes = b""
    clock: int = 1_000_000
    resets: int = 7
    restarts: int = 0
    safe: int = 1
    selection: bytes = tpm2.encode_pcr_selection(SHA256, range(16))
    digest: bytes = b""
    tail: bytes = b""

    def encode(self) -> bytes:
        return b"".join(
            (
                self.magic.to_bytes(4, "big"),
                self.type.to_bytes(2, "big"),
                tpm2.sized2b(self.signer),
                tpm2.sized2b(self.extra),
                self.clock.to_bytes(8, "big"),
                self.resets.to_bytes(4, "big"),
                self.restarts.to_bytes(4, "big"),
                self.safe.to_bytes(1, "big"),
                (0x2022_0101_0000_0000).to_bytes(8, "big"),
                self.selection,
                tpm2.sized2b(self.digest),
                self.tail,
            )
        )


@dataclass(frozen=True)
class Boot:
    """Logs of one boot; PCRs follow from them unless ``values`` says otherwise."""

    log: bytes
    ima: bytes | None
    values: tuple[bytes, ...] | None = None
    containers: bytes | None = None
    container_values: tuple[bytes, bytes] | None = None
    """The containers' PCR in SHA-256 and SHA-384, if its record says nothing else about it."""

    @property
    def logs(self) -> list[tuple[LogKind, bytes]]:
        named = (("tcg2", self.log), ("ima", self.ima), ("containers", self.containers))
        return [(kind, content) for kind, content in named if content is not None]

    def pcrs(self, bank: HashAlg) -> tuple[bytes, ...]:
        values = self._boot_pcrs(bank)
        if self.container_values is None:
            return values
        return (*values[:15], self.container_values[bank is not SHA256])

    def _boot_pcrs(self, bank: HashAlg) -> tuple[bytes, ...]:
        if self.values is not None:
            return self.values
        found = dict(replay(tcglog.parse(self.log), bank).pcrs)
        if self.ima is not None:
            found.update(replay_ima(ima.parse(self.ima), bank))
        return tuple(found[pcr] for pcr in range(16))


def corpus_boot(name: str, bank: HashAlg = SHA256) -> Boot:
    """A real boot with the PCR values that its TPM held."""
    folder = CORPUS / "boots" / name
    state = json.loads((folder / "state.json").read_text())
    values = tuple(bytes.fromhex(state["pcrs"][bank][str(pcr)]) for pcr in range(16))
    log = (folder / "eventlog.bin").read_bytes()
    return Boot(log, base64.b64decode(state["ima_b64"]), values)


@dataclass(frozen=True)
class Exchange:
    """One attestation; each field can be replaced to make it hostile."""

    boot: Boot
    bank: HashAlg = SHA256
    attest: Attest = field(default_factory=Attest)
    private: ec.EllipticCurvePrivateKey = AK_KEY
    nonce: bytes = make_nonce(NONCE_KEY, NODE, NOW, b"r" * 16)

    def evidence(self) -> Evidence:
        """Honest evidence about ``boot``, in the shape that the fields ask for."""
        logs = self.boot.logs
        manifest = tuple(log_entry(kind, content) for kind, content in logs)
        values = self.boot.pcrs(self.bank)
        attest = replace(
            self.attest,
            extra=self.attest.extra or qualifying_data(self.nonce, spki(), manifest),
            digest=self.attest.digest or SHA256.digest(b"".join(values)),
        )
        quote = attest.encode()
        return Evidence(
            node_id=NODE,
            nonce=self.nonce,
            bank=self.bank.value,
            quote=quote,
            signature=signature(quote, self.private),
            csr=CSR,
            pcrs=values,
            manifest=manifest,
            logs={
                entry.sha256: content for entry, (_, content) in zip(manifest, logs, strict=True)
            },
        )


def judge(evidence: Evidence, references, **changes) -> Appraisal:
    """Appraise as the service would; ``logs``, ``node``, ``policy``, ``now`` can be changed."""
    arguments = {
        "logs": evidence.logs,
        "node": KnownNode(id=NODE, ak_public=AK_PUBLIC, clock=None, tpm_kind="software"),
        "nonce_key": NONCE_KEY,
        "references": references,
        "policy": POLICY,
        "now": NOW,
    }
    return appraise(evidence, **{**arguments, **changes})


def known_node(clock: ClockState | None) -> KnownNode:
    return KnownNode(id=NODE, ak_public=AK_PUBLIC, clock=clock)


def resign(evidence: Evidence, private: ec.EllipticCurvePrivateKey = AK_KEY, **changes) -> Evidence:
    """The evidence with other fields, its quote signed again."""
    changed = msgspec.structs.replace(evidence, **changes)
    return msgspec.structs.replace(changed, signature=signature(changed.quote, private))


# References that describe a boot exactly ---------------------------------------------------


def expected(event: Event, name: str) -> ExpectedEvent:
    digests = {bank.value: digest.hex() for bank, digest in event.digests.items()}
    return ExpectedEvent(id=name, pcr=event.pcr, what=name, digests=digests)


def pcr_table(log: EventLog, pcrs: tuple[int, ...]) -> dict[str, dict[str, str]]:
    return {
        bank.value: {str(pcr): replay(log, bank).pcrs[pcr].hex() for pcr in pcrs}
        for bank in (SHA256, SHA384)
    }


def firmware_of(boot: Boot) -> FirmwareCapture:
    banks = (SHA256, SHA384)
    return capture_firmware(boot.log, banks, name="ovmf", version="2022.11", node=NODE)


def keyset_of(boot: Boot) -> KeySet:
    log = tcglog.parse(boot.log)
    events = []
    for event in log.events:
        if event.pcr == 7 and event.type != EventType.EV_SEPARATOR:
            variable = efi.parse_variable(event.data)
            late = event.type == EventType.EV_EFI_VARIABLE_AUTHORITY
            events.append(expected(event, f"authority:{variable.name}" if late else variable.name))
    return KeySet(
        name="acme",
        version="1",
        owner="acme",
        certificates={},
        events=tuple(events),
        pcrs=pcr_table(log, (7,)),
    )


def release_of(
    boot: Boot,
    *,
    version: str = "1",
    security_version: int = 1,
    revokes: tuple[str, ...] = (),
) -> ReleaseManifest:
    """Whatever ``boot`` measured beside firmware and keys, its kernel modules included."""
    log = tcglog.parse(boot.log)
    images = 0
    events = []
    for event in log.events:
        if event.pcr not in RELEASE_PCRS or event.type in (
            EventType.EV_SEPARATOR,
            EventType.EV_EFI_ACTION,
            EventType.EV_NO_ACTION,
        ):
            continue
        name = f"pcr{event.pcr}:{event.index}"
        if event.type == EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
            name, images = ("uki", f"image{images}")[images > 0], images + 1
        events.append(expected(event, name))
    for entry in ima.parse(boot.ima or b"")[1:]:
        digests = {bank.value: ima.replay_digest(entry, bank).hex() for bank in (SHA256, SHA384)}
        events.append(ExpectedEvent(id=entry.path, pcr=10, what=entry.path, digests=digests))
    return ReleaseManifest(
        name="lab",
        version=version,
        security_version=security_version,
        architecture="x86_64",
        kernel="6.1",
        command_line="",
        uki=Uki(authenticode={}, sections={}, file_sha256="", stub="252"),
        root=VerityRoot(
            root_hash="",
            salt="",
            hash_algorithm="sha256",
            data_block_size=4096,
            hash_block_size=4096,
            data_blocks=1,
        ),
        disk_sha256="",
        revokes=revokes,
        events=tuple(events),
        pcrs=pcr_table(log, (4, 5, 9, 11, 12)),
    )


def references_of(boot: Boot, *, floor: int = 0, **more):
    return build_references(
        releases=(release_of(boot),),
        keysets=(keyset_of(boot),),
        firmware=(firmware_of(boot),),
        floor=floor,
        **more,
    )


# Logs, bent --------------------------------------------------------------------------------


def encode_log(original: bytes, events: list[Event]) -> bytes:
    """A crypto-agile log with other events behind the Spec ID event of ``original``."""
    log = tcglog.parse(original)
    head = original[: log.events[1].offset]
    return head + b"".join(_encode_event(event) for event in events)


def _encode_event(event: Event) -> bytes:
    digests = b"".join(
        bank.tpm_id.to_bytes(2, "little") + digest for bank, digest in event.digests.items()
    )
    head = (event.pcr, event.type, len(event.digests))
    return (
        b"".join(value.to_bytes(4, "little") for value in head)
        + digests
        + len(event.data).to_bytes(4, "little")
        + event.data
    )


def rebuilt(boot: Boot, change) -> Boot:
    """The boot as it would have been, had ``change(events)`` been measured instead.

    IMA's first entry is recomputed, so that only what the test changed is odd.
    """
    events = list(tcglog.parse(boot.log).events[1:])
    log = encode_log(boot.log, change(events))
    entries = ima.parse(boot.ima or b"")
    if not entries:
        return Boot(log, boot.ima)
    pcrs = replay(tcglog.parse(log), SHA256).pcrs
    aggregate = SHA256.digest(b"".join(pcrs[pcr] for pcr in range(10)))
    first = ima_entry(b"sha256:\0" + aggregate, b"boot_aggregate\0", b"")
    return Boot(log, first + b"".join(ima.encode(entry) for entry in entries[1:]))


def measured(pcr: int, kind: int, data: bytes, content: bytes | None = None) -> Event:
    """An event whose digests are over ``content``, or else its own data."""
    hashed = data if content is None else content
    digests = {bank: bank.digest(hashed) for bank in (SHA1, SHA256, SHA384)}
    return Event(0, pcr, kind, digests, data, 0)


def ima_entry(*fields: bytes, pcr: int = 10, violation: bool = False) -> bytes:
    data = ima.encode_fields(*fields)
    digest = bytes(20) if violation else hashlib.sha1(data).digest()
    return ima.encode(ima.ImaEntry(0, pcr, digest, "ima-sig", data, fields))


def codes(appraisal: Appraisal) -> list[str]:
    return [reason.code for reason in appraisal.reasons]
