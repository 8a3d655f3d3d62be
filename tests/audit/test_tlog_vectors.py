"""Every vector of the transparency-log corpus gets its verdict from catena's own readers."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
from pathlib import Path

import pytest
from audit_samples import tree_of
from tlog_vectors import CORPUS, DIFFERENCES, NOT_READ, SUBTREES, Vector, manifest, not_read

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned, merkle, tiles
from catena.audit.tiles import FULL_TILE
from catena.audit.verify import LogFault, verify_folder
from catena.audit.witness import (
    ForkShown,
    GrowthUnproven,
    OldSizeMoved,
    UnknownLog,
    UntrustedCheckpoint,
    WatchedLog,
    Witness,
    watch,
)
from catena.audit.witness_state import WitnessState
from catena.errors import CatenaError, FormatError, LogInconsistent
from catena.formats import note, sigstore, verifierkey
from catena.formats.note import COSIGNATURE, ED25519
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import UnusableKey, parse_public_key

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not here")

TESSERA = "transparency-dev+tessera/testdata/log"
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
SKYLIGHT = "FiloSottile+sunlight/cmd/skylight/testdata"


def unpack(document: dict) -> dict:
    """A JSON vector's numbers as they are, its base64 as bytes."""
    return {
        name: base64.b64decode(value)
        if name in {"root", "root1", "root2", "leafHash"}
        else tuple(map(base64.b64decode, value or ()))
        if name == "proof"
        else value
        for name, value in document.items()
    }


def public_of(key: VerifierKey):
    der = bytes.fromhex("302a300506032b6570032100") + key.public_key
    pem = base64.encodebytes(der).decode()
    return parse_public_key(f"-----BEGIN PUBLIC KEY-----\n{pem}-----END PUBLIC KEY-----\n".encode())


def bundle_of(size: int) -> tuple[bytes, ...]:
    content = (CORPUS / TESSERA / f"tile/entries/000.p/{size}").read_bytes() if size else b""
    return tiles.parse_bundle(content, size)


def root_of(entries) -> bytes:
    return merkle.Frontier().extend(map(merkle.leaf_hash, entries)).root()


# One judge for each kind of file: True if catena accepts it, False if it refuses it as it must,
# None if it is judged by more than that. Whatever else happens is an error.


def judge_inclusion(vector: Vector) -> bool:
    case = unpack(json.loads(vector.path.read_bytes()))
    return holds(
        merkle.verify_inclusion,
        case["leafHash"],
        case["leafIdx"],
        case["treeSize"],
        case["proof"],
        case["root"],
    )


def judge_consistency(vector: Vector) -> bool:
    case = unpack(json.loads(vector.path.read_bytes()))
    return holds(
        merkle.verify_consistency,
        case["size1"],
        case["root1"],
        case["size2"],
        case["root2"],
        case["proof"],
    )


def judge_subtree(vector: Vector) -> bool:
    """A subtree that begins at leaf 0 is a tree."""
    case = unpack(json.loads(vector.path.read_bytes()))
    if "leafIdx" in case:
        arguments = case["leafHash"], case["leafIdx"], case["end"], case["proof"], case["root"]
        return holds(merkle.verify_inclusion, *arguments)
    arguments = case["end"], case["root1"], case["size"], case["root2"], case["proof"]
    return holds(merkle.verify_consistency, *arguments)


def holds(verify, *arguments) -> bool:
    try:
        verify(*arguments)
    except merkle.ProofMismatch:
        return False
    return True


def judge_tessera_checkpoint(vector: Vector) -> bool:
    key = verifierkey.parse(TESSERA_KEY)
    head = checkpoints.verify(vector.path.read_bytes(), public_of(key), origin=key.name)
    assert head.size == int(vector.path.suffix[1:] or 15)
    assert head.root == root_of(bundle_of(head.size))
    return True


def judge_tessera_state(vector: Vector) -> bool:
    state = json.loads(vector.path.read_bytes())
    head = note.parse_checkpoint(note.parse((CORPUS / TESSERA / "checkpoint").read_bytes()).text)
    assert (state["size"], base64.b64decode(state["root"])) == (head.size, head.root)
    return True


def judge_tessera_tile(vector: Vector) -> bool:
    tile = tiles.parse_path(vector.path.relative_to(CORPUS / TESSERA).as_posix())
    entries = bundle_of(tile.width)
    if tile.level is None:
        assert tiles.encode_bundle(entries) == vector.path.read_bytes()
        head = (CORPUS / TESSERA / f"checkpoint.{tile.width}").read_bytes()
        assert note.parse_checkpoint(note.parse(head).text).root == root_of(entries)
    else:
        assert b"".join(map(merkle.leaf_hash, entries)) == vector.path.read_bytes()
    return True


