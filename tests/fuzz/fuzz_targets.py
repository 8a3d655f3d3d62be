"""What is fuzzed: every reader of hostile bytes, and what must hold for what it returns."""

from __future__ import annotations

import base64
import inspect
import io
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args

import msgspec
from cryptography import x509
from fuzz_probe import LIMIT_INPUT, Probe, Target, check_offset, check_words
from fuzz_seeds import MAX_SEED, certificate, db_certificate, signature_on_image

import small_audit
from catena.appraise.authority import read_offered
from catena.appraise.certificate import parse_certificate
from catena.appraise.revocation import parse_revocation_list
from catena.appraise.tolerance import TOLERANCES
from catena.audit import checkpoint, cosigned, people, receipt, report, tiles
from catena.audit.entries import KINDS
from catena.audit.facts import facts_of, node_of
from catena.audit.leaf import open_entry, seal_entry
from catena.containers.launch.check import check_create
from catena.containers.launch.document import default_policy, read_launch_policy
from catena.containers.launch.dryrun import dry_run
from catena.containers.launch.rules import CompiledLaunch, compile_launch
from catena.containers.record import replay as record_replay
from catena.containers.rootfs import packing, tree
from catena.containers.rootfs.layer import layer_tree
from catena.containers.signature import notation as notation_signature
from catena.containers.signature import openpgp as openpgp_signature
from catena.containers.signature.certificates import parse_certificates
from catena.containers.signature.images_policy import read_policy_json
from catena.containers.signature.notation import NotationTrust
from catena.containers.signature.simple import parse_simple_signing
from catena.containers.signature.x509 import Identity, present, verify_identity
from catena.errors import CatenaError, FormatError
from catena.evidence import Evidence
from catena.formats import (
    aci,
    addcheckpoint,
    cbor,
    cel,
    containerlog,
    cose,
    cosignature,
    der,
    distinguished,
    dsse,
    efi,
    ekattributes,
    endorsements,
    gpt,
    ijson,
    ima,
    ima_ascii,
    imageconfig,
    inventory,
    jwk,
    jws,
    jwt,
    layertar,
    nodeapi,
    notation,
    note,
    oci,
    openpgp,
    otlp,
    pcrpolicy,
    pe,
    pkcs11uri,
    policies,
    references,
    rekor,
    runtime,
    sigstore,
    simplesigning,
    tcglog,
    tlogproof,
    tpm2,
    tpm2nv,
    varstore,
    verifierkey,
    webhook,
)
from catena.formats.certificate import issuer_and_serial
from catena.formats.containerpolicy import ContainerPolicy
from catena.formats.launchpolicy import LaunchPolicy
from catena.formats.pattern import compile_pattern
from catena.formats.unambiguous import read_once
from catena.formats.webhook import BadWebhookSecret
from catena.ids import HashAlg
from catena.keys import envelope
from catena.measure import difference, facts, grammar, ima_replay, logfile, replay, signers, story
from catena.measure.describe import describe
from catena.osimage import authenticode
from changed import replace
from code_signing import IMAGE
from code_signing import NOW as SIGNED
from signature_vectors import NOTATION_ROOT, OPENPGP_CONTENT, OPENPGP_KEY

T = TypeVar("T")

# Formats -----------------------------------------------------------------------------------


def _cel_json(data: bytes) -> None:
    for record in cel.parse_json(data):
        assert isinstance(record.text, bytes)


def _cel_records(data: bytes) -> None:
    """One by one, and each again from where it begins."""
    records, start = [], 0
    for record, end in cel.tlv_records(data):
        assert next(cel.tlv_records(data, start, record.index)) == (record, end)
        assert start < end <= len(data)
        records.append(record)
        start = end
    assert tuple(records) == cel.parse_tlv(data)


def _cel_tlv(data: bytes) -> None:
    records = cel.parse_tlv(data)
    again = cel.parse_tlv(b"".join(map(cel.encode_tlv, records)))
    assert [replace(one, offset=0) for one in again] == [replace(one, offset=0) for one in records]


def _cel_whole(data: bytes) -> None:
    size = cel.complete_tlv(data)
    assert cel.complete_tlv(data[:size]) == size <= len(data)
    assert (cel.record_end(data) or 0) <= size
    try:
        whole = cel.parse_tlv(data)
    except FormatError:
        return
    assert not whole or size == len(data)


def _container_event(data: bytes) -> None:
    event = containerlog.parse(data)
    assert containerlog.parse(containerlog.encode(event)) == event
    containerlog.encode(containerlog.abridge(event))


def _container_content(data: bytes) -> None:
    record = containerlog.to_record(0, data, (HashAlg.SHA256,), pcr=15, nv_index=None)
    (read,) = record_replay.read_record(cel.encode_tlv(record))
    assert read.event == containerlog.parse_record(record)


def _container_record(data: bytes) -> None:
    """A record, replayed and held to the order of events, and what a listing makes of it."""
    events = record_replay.read_record(data)
    if events:
        for bank in events[0].digests:
            assert len(record_replay.replay(events, bank)) == len(events)
    record_replay.check_sequence(events)


def _dsse(data: bytes) -> None:
    envelope = dsse.parse(data)
    assert dsse.parse(envelope.encode()) == envelope
    assert envelope.payload in envelope.pae()


def _statement(data: bytes) -> None:
    encoded = dsse.parse_statement(data).encode()
    assert dsse.parse_statement(encoded).encode() == encoded


