"""`catena container policy` as people and programs see it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import click
import msgspec
import pytest
from click.testing import CliRunner

from catena.cli import output
from catena.cli.container_policy import policy
from catena.containers.launch.document import open_launch_policy, read_launch_policy
from catena.errors import CatenaError
from catena.formats import cel, containerlog
from catena.formats.cel import CelRecord
from catena.formats.containerlog import CONTENT, Create, Launch
from catena.ids import HashAlg
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, write_key

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = "registry.example/web:1"


@pytest.fixture
def answer():
    def call(*words):
        result = CliRunner().invoke(policy, [str(word) for word in words], standalone_mode=False)
        if isinstance(result.exception, CatenaError):
            return result.exception.exit_code, result.exception.code
        assert result.exception is None, result.exception
        return result.return_value or 0, result.stdout

    return call


def stored(folder, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(content)
    return f"sha256:{digest}"


@pytest.fixture
def layout(tmp_path):
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    settings = {"Entrypoint": ["/app"], "Cmd": ["--serve"], "Env": ["MODE=x"], "User": "7:8"}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    manifest = {
        "schemaVersion": 2,
        "config": {"digest": stored(folder, json.dumps(config).encode())},
    }
    digest = stored(folder, json.dumps(manifest).encode())
    named = {"digest": digest, "annotations": {"org.opencontainers.image.ref.name": NAME}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return folder, digest


def test_a_policy_is_generated_by_name_or_digest_and_can_be_read_back(answer, layout):
    folder, digest = layout
    for image in (NAME, digest, f"registry.example/web@{digest}"):
        status, said = answer("generate", image, "--layout", folder, "--name", "web")
        assert status == 0
        written = read_launch_policy(said.encode())
        assert (written.name, written.argv, written.users) == (
            "web",
            (("/app", "--serve"),),
            ("7:8",),
        )
        assert answer("generate", image, "--layout", folder, "--name", "web", "-o", "json") == (
            0,
            said,
        )


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [("other:1", 3, "no-such-image"), ("sha256:" + "ab" * 32, 3, "blob-missing")],
)
def test_an_image_that_is_not_there_is_exit_code_3(answer, layout, image, status, code):
    assert answer("generate", image, "--layout", layout[0]) == (status, code)


def test_a_folder_that_is_no_layout_is_exit_code_3(answer, tmp_path):
    assert answer("generate", NAME, "--layout", tmp_path) == (3, "no-such-image")


def test_content_that_was_changed_is_exit_code_10(answer, layout):
    folder, digest = layout
    (folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(b"{}")
    assert answer("generate", NAME, "--layout", folder) == (10, "blob-altered")


@pytest.fixture
def key(tmp_path):
    private = generate_key(KeyAlgorithm.ED25519)
    write_key(tmp_path / "web.key", private)
    return tmp_path / "web.key", PrivateKeySigner(private).public_key


def test_a_signed_policy_opens_for_its_image(answer, layout, key, tmp_path):
    folder, digest = layout
    (tmp_path / "p.json").write_text(answer("generate", NAME, "--layout", folder)[1])
    words = ("sign", tmp_path / "p.json", NAME, "--layout", folder, "--key", key[0])
    status, said = answer(*words, "--to", tmp_path / "p.dsse.json", "-o", "json")
    told = json.loads(said)
    opened, sha256 = open_launch_policy((tmp_path / "p.dsse.json").read_bytes(), [key[1]], digest)
    assert (status, told["image"], told["sha256"]) == (0, digest, sha256)
    assert opened.argv == (("/app", "--serve"),)
    assert answer(*words, "--to", tmp_path / "p.dsse.json") == (2, "key-exists")
    status, said = answer(*words, "--to", tmp_path / "q.dsse.json")
    assert (status, said.splitlines()[0]) == (0, f"{NAME} 1 for {digest}")


def test_a_policy_that_cannot_be_applied_is_not_signed(answer, layout, key, tmp_path):
    (tmp_path / "p.json").write_text('{"name":"x","version":1,"argv":[["re:("]]}')
    target = tmp_path / "p.dsse.json"
    words = ("--layout", layout[0], "--key", key[0], "--to", target)
    assert answer("sign", tmp_path / "p.json", NAME, *words) == (13, "launch-policy-unusable")
    assert not target.exists()


@pytest.fixture
def record(tmp_path, layout):
    def launched(*argv: str) -> Create:
        hexes = "ab" * 32
        launch = Launch(
            argv=argv, argv_total=len(argv), user="7:8", env={"MODE": hexes}, config=hexes
        )
        return Create(
            at=NOW,
            container="web",
            image=layout[1],
            repository="registry.example/web",
            publisher="p",
            signature="cosign",
            root=hexes,
            policy=hexes,
            launch=launch,
        )

    events = (launched("/app", "--serve"), launched("/bin/sh"))
    file = tmp_path / "record.cel"
    file.write_bytes(
        b"".join(
            cel.encode_tlv(
                CelRecord(
                    number,
                    15,
                    None,
                    {HashAlg.SHA256: bytes(32)},
                    str(CONTENT),
                    containerlog.encode(event),
                    0,
                )
            )
            for number, event in enumerate(events)
        )
    )
    return file


def test_a_dry_run_tells_what_would_have_been_refused_and_ends_with_10(answer, layout, record):
    status, said = answer("dry-run", record, "--layout", layout[0], "-o", "json")
    told = json.loads(said)
    assert (status, told["launches"], told["refused"]) == (10, 2, 1)
    (found,) = told["findings"]
    assert (found["code"], found["container"], found["event"]) == ("launch-argv", "web", 1)
    status, said = answer("dry-run", record, "--layout", layout[0])
    assert said.splitlines()[0] == "2026-01-02T03:04:05+00:00 create web"
    assert said.splitlines()[-1] == "1 of 2 launches would be refused"


def test_a_dry_run_of_a_policy_that_allows_it_all_ends_with_0(answer, layout, record, tmp_path):
    wide = {"name": "wide", "version": 1, "argv": [["re:.*", "..."]], "env": {"MODE": "x"}}
    (tmp_path / "wide.json").write_bytes(msgspec.json.encode({**wide, "users": ["7:8"]}))
    words = ("--policy", tmp_path / "wide.json", "--layout", layout[0])
    status, said = answer("dry-run", record, record, *words)
    assert (status, said.splitlines()[-1]) == (0, "0 of 4 launches would be refused")
    assert "not checkable: web: values of MODE: only commitments are recorded" in said
    assert answer("dry-run", record, *words, "--image", "sha256:x")[1].endswith(
        "0 of 0 launches would be refused\n"
    )


def test_another_file_is_no_record(answer, layout, tmp_path):
    (tmp_path / "x").write_bytes(b"text")
    assert answer("dry-run", tmp_path / "x", "--layout", layout[0]) == (14, "malformed")


def test_every_verb_has_examples_and_exit_codes():
    verbs = policy.commands
    assert set(verbs) == {"generate", "sign", "dry-run"}
    for verb in verbs.values():
        assert isinstance(verb, output.Verb)
        assert verb.examples
        assert "Exit codes" in verb.get_help(click.Context(verb))