def judge_ct_tile(vector: Vector) -> bool:
    """Hash tiles of a CT log are hash tiles: whole, and partial ones begin their full ones."""
    tile = tiles.parse_path(re.sub(r"^.*?(?=tile/)", "", vector.name))
    content = vector.path.read_bytes()
    assert len(content) == tile.width * merkle.HASH_SIZE
    if tile.partial:
        full = vector.path.parent.with_suffix("").read_bytes()
        assert len(full) == FULL_TILE
        assert full.startswith(content)
    return True


def judge_placeholder(vector: Vector) -> None:
    """Files that only look like a log are one in no way."""
    tree = CORPUS / SKYLIGHT / "tree"
    stranger = verifierkey.parse(TESSERA_KEY)
    if vector.path.name == "checkpoint":
        signed = note.parse(vector.path.read_bytes())
        assert note.parse_checkpoint(signed.text).size == 300
        with pytest.raises(checkpoints.CheckpointForged):
            verify_folder(tree, public_of(stranger))
        return
    name = vector.path.relative_to(tree).as_posix()
    try:
        tile = tiles.parse_path(name)
    except FormatError:
        assert name.startswith(("tile/data/", "tile/names/"))  # CT's, not those of tlog-tiles
        return
    assert len(vector.path.read_bytes()) != tile.width * merkle.HASH_SIZE


def judge_mirror(vector: Vector) -> None:
    """A witness's copy of a log: hash tiles up to the root that it cosigned."""
    folder = next((CORPUS / SKYLIGHT / "witness/mirror").glob("0*"))
    head = note.parse_checkpoint(note.parse((folder / "checkpoint").read_bytes()).text)
    name = vector.path.relative_to(folder).as_posix()
    if name == "checkpoint":
        judge_cosigned(vector, folder.parent / "mirror.v0.json")
        return
    tile = tiles.parse_path(name)
    content = vector.path.read_bytes()
    if tile.level is None:  # a placeholder
        with pytest.raises(FormatError):
            tiles.parse_bundle(content, tile.width)
        return
    rows = b"".join((folder / f"tile/0/{part}").read_bytes() for part in ("000", "001.p/44"))
    hashes = [rows[start : start + 32] for start in range(0, len(rows), 32)]
    assert merkle.Frontier().extend(hashes).root() == head.root
    assert tile.level == 0 or content == merkle.subtree_root(hashes[:256])
    assert len(content) == tile.width * 32


def judge_witnessed(vector: Vector) -> None:
    judge_cosigned(vector, vector.path.parents[1] / "witness.v0.json")


def judge_cosigned(vector: Vector, published: Path) -> None:
    """A checkpoint as a witness publishes it: under the hash of its origin, cosigned."""
    signed = note.parse(vector.path.read_bytes())
    head = note.parse_checkpoint(signed.text)
    keys = json.loads(published.read_bytes())["verifier_keys"]
    witnesses = cosigned.policy(keys, 1).witnesses
    assert [one.name for one in cosigned.cosigners(signed, witnesses)] == [witnesses[0].name]
    if len(signed.signatures) > 1:
        assert hashlib.sha256(head.origin.encode()).hexdigest() == vector.path.parent.name
    forged = note.Note(signed.text.replace("300", "301"), signed.signatures)
    with pytest.raises(cosigned.CosignatureForged):
        cosigned.cosigners(forged, witnesses)


def judge_witness_keys(vector: Vector) -> None:
    document = json.loads(vector.path.read_bytes())
    (key,) = map(verifierkey.parse, document["verifier_keys"])
    assert (key.name, key.kind) == (document["name"], COSIGNATURE)
    assert key.encode() == document["verifier_keys"][0]


def judge_sigsum_policy(vector: Vector) -> None:
    """The witnesses of a policy; that it groups them is more than a quorum here can say."""
    lines = [line.split() for line in vector.path.read_text().splitlines()]
    witnesses = [line[1:3] for line in lines if line[:1] == ["witness"]]
    texts = [VerifierKey(name, COSIGNATURE, bytes.fromhex(key)).encode() for name, key in witnesses]
    assert [one.name for one in cosigned.policy(texts, 1).witnesses] == [
        name for name, _ in witnesses
    ]
    logs = [bytes.fromhex(line[1]) for line in lines if line[:1] == ["log"]]
    for key in logs:
        origin = f"sigsum.org/v1/tree/{hashlib.sha256(key).hexdigest()}"
        assert watch([VerifierKey(origin, ED25519, key).encode()]).origin == origin


