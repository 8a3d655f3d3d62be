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
from catena.cli.container_policy import noun as policy
from catena.containers.images.layout import Layout
from catena.containers.launch.document import read_launch_policy
from catena.errors import CatenaError
from catena.formats import oci
from catena.formats.containerlog import Create, Launch
from small_records import gate_start, record_of

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
    written = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.IMAGE_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": stored(folder, written),
            "size": len(written),
        },
        "layers": [],
    }
    digest = stored(folder, json.dumps(manifest).encode())
    Layout.create(folder).put_manifest(json.dumps(manifest).encode(), oci.IMAGE_MANIFEST, NAME)
    return folder, digest


def test_a_policy_is_generated_by_name_or_digest_and_can_be_read_back(answer, layout):
    folder, digest = layout
    for image in (f"oci:{folder}:{NAME}", f"oci:{folder}:registry.example/web@{digest}"):
        status, said = answer("generate", image, "--name", "web")
        assert status == 0
        written = read_launch_policy(said.encode())
        assert (written.name, written.argv, written.users) == (
            "web",
            (("/app", "--serve"),),
            ("7:8",),
        )
        assert answer("generate", image, "--name", "web", "-o", "json") == (0, said)


@pytest.mark.parametrize(
    "image", ["registry.example/other:1", "registry.example/web@sha256:" + "ab" * 32]
)
def test_an_image_that_is_not_there_is_exit_code_3(answer, layout, image):
    assert answer("generate", f"oci:{layout[0]}:{image}") == (3, "image-unknown")


def test_a_folder_that_is_no_layout_is_refused(answer, tmp_path):
    assert answer("generate", f"oci:{tmp_path}:{NAME}") == (1, "image-store-unusable")


def test_content_that_was_changed_is_exit_code_10(answer, layout):
    folder, digest = layout
    (folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(b"{}")
    assert answer("generate", f"oci:{folder}:{NAME}") == (10, "blob-altered")


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

    events = (gate_start(), launched("/app", "--serve"), launched("/bin/sh"))
    file = tmp_path / "record.cel"
    file.write_bytes(record_of(*events))
    file.chmod(0o600)
    return file


def test_a_dry_run_tells_what_would_have_been_refused_and_ends_with_10(answer, layout, record):
    status, said = answer("dry-run", record, "--layout", layout[0], "-o", "json")
    told = json.loads(said)
    assert (status, told["launches"], told["refused"]) == (10, 2, 1)
    (found,) = told["findings"]
    assert (found["code"], found["container"], found["event"]) == ("launch-argv", "web", 2)
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
    (tmp_path / "x").write_bytes(b"only text, and no record at all")
    (tmp_path / "x").chmod(0o600)
    assert answer("dry-run", tmp_path / "x", "--layout", layout[0]) == (14, "malformed")


def test_every_verb_has_examples_and_exit_codes():
    verbs = policy.commands
    assert set(verbs) == {"check", "generate", "sign", "dry-run", "import"}
    for verb in verbs.values():
        assert isinstance(verb, output.Verb)
        assert verb.examples
        assert "Exit codes" in verb.get_help(click.Context(verb))
