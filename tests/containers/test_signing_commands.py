"""`catena container sign` and `verify` in notation's formats and for ACIs, beside the real tools."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from notation_tool import Notation

from catena.cli.main import run
from catena.errors import ExitCode
from catena.keys.signer import write_key
from code_signing import authority, issue, name, new_key
from container_images import needs_registry
from debian_testing import program
from small_signatures import aci, tar_entry

NOTATION = ("notation-jws", "notation-cose")
REGISTRY = "registry.example/team/app"


def policy(folder, publisher, repository):
    file = folder / "containers.toml"
    file.write_text(
        'name = "test"\nversion = 1\n'
        f'[[publishers]]\nname = "team"\n{publisher}\n'
        f'[[scopes]]\nrepository = "{repository}"\npublishers = ["team"]\n'
    )
    return file


@pytest.fixture
def team(tmp_path):
    """A key file, its chain as a file, and the root's PEM."""
    start = datetime.now(UTC) - timedelta(hours=1)
    root = issue(name("root"), key=new_key("p256", 51), start=start, extensions=authority())
    leaf = issue(name("leaf"), root, key=new_key("p256", 52), start=start, days=2)
    write_key(tmp_path / "team.key", new_key("p256", 52))
    chain = [one.certificate.public_bytes(Encoding.PEM) for one in (leaf, root)]
    (tmp_path / "team.pem").write_bytes(b"".join(chain))
    (tmp_path / "root.pem").write_bytes(chain[1])
    subject = leaf.certificate.subject.rfc4514_string()
    return tmp_path, f'[[publishers.identities]]\nroots = ["file:root.pem"]\nsubject = "{subject}"'


def told(capsys):
    return json.loads(capsys.readouterr().out)


@needs_registry
@pytest.mark.parametrize("kind", NOTATION)
def test_the_real_notation_and_catena_verify_what_is_signed_in_its_formats(
    local_registry, team, capsys, kind
):
    program("notation")
    folder, publisher = team
    image = local_registry.push(f"team/{kind}", kind)
    plain = (image.reference, "--plain-http")
    words = ("--key", str(folder / "team.key"), "--certificates", str(folder / "team.pem"))
    assert run(["container", "sign", *plain, *words, "--format", kind, "-o", "json"]) == 0
    assert told(capsys)["format"] == kind
    tool = Notation(folder)
    tool.trust("example", (folder / "root.pem").read_bytes())
    repository = image.reference.rpartition(":")[0]
    said = tool("verify", "--insecure-registry", f"{repository}@{image.digest}")
    assert "Successfully verified" in said
    file = policy(folder, publisher, repository)
    assert run(["container", "verify", *plain, "--policy", str(file), "-o", "json"]) == 0
    verified = told(capsys)
    assert (verified["publisher"], verified["format"]) == ("team", kind)


@needs_registry
def test_notation_needs_a_chain(local_registry, team, capsys):
    image = local_registry.push("team/chainless")
    words = ("--key", str(team[0] / "team.key"), "--format", "notation-jws", "-o", "json")
    assert run(["container", "sign", image.reference, "--plain-http", *words]) == ExitCode.USAGE
    assert told(capsys)["error"]["code"] == "no-certificate-chain"


@pytest.fixture
def archive(tmp_path, gpg):
    (tmp_path / "app.aci").write_bytes(aci())
    key = tmp_path / "alice.openpgp"
    key.write_bytes(gpg("--export-secret-keys", "alice"))
    key.chmod(0o600)
    public = gpg("--armor", "--export", "alice").decode()
    return tmp_path, key, f'openpgp = ["""{public}"""]'


def test_an_aci_is_signed_and_verified(archive, gpg, capsys):
    folder, key, publisher = archive
    file = policy(folder, publisher, "example.com/app")
    image = f"aci:{folder}/app.aci"
    verify = ["container", "verify", image, "--policy", str(file), "-o", "json"]
    assert run(verify) == ExitCode.UNTRUSTED
    assert told(capsys)["error"]["code"] == "image-unsigned"
    assert run(["container", "sign", image, "--key", str(key), "-o", "json"]) == 0
    signed = told(capsys)
    assert (signed["format"], signed["key"]) == ("aci", gpg.fingerprints("alice")[0].lower())
    gpg("--verify", folder / "app.aci.asc", folder / "app.aci")
    assert run(verify) == 0
    verified = told(capsys)
    assert (verified["image"], verified["publisher"]) == (signed["image"], "team")
    assert verified["claimed_repository"].startswith("example.com/app")


def test_an_aci_under_another_name_or_changed_is_refused(archive, capsys):
    folder, key, publisher = archive
    image = f"aci:{folder}/app.aci"
    assert run(["container", "sign", image, "--key", str(key)]) == 0
    other = policy(folder, publisher, REGISTRY)
    words = ("--policy", str(other), "--repository", REGISTRY, "-o", "json")
    capsys.readouterr()
    assert run(["container", "verify", image, *words]) == ExitCode.UNTRUSTED
    assert told(capsys)["error"]["code"] == "signed-for-another-repository"
    (folder / "app.aci").write_bytes(aci(tar_entry("rootfs/more", b"x")))
    file = policy(folder, publisher, "example.com/app")
    assert run(["container", "verify", image, "--policy", str(file)]) == ExitCode.UNTRUSTED


def test_a_signature_of_an_aci_carries_nothing_else_and_overwrites_nothing(archive, capsys):
    folder, key, _ = archive
    sign = ["container", "sign", f"aci:{folder}/app.aci", "--key", str(key)]
    assert run([*sign, "--annotation", "a=b", "-o", "json"]) == ExitCode.USAGE
    assert told(capsys)["error"]["code"] == "aci-signature-plain"
    assert run(sign) == 0
    assert run(sign) == ExitCode.USAGE
    key.chmod(0o640)
    (folder / "app.aci.asc").unlink()
    assert run(sign) == ExitCode.UNTRUSTED
    assert not (folder / "app.aci.asc").exists()
    assert run(["container", "verify", "aci:/gone", "--policy", "x"]) == ExitCode.NOT_FOUND