def judge_public_key(vector: Vector) -> None:
    try:
        parse_public_key(vector.path.read_bytes())
    except UnusableKey:
        assert re.search(r"secp384r1|secp521r1", vector.name)
    else:
        assert re.search(r"ecdsa_public|ed25519|rsa", vector.name)


def judge_rekor_log(vector: Vector) -> None:
    key = re.search(r"PublicKey: (\S+)", vector.path.read_text())[1]
    log = watch([key])
    pem = CORPUS / "sigstore+rekor-tiles/tests/testdata/pki/ed25519-pub-key.pem"
    assert log.origin == "rekor-local"
    assert parse_public_key(pem.read_bytes()).public_bytes_raw() == log.keys[0].public_key


def judge_rekor_witness(vector: Vector) -> None:
    key = vector.path.read_text().split()[2]
    assert vector.name in DIFFERENCES
    assert verifierkey.parse(key).kind == ED25519
    with pytest.raises(cosigned.BadWitness):
        cosigned.policy([key], 1)


def judge_bundle(vector: Vector) -> None:
    """What is read as a bundle; and every inclusion proof in it leads to its checkpoint's root."""
    refusals = {
        "bundle.txt.sigstore": "version",
        "bundle_invalid_version.txt.sigstore": "version",
        "bundle_no_cert_v1.txt.sigstore": "certificates",
        "bundle_no_checkpoint.txt.bundle": "truncated",
        "bundle_no_checkpoint.txt.sigstore": "version",
        "bundle_no_log_entry.txt.sigstore": "version",
        "bundle_v3_alt.txt.sigstore": "version",
        "bundle_v3_github.whl.sigstore": "version",
    }
    # tsa/bundle.txt.sigstore has a namesake above it.
    refusal = None if "/tsa/" in vector.name else refusals.get(vector.path.name)
    if refusal is None:
        sigstore.parse(vector.path.read_bytes())
    else:
        with pytest.raises(FormatError, match=refusal):
            sigstore.parse(vector.path.read_bytes())
    if not vector.path.stat().st_size:
        return
    for entry in json.loads(vector.path.read_bytes())["verificationMaterial"]["tlogEntries"]:
        if "inclusionProof" in entry:
            check_inclusion(entry)


def check_inclusion(entry: dict) -> None:
    proof = entry["inclusionProof"]
    root = base64.b64decode(proof["rootHash"])
    leaf = merkle.leaf_hash(base64.b64decode(entry["canonicalizedBody"]))
    index, size = int(proof.get("logIndex", 0)), int(proof["treeSize"])
    hashes = tuple(map(base64.b64decode, proof.get("hashes", ())))
    merkle.verify_inclusion(leaf, index, size, hashes, root)
    with pytest.raises(merkle.ProofMismatch):
        merkle.verify_inclusion(leaf, index ^ 1, size, hashes, root)
    if "checkpoint" in proof:
        text = note.parse(proof["checkpoint"]["envelope"].encode()).text
        head = note.parse_checkpoint(text)
        assert (head.size, head.root) == (size, root)


def judge_rekor_key(vector: Vector) -> None:
    assert parse_public_key(vector.path.read_bytes())


# The witness: each case of a conversation in turn, as one witness with one memory.

STATUS = {
    FormatError: 400,
    UntrustedCheckpoint: 403,
    UnknownLog: 404,
    OldSizeMoved: 409,
    ForkShown: 409,
    GrowthUnproven: 422,
}


def judge_conversation(vector: Vector, tmp_path, signer) -> None:
    document = json.loads(vector.path.read_bytes())
    log = watched(document)
    state = WitnessState(tmp_path / "state")
    witness = Witness("example.com/witness", signer, {log.origin: log}, state, lambda: 1)
    for number, case in enumerate(document["cases"]):
        status, answer = asked(witness, case["body"])
        if (name := f"{vector.name}#{number}") in DIFFERENCES:
            assert status != case["status"], name
            assert status == (400, 404)[number - 1]
        else:
            assert status == case["status"], name
        for promised in re.findall(r'body contains "(— .*?)"', case["asserts"]):
            assert answer.startswith(promised)
        for promised in re.findall(r'body == "(.*)\\n"', case["asserts"]):
            assert answer == promised
    state.close()


def watched(document: dict) -> WatchedLog:
    if document["log_vkey"]:
        return watch([document["log_vkey"]], "go.sum database tree")
    raw = bytes.fromhex(document["log_key_hex"])
    origin = f"sigsum.org/v1/tree/{hashlib.sha256(raw).hexdigest()}"
    return watch([VerifierKey(origin, ED25519, raw).encode()])