def _json_of(kind: type[msgspec.Struct]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        body = nodeapi.decode(data, kind)
        assert nodeapi.decode(msgspec.json.encode(body), kind) == body

    return read


def _predicate(kind: type[references.Document]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        document = references.parse_predicate(data, kind)
        assert references.parse_predicate(msgspec.json.encode(document), kind) == document

    return read


def _variable(data: bytes) -> None:
    variable = efi.parse_variable(data)
    assert variable.encode() == data
    efi.boot_variable_text(variable)


def _signature_entry(data: bytes) -> None:
    assert efi.parse_signature_entry(data).encode() == data


def _signature_lists(data: bytes) -> None:
    lists = efi.parse_signature_lists(data)
    assert efi.holds_signature_lists(data)
    if all(one.signatures for one in lists):
        assert efi.encode_signature_lists(lists) == data


def _image_load(data: bytes) -> None:
    load = efi.parse_image_load(data)
    efi.device_path_text(load.device_path)


def _load_option(data: bytes) -> None:
    efi.device_path_text(efi.parse_load_option(data).device_path)


def _boot_variable(data: bytes) -> None:
    name = ("BootOrder", "Boot0001")[len(data) % 2]
    efi.boot_variable_text(efi.VariableData(efi.EFI_GLOBAL_VARIABLE, name, data))


def mended_gpt(data: bytes) -> bytes:
    """``data`` with the checksums of a partition table set right: no fuzzer guesses a CRC."""
    disk = bytearray(data.ljust((gpt.FIRST_USABLE) * gpt.SECTOR, b"\0"))
    entries = disk[2 * gpt.SECTOR :][: gpt.ENTRY_COUNT * gpt.ENTRY_SIZE]
    at = gpt.SECTOR
    disk[at + 88 : at + 92] = zlib.crc32(entries).to_bytes(4, "little")
    disk[at + 16 : at + 20] = bytes(4)
    disk[at + 16 : at + 20] = zlib.crc32(disk[at : at + gpt.HEADER_SIZE]).to_bytes(4, "little")
    return bytes(disk)


def _gpt(data: bytes) -> None:
    table = gpt.parse(data)
    assert gpt.parse(table.encode_start()) == table
    assert gpt.parse_event(table.event_data()).partitions == table.partitions


def _mended_gpt(data: bytes) -> None:
    try:
        _gpt(mended_gpt(data))
    except FormatError as error:
        error.offset = 0  # of the mended disk
        raise


def _measured_gpt(data: bytes) -> None:
    for disk in (data, mended_gpt(data)):
        _refused(lambda one=disk: gpt.parse_event(gpt.measured_data(one)))
    gpt.measured_data(data)


def _varstore(data: bytes) -> None:
    for variable in varstore.parse(data):
        variable.name.encode()
        _refused(lambda one=variable: efi.parse_signature_lists(one.data))


def _ima(data: bytes) -> None:
    entries = ima.parse(data)
    assert b"".join(map(ima.encode, entries)) == data
    walked = [(pcr, content) for pcr, content, _ in ima.measurements(data)]
    assert walked == [(one.pcr, None if one.is_violation else ima.hashed(one)) for one in entries]
    _tell_entries(entries)


def _ima_ascii(data: bytes) -> None:
    _tell_entries(ima_ascii.parse(data))


def _tell_entries(entries: tuple[ima.ImaEntry, ...]) -> None:
    for entry in entries:
        algorithm, _ = entry.file_digest
        (entry.path + algorithm).encode()


def _ima_walk(data: bytes) -> None:
    assert ima_replay.advance(ima_replay.at_boot(HashAlg.SHA256), data).entries >= 0


def _ima_one_by_one(data: bytes) -> None:
    assert tuple(ima.entries(data)) == ima.parse(data)


def _layer_tar(data: bytes) -> None:
    for entry in layertar.parse(data):
        parts = entry.path.split(b"/") if entry.path else []
        assert not {b"", b".", b".."} & set(parts)
        assert entry.size <= len(data)


def _layer(data: bytes) -> None:
    """A layer all the way: its tree lists and reads back the same, on top of nothing as well."""
    found = layer_tree(layertar.entries(io.BytesIO(data)))
    assert tree.decode(tree.encode(found)) == found
    tree.merged([found, found])


def _packed(data: bytes) -> None:
    with packing.unpacked(packing.Hashed(io.BytesIO(data), limit=len(data))) as inside:
        bounded = packing.Hashed(inside, limit=1 << 24)
        bounded.drain()


def _note(data: bytes) -> None:
    assert note.parse(data).encode().encode() == data


def _checkpoint(data: bytes) -> None:
    _written_again(data, note.parse_checkpoint, note.Checkpoint.encode)


def _written_again(data: bytes, read: Callable[[str], T], write: Callable[[T], str]) -> None:
    """A reader of text, which is written again the same way."""
    text = data.decode("utf-8", "replace")
    try:
        assert write(read(text)) == text
    except FormatError as error:
        check_offset(error, len(text.encode()))
        error.offset = 0  # of the decoded text
        raise


def _note_lines(data: bytes) -> None:
    lines = note.parse_signatures(data)
    assert "".join(f"{one.encode()}\n" for one in lines).encode() == data


def _note_size(data: bytes) -> None:
    _written_again(data, lambda text: note.parse_size(text, "size"), str)


def _note_hash(data: bytes) -> None:
    _written_again(data, lambda text: note.parse_hash(text, "hash"), note.encode_base64)


def _note_base64(data: bytes) -> None:
    _written_again(data, note.decode_base64, note.encode_base64)


def _note_encoded(data: bytes) -> None:
    assert note.decode_base64(note.encode_base64(data)) == data


def _verifier_key(data: bytes) -> None:
    _written_again(data, verifierkey.parse, verifierkey.VerifierKey.encode)


def _cosignature(data: bytes) -> None:
    found = cosignature.parse(data)
    assert found.encode() == data
    assert cosignature.message("text\n", found.time).endswith(b"\ntext\n")


def _otlp_answer(data: bytes) -> None:
    number, why = otlp.rejected(data)
    assert (type(number), type(why)) == (int, str)


def _tlog_proof(data: bytes) -> None:
    proof = tlogproof.parse(data)
    assert proof.encode().encode() == data
    assert len(proof.hashes) <= tlogproof.MAX_HASHES


def _add_checkpoint(data: bytes) -> None:
    request = addcheckpoint.parse(data)
    assert request.encode() == data
    assert len(request.proof) <= addcheckpoint.MAX_PROOF


def _size_answer(data: bytes) -> None:
    assert addcheckpoint.size_answer(addcheckpoint.parse_size_answer(data)) == data


def _pcr_policy(data: bytes) -> None:
    try:
        policy = pcrpolicy.parse(data)
    except FormatError as error:
        check_words(error)
        if pcrpolicy.is_pcr_policy(data):
            error.offset = 0  # of an unpacked file, or of a pattern in it
        raise
    for rule in policy.rules:
        if rule.kind == "ascii":
            compile_pattern(rule.value).matches("set default=gnulinux")


def _ijson(data: bytes) -> None:
    ijson.decode(data, dict[str, msgspec.Raw], limit=LIMIT_INPUT, what="document")


def _manifest(data: bytes) -> None:
    manifest = oci.parse_manifest(data)
    assert oci.parse_manifest(manifest.encode()) == manifest
    assert isinstance(manifest.kind, str)


def _index(data: bytes) -> None:
    index = oci.parse_index(data, limit=oci.MAX_INDEX)
    assert oci.parse_index(index.encode(), limit=oci.MAX_INDEX) == index


def _jwt(data: bytes) -> None:
    """A token, and what is asked of one before its signature is verified."""
    found = jwt.parse(data.decode("latin-1"))
    for claim in ("groups", "aud", "email_verified"):
        found.words(claim)
        found.says(claim)
    assert isinstance(found.claims.audiences, tuple)


def _jwt_again(data: bytes) -> None:
    """A token has one spelling."""
    text = data.decode("latin-1")
    found = jwt.parse(text)
    assert jwt.encode(found.to_be_signed, found.signature) == text


def _webhook_secret(data: bytes) -> None:
    assert len(webhook.parse_secret(data.decode("latin-1"))) >= webhook.MIN_SECRET


def _text_of(read: Callable[[str], object]) -> Callable[[bytes], None]:
    """A reader of texts; what it returns reads the same again."""

    def probe(data: bytes) -> None:
        found = read(data.decode("utf-8", "replace"))
        assert read(str(found)) == found

    return probe


def _simple_signing(data: bytes) -> None:
    signed = simplesigning.parse(data)
    assert oci.parse_digest(signed.image) == signed.image
    msgspec.json.encode((signed.reference, dict(signed.texts), signed.timestamp))


def _bundle(data: bytes) -> None:
    bundle = sigstore.parse(data)
    for promise in bundle.promises:
        promise.signed()
        _refused(lambda one=promise: rekor.parse_entry(one.body))
    if isinstance(bundle.content, sigstore.SignedStatement):
        assert bundle.content.payload in bundle.content.message


def _image_statement(data: bytes) -> None:
    said = sigstore.parse_statement(data)
    again = sigstore.statement(said.sha256, said.annotations)
    assert sigstore.parse_statement(again).annotations == said.annotations


def _log_entry(data: bytes) -> None:
    entry = rekor.parse_entry(base64.b64encode(data).decode())
    assert isinstance(entry.verifier, bytes)


def _pe(data: bytes) -> None:
    image = pe.parse(data)
    image.authenticode(HashAlg.SHA256)
    for section in image.sections:
        _refused(lambda one=section: image.content(one))
        _refused(lambda one=section: image.section(one.name))
    image.certificates()


def _refused(read: Callable[[], object]) -> None:
    """``read``, if it goes: a malformed part does not keep the others from being read."""
    try:
        read()
    except FormatError as error:
        check_words(error)


def _public(data: bytes) -> None:
    public = tpm2.parse_public(data)
    spelled_out = public.kind == "rsa" and tpm2.encode_public(public) != data
    if not spelled_out:
        assert tpm2.encode_public(public) == data
    else:
        assert public.exponent == 65537
    assert tpm2.object_name(public.name_alg, data) == public.name()
    public.key()


def _attest(data: bytes) -> None:
    assert tpm2.parse_attest(data).clock.safe in {True, False}


def _nv_certify_info(data: bytes) -> None:
    found = tpm2nv.parse_nv_certify_info(data)
    wire = tpm2.sized2b(found.name) + found.offset.to_bytes(2, "big")
    assert wire + tpm2.sized2b(found.contents) == data


def _tpm_signature(data: bytes) -> None:
    assert isinstance(tpm2.parse_signature(data).signature_bytes(), bytes)


def _tcglog(data: bytes) -> None:
    log = tcglog.parse(data)
    assert all(data[one.offset :][: len(one.data)] is not None for one in log.events)
    for event in log.events:
        tcglog.event_type_name(event.type)
        assert event.data in data


def _runtime_config(data: bytes) -> None:
    config = runtime.parse_config(data)
    if len(data) < MAX_SEED:
        copied = runtime.private_copy(data, Path("/bundle"))
        assert runtime.private_copy(copied, Path("/other")) == copied
        assert runtime.parse_config(copied).argv == config.argv
    for text in config.mount_texts:
        _refused(lambda one=text: runtime.parse_mount(one))


def _mount(data: bytes) -> None:
    mount = runtime.parse_mount(data.decode("utf-8", "replace"))
    assert runtime.parse_mount(mount.text).text == mount.text


def _image_config(data: bytes) -> None:
    image = imageconfig.parse(data)
    assert len(image.argv) >= len(image.entrypoint)
    assert all(one.startswith("sha256:") for one in image.diff_ids)


def _cbor(data: bytes) -> None:
    value = cbor.parse(data)
    assert cbor.parse(cbor.encode(value)) == value


def _cose(data: bytes) -> None:
    message = cose.parse(data)
    assert cose.parse(message.encode()) == message
    assert message.raw_protected in message.to_be_signed()


def _jws(data: bytes) -> None:
    envelope = jws.parse(data)
    assert jws.parse(envelope.encode()) == envelope
    jws.decode_base64url(envelope.payload)


def _base64url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert jws.encode_base64url(jws.decode_base64url(text)) == text


def _payload(data: bytes) -> None:
    payload = notation.parse_payload(data)
    assert notation.parse_payload(payload.encode()) == payload


def _packets(data: bytes) -> None:
    packets = openpgp.parse(data)
    assert b"".join(one.raw for one in packets) == data
    for packet in packets[:4]:
        _refused(lambda one=packet: openpgp.inflate(one))


def _dearmor(data: bytes) -> None:
    content = openpgp.dearmor(data, openpgp.SIGNATURE_ARMOR)
    again = openpgp.armor(content, openpgp.SIGNATURE_ARMOR).encode()
    assert openpgp.dearmor(again, openpgp.SIGNATURE_ARMOR) == content


def _aci(data: bytes) -> None:
    image = aci.parse(data)
    image.manifest.label("version").encode()
    assert image.image_id.startswith("sha512-")


# Readers above the formats -----------------------------------------------------------------


def _any_log(data: bytes) -> None:
    played = logfile.replay_all(data)
    assert all(
        len(value) == bank.size for bank, pcrs in played.pcrs.items() for value in pcrs.values()
    )


def _boot(data: bytes) -> None:
    """A firmware log all the way: words, replay, grammar, facts, story, difference."""
    log = tcglog.parse(data)
    for bank in log.banks:
        assert set(replay.replay(log, bank).pcrs) == set(range(24))
        for problem in grammar.problems(log, bank):
            check_words(problem)
        for event in log.events:
            describe(event, bank).encode()
        msgspec.json.encode(story.tell(log, bank))
        side = difference.side_of_log("boot", log, bank)
        assert difference.compare(side, side, bank).identical


def _facts(data: bytes) -> None:
    log = tcglog.parse(data)
    for bank in log.banks:
        found = facts.read(log, bank)
        msgspec.json.encode((found, found.variables, found.key_owners))


def _owners(data: bytes) -> None:
    msgspec.json.encode(signers.owners(data))
    variable = efi.VariableData(efi.IMAGE_SECURITY_DATABASE, "db", data)
    msgspec.json.encode(signers.authority(variable))


def _issuer_and_serial(data: bytes) -> None:
    issuer, serial = issuer_and_serial(data)
    assert (issuer is None) == (serial is None)


@cache
def _trust() -> NotationTrust:
    roots = parse_certificates(NOTATION_ROOT)
    return NotationTrust(roots, roots)


def _notation_jws(data: bytes) -> None:
    assert notation_signature.verify_jws(data, IMAGE, _trust(), SIGNED).image == IMAGE


def _notation_cose(data: bytes) -> None:
    assert notation_signature.verify_cose(data, IMAGE, _trust(), SIGNED).image == IMAGE


def _detached(data: bytes) -> None:
    now = datetime.now(UTC)
    assert openpgp_signature.verify_detached(OPENPGP_CONTENT, data, [OPENPGP_KEY], now)


def _inline(data: bytes) -> None:
    content, _ = openpgp_signature.verify_inline(data, [OPENPGP_KEY], datetime.now(UTC))
    assert content == OPENPGP_CONTENT


def _images_policy(data: bytes) -> None:
    policy = read_policy_json(data, lambda _: b"-----BEGIN PUBLIC KEY-----")
    assert policy.scopes


@cache
def _db() -> x509.Certificate:
    return db_certificate()


@cache
def _identity() -> Identity:
    return Identity((_db(),), "CN=db", "", "")


def _image_certificate(data: bytes) -> None:
    """A certificate that came with an image's signature, and one above it."""
    for chain in ((data,), (certificate(), data)):
        presented = present(chain, (), b"", "")
        verify_identity(presented, _identity(), datetime(2026, 1, 2, tzinfo=UTC))


def _authenticode(data: bytes) -> None:
    image = pe.parse(signature_on_image(data))
    assert authenticode.verify(image, [_db()]) == _db()


@cache
def _default_launch() -> CompiledLaunch:
    """The shipped policy for any command, of an image of which nothing is known."""
    any_text = ("re:.*",)
    commands = {"argv": ((*any_text, "..."),), "cwd": any_text, "users": any_text}
    return compile_launch(replace(default_policy(), **commands))


def _launch(data: bytes) -> None:
    check_create(runtime.parse_config(data), _default_launch(), None, lambda *_: False)


def _launch_policy(data: bytes) -> None:
    policy = read_launch_policy(data)
    assert read_launch_policy(msgspec.json.encode(policy)) == policy


def _dry_run(data: bytes) -> None:
    events = [one.event for one in record_replay.read_record(data)]
    msgspec.json.encode(dry_run(events, _default_launch(), lambda _: None))


# Logs --------------------------------------------------------------------------------------

_LOG_KEY = small_audit.SIGNER.public_key


def _log_checkpoint(data: bytes) -> None:
    head = checkpoint.verify(data, _LOG_KEY)
    assert head.encode().encode() in data


def _cosigned(data: bytes) -> None:
    found = cosigned.verify_cosigned(data, _LOG_KEY, small_audit.DEMANDED)
    assert [one.name for one in found.cosigners] == [small_audit.WITNESS_NAME]


def _witness(data: bytes) -> None:
    _written_again(data, cosigned.parse_witness, verifierkey.VerifierKey.encode)


def _leaf(data: bytes) -> None:
    assert seal_entry(small_audit.SIGNER, open_entry(data, _LOG_KEY)) == data


def _signed_entry(data: bytes) -> None:
    """A statement that the log's key signed: no fuzzer guesses a signature."""
    leaf = envelope.seal(small_audit.SIGNER, data).encode()
    try:
        entry = open_entry(leaf, _LOG_KEY)
    except FormatError as error:
        check_offset(error, len(leaf))
        error.offset = 0  # of the leaf
        raise
    msgspec.json.encode((entry, entry.summary(), node_of(entry), list(facts_of(entry))))


def _proof(data: bytes) -> None:
    proven = receipt.verify_proof(data, _LOG_KEY)
    assert proven.entry == small_audit.ENTRIES[proven.index]


def _report(data: bytes) -> None:
    found = report.verify_report(data, _LOG_KEY)
    assert set(found.entries) <= set(range(found.size))
    assert all(found.read(digest) for digest in found.contents)
    for _, verdict in found.verdicts():
        assert verdict.node_id in found.nodes


def _signed_report(data: bytes) -> None:
    """A body that its maker signed, as a hostile maker can sign any."""
    made = report._signed(data, small_audit.WITNESS, small_audit.NOON)
    try:
        _report(made)
    except FormatError as error:
        check_offset(error, len(made))
        error.offset = 0  # of the report
        raise


def _people(data: bytes) -> None:
    assert all(map(people.is_pseudonym, people.open_people(data)))


def _bundle_of_entries(data: bytes) -> None:
    """Of as many entries as there seem to be."""
    count, at = 0, 0
    while at < len(data) and count < tiles.TILE_WIDTH:
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        count += 1
    assert tiles.encode_bundle(tiles.parse_bundle(data, count)) == data


def _tile_path(data: bytes) -> None:
    _written_again(data, tiles.parse_path, lambda tile: tile.path)


def _der_children(data: bytes) -> None:
    """Children lie one behind the other in their parent, and fill it."""
    parent = der.element(data)
    at = parent.body
    for child in der.children(data, parent):
        assert child.start == at < child.end <= parent.end
        at = child.end
    assert at == parent.end


def _der_departures(data: bytes) -> None:
    assert der.departures(data) == tuple(sorted(set(der.departures(data)), key=lambda one: one[1]))


def _name(data: bytes) -> None:
    assert distinguished.text(distinguished.attributes(data)).isascii()


def _ek_attributes(data: bytes) -> None:
    found = ekattributes.read_ek_attributes(data)
    for text in (found.vendor, found.model, found.version):
        assert text.isascii()
        assert len(text) <= ekattributes.MAX_VALUE


def _blocks(data: bytes) -> None:
    for block in endorsements.split(data):
        assert endorsements.split(endorsements.pem(block, "crl").encode()) == (block,)


def _vendor_certificate(data: bytes) -> None:
    """A stranger's certificate, and what is asked of one before it is trusted."""
    try:
        found = parse_certificate(data)
    except ValueError as error:
        raise FormatError(str(error)) from error
    assert parse_certificate(found.der).der == found.der
    assert found.subject_text.isascii()
    found.has_signed(found.signed)
    for malformation in found.malformations:
        TOLERANCES[malformation].covers(found)


def _revocation_list(data: bytes) -> None:
    found = parse_revocation_list(data)
    assert found.issuer_text.isascii()
    assert all(isinstance(serial, int) for serial in found.revoked)


def _offered(data: bytes) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,63}", read_offered(data).name)


# The registry ------------------------------------------------------------------------------

_JSON = (
    b'{"',
    b'":',
    b'","',
    b'":"',
    b"[]",
    b"{}",
    b"null",
    b"true",
    b"1e9",
    b"\\ud800",
    b"\\u0000",
    b"[[",
    b'":{',
    b"==",
)
_U32 = tuple(
    n.to_bytes(4, order) for n in (0, 1, 16, 28, 48, 64, 0xFFFFFFFF) for order in ("little", "big")
)
_HASH_IDS = (b"\x00\x04", b"\x00\x0b", b"\x00\x0c", b"\x00\x0d", b"\x00\x12")
_LOG_WORDS = (
    tcglog.SPEC_ID_03,
    tcglog.STARTUP_LOCALITY,
    *(one.to_bytes(4, "little") for one in tcglog.EventType),
    *(one[::-1] for one in _HASH_IDS),
    *_U32,
)


def _fields(kind: type[msgspec.Struct]) -> Iterator[bytes]:
    yield from (f'"{name}":'.encode() for name in kind.__struct_encode_fields__)


def _tag(kind: type[msgspec.Struct]) -> bytes:
    return f'{{"kind":"{kind.__struct_config__.tag}",'.encode()


_DOCUMENTS = (
    dsse.Envelope,
    dsse.Signature,
    dsse.Statement,
    dsse.Subject,
    *references.FORMS.values(),
    policies.PolicyDocument,
    endorsements.EndorsementDocument,
    ContainerPolicy,
    LaunchPolicy,
    references.ExpectedEvent,
    references.Uki,
    references.VerityRoot,
)
_BODIES: tuple[type[msgspec.Struct], ...] = (
    *(
        one
        for one in vars(nodeapi).values()
        if inspect.isclass(one) and issubclass(one, nodeapi.Body) and one is not nodeapi.Body
    ),
    Evidence,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "cel",
            (
                Probe("cel.parse_json", _cel_json),
                Probe("cel.parse_tlv", _cel_tlv),
                Probe("cel.tlv_records", _cel_records),
                Probe("cel.complete_tlv", _cel_whole),
                Probe("cel.record_end", cel.record_end),
                Probe("cel.cut_content", cel.cut_content),
            ),
            (*_JSON, cel.RECORD_SEPARATOR, b'"hashAlg":"sha256"', b'"nv_index":', *_U32),
        ),
        Target(
            "containerlog",
            (
                Probe("containerlog.parse", _container_event),
                Probe("containerlog.parse_record", _container_content),
                Probe("record.read_record", _container_record, allowed=CatenaError),
            ),
            (
                *_JSON,
                *(
                    word
                    for kind in get_args(containerlog.ContainerEvent)
                    for word in (*_fields(kind), _tag(kind))
                ),
                *_fields(containerlog.Launch),
                containerlog.CONTENT.to_bytes(1, "big"),
                *_U32,
            ),
        ),
        Target(
            "documents",
            (
                Probe("dsse.parse", _dsse, kinds=(dsse.Envelope,)),
                Probe("dsse.parse_statement", _statement, kinds=(dsse.Statement,)),
                *(
                    Probe("references.parse_predicate", _predicate(kind), kinds=(kind,))
                    for kind in (
                        *references.FORMS.values(),
                        policies.PolicyDocument,
                        endorsements.EndorsementDocument,
                        ContainerPolicy,
                        LaunchPolicy,
                    )
                ),
                *(Probe("nodeapi.decode", _json_of(kind), kinds=(kind,)) for kind in _BODIES),
            ),
            (*_JSON, *{word for kind in (*_DOCUMENTS, *_BODIES) for word in _fields(kind)}),
        ),
        Target(
            "tokens",
            (
                Probe("jwt.parse", _jwt),
                Probe("jwt.encode", _jwt_again),
                Probe("jwk.parse", jwk.parse),
                Probe("pkcs11uri.parse", lambda data: pkcs11uri.parse(data.decode("latin-1"))),
                Probe("webhook.parse_secret", _webhook_secret, BadWebhookSecret),
            ),
            (*_JSON, b"pkcs11:", b"token=", b"object=", b"pin-source=", b"%00", b"whsec_", b"."),
        ),
        Target(
            "efi",
            (
                Probe("efi.parse_variable", _variable),
                Probe("efi.parse_signature_entry", _signature_entry),
                Probe("efi.parse_signature_lists", _signature_lists),
                Probe("efi.holds_signature_lists", efi.holds_signature_lists),
                Probe("efi.parse_image_load", _image_load),
                Probe("efi.parse_load_option", _load_option),
                Probe("efi.boot_variable_text", _boot_variable),
                Probe("efi.device_path_text", efi.device_path_text),
            ),
            (efi.EFI_CERT_X509.bytes_le, efi.EFI_CERT_SHA256.bytes_le, b"\x7f\xff\x04\x00", *_U32),
        ),
        Target(
            "gpt",
            (
                Probe("gpt.parse", _gpt),
                Probe("gpt.parse", _mended_gpt),
                Probe("gpt.parse_event", gpt.parse_event),
                Probe("gpt.measured_data", _measured_gpt),
            ),
            (b"EFI PART", b"\x00\xd8", *_U32),
        ),
        Target(
            "ima",
            (
                Probe("ima.parse", _ima),
                Probe("ima.measurements", _ima_walk),
                Probe("ima.entries", _ima_one_by_one),
                Probe("ima_ascii.parse", _ima_ascii),
            ),
            (
                b"ima",
                b"ima-ng",
                b"ima-ngv2",
                b"ima-sig",
                b"ima-buf",
                b"sha256:\0",
                b" 10 ",
                b"\n",
                *_U32,
            ),
        ),
        Target(
            "images",
            (
                Probe("oci.parse_document", oci.parse_document),
                Probe("ijson.decode", _ijson),
                Probe("inventory.parse", inventory.parse, kinds=(inventory.Machine,)),
                Probe("oci.parse_manifest", _manifest, kinds=(oci.Manifest,)),
                Probe("oci.parse_index", _index, kinds=(oci.Index,)),
                Probe("oci.parse_layout", oci.parse_layout),
                Probe("oci.parse_digest", _text_of(oci.parse_digest)),
                Probe("oci.parse_reference", _text_of(oci.parse_reference)),
                Probe("oci.digest_of", lambda data: oci.parse_digest(oci.digest_of(data))),
                Probe("simplesigning.parse", _simple_signing),
                Probe("sigstore.parse", _bundle),
                Probe("sigstore.parse_statement", _image_statement),
                Probe("rekor.parse_annotation", rekor.parse_annotation),
                Probe("rekor.parse_entry", _log_entry),
                Probe("containers.x509", _image_certificate, CatenaError),
            ),
            (
                *_JSON,
                *_fields(oci.Manifest),
                *_fields(oci.Index),
                *_fields(oci.Descriptor),
                b'"critical":',
                b'"optional":',
                b'"docker-reference":',
                b'"verificationMaterial":',
                b'"dsseEnvelope":',
                b'"messageSignature":',
                b"sha256:",
                b"registry.example.com/",
                b"\x30\x82",
                b"\x06\x03\x55\x1d",
            ),
        ),
        Target(
            "layertar",
            (
                Probe("layertar.parse", _layer_tar),
                Probe("rootfs.layer", _layer, CatenaError),
                Probe("rootfs.packing", _packed, CatenaError),
                Probe("rootfs.tree", tree.decode),
            ),
            (
                b"ustar\x0000",
                b"ustar  \0",
                b".wh.",
                b".wh..wh..opq",
                b" path=",
                b" SCHILY.xattr.security.capability=",
                b"\x1f\x8b\x08",
                b"BZh9",
                b"\xfd7zXZ\0",
                *_U32,
            ),
        ),
        Target(
            "note",
            (
                Probe("note.parse", _note),
                Probe("note.parse_checkpoint", _checkpoint),
                Probe("note.parse_signatures", _note_lines),
                Probe("note.parse_size", _note_size),
                Probe("note.parse_hash", _note_hash),
                Probe("note.decode_base64", _note_base64),
                Probe("note.encode_base64", _note_encoded),
                Probe("verifierkey.parse", _verifier_key),
                Probe("cosignature.parse", _cosignature),
                Probe("addcheckpoint.parse", _add_checkpoint),
                Probe("tlogproof.parse", _tlog_proof),
                Probe("otlp.rejected", _otlp_answer),
                Probe("addcheckpoint.parse_size_answer", _size_answer),
            ),
            (
                "— ".encode(),
                b"\n\n",
                b"\n",
                b"0\n",
                b"=",
                b"==",
                b" ",
                b"+",
                b"old ",
                "\u2028".encode(),
            ),
        ),
        Target(
            "pcrpolicy",
            (
                Probe("pcrpolicy.parse", _pcr_policy),
                Probe("pcrpolicy.is_pcr_policy", pcrpolicy.is_pcr_policy),
            ),
            (*_JSON, b'"asciivalues":', b'"binaryvalues":', b'"rawvalues":', b"(.+)*", b"{1,9}"),
        ),
        Target(
            "pe",
            (Probe("pe.parse", _pe),),
            (b"MZ", b"PE\0\0", b"\x0b\x01", b"\x0b\x02", b".cmdline", b".linux\0\0", *_U32),
        ),
        Target(
            "varstore",
            (Probe("varstore.parse", _varstore),),
            (b"_FVH", b"\xaa\x55\x3f\0", b"\xaa\x55\x3e\0", varstore.AUTHENTICATED.bytes_le, *_U32),
        ),
        Target(
            "launch",
            (
                Probe("runtime.parse_config", _runtime_config),
                Probe("runtime.parse_process", runtime.parse_process),
                Probe("runtime.parse_mount", _mount),
                Probe("imageconfig.parse", _image_config),
                Probe("unambiguous.read_once", lambda data: read_once(data, "it")),
                Probe("launch.read_launch_policy", _launch_policy),
                Probe("launch.check_create", _launch, CatenaError),
                Probe("launch.dry_run", _dry_run, allowed=CatenaError),
            ),
            (
                *_JSON,
                *{
                    word
                    for kind in (
                        runtime.RuntimeConfig,
                        runtime.Process,
                        runtime.Linux,
                        runtime.Mount,
                        imageconfig.ImageConfig,
                        LaunchPolicy,
                    )
                    for word in _fields(kind)
                },
                b'"re:',
                b'"image:',
                b"\xc5\xbf",
            ),
        ),
        Target("tcglog", (Probe("tcglog.parse", _tcglog),), _LOG_WORDS),
        Target(
            "tpm2",
            (
                Probe("tpm2.parse_public", _public),
                Probe("tpm2.parse_public_2b", tpm2.parse_public_2b),
                Probe("tpm2.parse_attest", _attest),
                Probe("tpm2nv.parse_nv_certify_info", _nv_certify_info),
                Probe("tpm2.parse_signature", _tpm_signature),
                Probe("tpm2.parse_pcr_selections", tpm2.parse_pcr_selections),
                Probe(
                    "tpm2.primary_qualified_name", lambda data: tpm2.primary_qualified_name(data, 7)
                ),
            ),
            (*_HASH_IDS, *(one.to_bytes(2, "big") for one in tpm2.TpmAlg), b"\xffTCG\x80\x18"),
        ),
        Target(
            "boot",
            (
                Probe("measure.story", _boot, CatenaError),
                Probe("measure.facts", _facts, CatenaError),
                Probe("measure.logfile", _any_log, CatenaError),
                Probe("measure.signers", _owners, CatenaError),
            ),
            (
                *_LOG_WORDS,
                "SecureBoot".encode("utf-16-le"),
                "db".encode("utf-16-le"),
                b"kernel_cmdline: ",
                b".linux\0",
            ),
        ),
        Target(
            "audit",
            (
                Probe("audit.checkpoint.verify", _log_checkpoint, CatenaError),
                Probe("audit.cosigned.verify_cosigned", _cosigned, CatenaError),
                Probe("audit.cosigned.parse_witness", _witness, CatenaError),
                Probe("audit.leaf.open_entry", _leaf, CatenaError),
                Probe("audit.leaf.signed", _signed_entry, CatenaError),
                Probe("audit.people.open_people", _people, CatenaError),
                Probe("audit.receipt.verify_proof", _proof, CatenaError),
                Probe("audit.report.verify_report", _report, CatenaError),
                Probe("audit.report.signed", _signed_report, CatenaError),
                Probe("audit.tiles.parse_bundle", _bundle_of_entries),
                Probe("audit.tiles.parse_path", _tile_path),
            ),
            (
                *_JSON,
                *_fields(report.ReportBody),
                *_fields(report.ReportedEntry),
                *_fields(report.Maker),
                *{
                    word
                    for kind in KINDS.values()
                    for word in (*_fields(kind), f'"{kind.predicate_type()}"'.encode())
                },
                *_fields(people.Person),
                b'"person:',
                b"tile/entries/",
                b".p/",
                b"/x000",
            ),
        ),
        Target(
            "authenticode",
            (Probe("osimage.authenticode", _authenticode, CatenaError),),
            (b"\x30\x80", b"\x31\x00", b"\xa0\x82", b"\x06\x09", b"\x02\x01", b"\x04\x82"),
        ),
        Target(
            "cbor",
            (Probe("cbor.parse", _cbor), Probe("cose.parse", _cose)),
            (b"\xd2\x84", b"\xa1\x01\x26", b"\x18\x21", b"\xc1\x1a", b"\x5b", b"\xbb", b"\x9b"),
        ),
        Target(
            "notation",
            (
                Probe("jws.parse", _jws, kinds=(jws.JwsEnvelope,)),
                Probe("jws.decode_base64url", _base64url),
                Probe("jws.encode_base64url", jws.encode_base64url),
                Probe("notation.parse_payload", _payload),
                Probe("notation.parse_trust_policy", notation.parse_trust_policy),
                Probe("signature.simple", parse_simple_signing),
                Probe("signature.images_policy", _images_policy),
            ),
            (*_JSON, b'"targetArtifact":', b'"x5c":', b'"signedIdentity":', b'"keyPath":'),
        ),
        Target(
            "openpgp",
            (
                Probe("openpgp.parse", _packets),
                Probe("openpgp.dearmor", _dearmor),
                Probe(
                    "openpgp.armor",
                    lambda data: openpgp.armor(data[: openpgp.MAX_INPUT], openpgp.KEY_ARMOR),
                ),
            ),
            (
                b"-----BEGIN PGP SIGNATURE-----\n\n",
                b"-----END PGP SIGNATURE-----",
                b"\n=",
                b"\xc8\xff",
                b"\xa3\1",
                *_U32,
            ),
        ),
        Target(
            "aci",
            (
                Probe("aci.parse", _aci),
                Probe("aci.parse_manifest", aci.parse_manifest),
            ),
            (
                b"ustar\0",
                b"rootfs/",
                b"manifest",
                b"\x1f\x8b\x08",
                b"BZh9",
                b"\xfd7zXZ\0",
                b"14 path=rootfs\n",
            ),
        ),
        Target(
            "endorsement",
            (
                Probe("der.element", der.element),
                Probe("der.whole", der.whole),
                Probe("der.children", _der_children),
                Probe("der.departures", _der_departures),
                Probe("der.dotted", der.dotted),
                Probe("distinguished.attributes", _name),
                Probe("ekattributes.read_ek_attributes", _ek_attributes),
                Probe("endorsements.split", _blocks),
                Probe("endorsements.pem", lambda data: endorsements.pem(data, "root")),
                Probe("certificate.parse_certificate", _vendor_certificate),
                Probe("revocation.parse_revocation_list", _revocation_list),
                Probe("authority.read_offered", _offered, CatenaError),
            ),
            (
                b"\x30\x82",
                b"\x31\x82",
                b"\x02\x01\x00",
                b"\xa0\x03\x02\x01\x02",
                b"\x06\x05\x67\x81\x05\x02\x01",
                b"\x06\x05\x67\x81\x05\x08\x01",
                b"\x06\x03\x55\x1d\x11",
                b"id:4E544300",
                b"-----BEGIN X509 CRL-----\n",
                b"-----END CERTIFICATE-----",
            ),
        ),
        Target(
            "signature",
            (
                Probe("signature.notation_jws", _notation_jws, CatenaError),
                Probe("signature.notation_cose", _notation_cose, CatenaError),
                Probe("signature.detached", _detached, CatenaError),
                Probe("signature.inline", _inline, CatenaError),
                Probe("signature.certificates", parse_certificates),
                Probe("certificate.issuer_and_serial", _issuer_and_serial),
            ),
            (
                *_JSON,
                b"\x30\x82",
                b"\x06\x03\x55\x1d",
                b"\x88\x75\x04\x00",
                b"\x05\x02",
                b"\x21\x04",
            ),
        ),
    )
}