def asked(witness: Witness, body: str) -> tuple[int, str]:
    try:
        return 200, witness.add_checkpoint(body.encode()).encode()
    except CatenaError as error:
        size = getattr(error, "size", None)
        return STATUS[type(error)], "" if size is None else str(size)


JUDGES = {
    "transparency-dev+merkle/testdata/inclusion/*": judge_inclusion,
    "transparency-dev+merkle/testdata/consistency/*": judge_consistency,
    "transparency-dev+merkle/testdata/subtree*": judge_subtree,
    f"{TESSERA}/checkpoint*": judge_tessera_checkpoint,
    f"{TESSERA}/.state/treeState": judge_tessera_state,
    f"{TESSERA}/tile/*": judge_tessera_tile,
    "FiloSottile+sunlight/testdata/*/tile/0/*": judge_ct_tile,
    f"{SKYLIGHT}/tree/checkpoint": judge_placeholder,
    f"{SKYLIGHT}/tree/tile/*": judge_placeholder,
    f"{SKYLIGHT}/witness/mirror/0*": judge_mirror,
    f"{SKYLIGHT}/witness/0*/checkpoint": judge_witnessed,
    f"{SKYLIGHT}/witness2/88*/checkpoint": judge_witnessed,
    f"{SKYLIGHT}/witness*.v0.json": judge_witness_keys,
    "sigsum+sigsum-go/*.builtin-policy": judge_sigsum_policy,
    "sigstore+rekor-tiles/tests/testdata/witness/config.yaml": judge_rekor_log,
    "sigstore+rekor-tiles/tests/testdata/witness/policy.yaml": judge_rekor_witness,
    "sigstore+rekor-tiles/tests/testdata/pki/*.pem": judge_public_key,
    "secure-systems-lab+securesystemslib/tests/data/pems/*.pem": judge_public_key,
    "sigstore+sigstore-python/*.sigstore": judge_bundle,
    "sigstore+sigstore-python/*.sigstore.json": judge_bundle,
    "sigstore+sigstore-python/*.bundle": judge_bundle,
    "sigstore+sigstore-python/*.rekor.pub": judge_rekor_key,
    "FiloSottile+torchwood/derived/*.json": judge_conversation,
}

VECTORS = manifest() if CORPUS.is_dir() else ()


def judges_of(name: str) -> list:
    return [judge for glob, judge in JUDGES.items() if fnmatch.fnmatchcase(name, glob)]


def begins_inside(vector: Vector) -> bool:
    return "/subtree" in vector.name and json.loads(vector.path.read_bytes())["start"] > 0


READ = [one for one in VECTORS if not not_read(one.name) and not begins_inside(one)]


@pytest.mark.parametrize("vector", READ, ids=lambda one: one.name)
def test_a_vector_gets_its_verdict(vector, tmp_path, signer):
    (judge,) = judges_of(vector.name)
    if judge is judge_conversation:
        judge(vector, tmp_path, signer)
        return
    accepted = judge(vector)
    if accepted is not None:
        expected = vector.expected.startswith("accept")
        assert accepted == (expected != (vector.name in DIFFERENCES))


def test_every_file_of_the_corpus_is_judged_or_said_not_to_be_read():
    files = set(tree_of(CORPUS)) - {"MANIFEST.tsv"}
    assert files == {one.name for one in VECTORS}
    assert len(VECTORS) >= 409
    for vector in VECTORS:
        claims = len(judges_of(vector.name)) + (not_read(vector.name) is not None)
        assert claims == 1, vector.name


def test_no_reason_and_no_difference_is_left_over():
    names = [one.name for one in VECTORS]
    for glob in (*NOT_READ, *JUDGES):
        assert fnmatch.filter(names, glob), glob
    assert {name.partition("#")[0] for name in DIFFERENCES} <= set(names)
    assert SUBTREES
    assert sum(map(begins_inside, VECTORS)) + len(READ) + sum(
        not_read(name) is not None for name in names
    ) == len(names)


def test_the_tables_of_the_decision_are_those_of_the_tests():
    decision = (
        Path(__file__).parents[2] / "docs/adr/0017-cosignatures-and-witnesses.md"
    ).read_text()
    told = " ".join(decision.split())
    for name, why in DIFFERENCES.items():
        assert f"`{name.rpartition('/')[2]}`" in told, name
        assert why in told, name


def test_a_log_whose_files_are_placeholders_is_refused(tmp_path, signer):
    for name, content in tree_of(CORPUS / SKYLIGHT / "tree").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    head = checkpoints.sign(signer, "example.org", 300, bytes(32))
    (tmp_path / "checkpoint").write_text(head)
    with pytest.raises(LogFault):
        verify_folder(tmp_path, signer.public_key)
    assert issubclass(LogFault, LogInconsistent)
