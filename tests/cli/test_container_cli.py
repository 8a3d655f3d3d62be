"""``catena container``: transcripts of signing, verifying, fetching, and policies."""

import json

import pytest

from catena.cli.main import run
from catena.errors import ExitCode
from catena.keys.signer import KeyAlgorithm, generate_key, public_pem, write_key
from container_images import cosign, needs_registry, registry, tiny_layout
from debian_testing import program

REPOSITORY = "registry.example.com/team/app"
NAME = f"{REPOSITORY}:1.4"


class Shop:
    """A folder with a key, a policy and an image."""

    def __init__(self, folder):
        self.folder = folder
        self.key = folder / "team.key"
        key = generate_key(KeyAlgorithm.ECDSA_P256)
        write_key(self.key, key)
        (folder / "team.pub").write_bytes(public_pem(key.public_key()))
        self.policy = folder / "containers.toml"
        self.policy.write_text(
            'name = "test"\nversion = 1\n'
            '[[publishers]]\nname = "team"\nkeys = ["file:team.pub"]\n'
            f'[[scopes]]\nrepository = "{REPOSITORY}"\npublishers = ["team"]\n'
        )
        self.digest = tiny_layout(folder / "images", NAME)
        self.image = f"oci:{folder}/images:{NAME}"

    def sign(self, *words):
        return run(["container", "sign", self.image, "--key", str(self.key), *words])

    def verify(self, *words):
        return run(["container", "verify", self.image, "--policy", str(self.policy), *words])


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def told(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["cosign", "cosign-bundle"])
def test_an_image_is_signed_and_verified(shop, capsys, kind):
    assert shop.sign("--format", kind, "--annotation", "version=1.4", "-o", "json") == 0
    signed = told(capsys)
    assert (signed["image"], signed["format"]) == (shop.digest, kind)
    assert shop.verify("-o", "json") == 0
    verified = told(capsys)
    assert (verified["image"], verified["publisher"]) == (shop.digest, "team")
    assert (verified["version"], verified["claimed_repository"]) == ("1.4", REPOSITORY)
    assert verified["key"] == signed["key"]
    assert shop.verify() == 0
    assert "publisher          team" in capsys.readouterr().out


def test_an_unsigned_image_is_refused_with_exit_10(shop, capsys):
    assert shop.verify("-o", "json") == ExitCode.UNTRUSTED == 10
    assert told(capsys)["error"]["code"] == "image-unsigned"
    assert shop.verify() == ExitCode.UNTRUSTED
    assert "[image-unsigned]" in capsys.readouterr().err


def test_an_image_is_signed_for_the_repository_that_is_meant(shop, capsys):
    assert shop.sign("--repository", "registry.example.com/other") == 0
    assert shop.verify("-o", "json") == ExitCode.UNTRUSTED
    capsys.readouterr()
    assert shop.verify("-o", "json") == ExitCode.UNTRUSTED
    assert told(capsys)["error"]["code"] == "signed-for-another-repository"


@pytest.mark.parametrize("word", ["version", "=1", ""])
def test_an_annotation_without_name_and_value_is_wrong_usage(shop, capsys, word):
    assert shop.sign("--annotation", word, "-o", "json") == ExitCode.USAGE
    assert told(capsys)["error"]["code"] == "bad-annotation"


def test_a_launch_policy_is_signed_and_attached(shop, capsys, tmp_path):
    file = tmp_path / "launch.json"
    file.write_text('{"name": "app", "version": 1, "argv": [["/hello"]]}')
    assert shop.sign("--launch-policy", str(file), "-o", "json") == 0
    assert told(capsys)["launch_policy"] == "app"
    file.write_text("{}")
    assert shop.sign("--launch-policy", str(file), "-o", "json") == ExitCode.MALFORMED


def test_an_image_is_fetched_with_its_signatures(shop, capsys, tmp_path):
    assert shop.sign() == shop.sign("--format", "cosign-bundle") == 0
    capsys.readouterr()
    store = tmp_path / "store"
    words = ["container", "fetch", shop.image, "--store", str(store), "-o", "json"]
    assert run(words) == 0
    fetched = told(capsys)
    assert (fetched["image"], fetched["signatures"]) == (shop.digest, 2)
    there = f"oci:{store}:{NAME}"
    assert run(["container", "verify", there, "--policy", str(shop.policy)]) == 0
    assert run(words) == 0


def test_an_image_is_fetched_under_its_digest(shop, capsys, tmp_path):
    image = f"oci:{tmp_path}/images:{REPOSITORY}@{shop.digest}"
    words = ["container", "fetch", image, "--store", str(tmp_path / "store"), "-o", "json"]
    assert run(words) == 0
    assert told(capsys)["name"] == f"{REPOSITORY}@{shop.digest}"


def test_a_policy_is_checked_signed_and_used(shop, capsys, tmp_path):
    assert run(["keys", "init", str(tmp_path / "keys")]) == 0
    assert run(["container", "policy", "check", str(shop.policy)]) == 0
    assert "1 publishers, 1 scopes" in capsys.readouterr().out
    target = tmp_path / "policy.dsse.json"
    words = ["--keys", str(tmp_path / "keys"), "--to", str(target), "-o", "json"]
    assert run(["container", "policy", "sign", str(shop.policy), *words]) == 0
    sealed = told(capsys)
    assert shop.sign() == 0
    capsys.readouterr()
    key = tmp_path / "keys/release.pub"
    words = ["--policy", str(target), "--policy-key", str(key), "-o", "json"]
    assert run(["container", "verify", shop.image, *words]) == 0
    assert told(capsys)["policy"] == sealed["sha256"]
    assert run(["container", "verify", shop.image, *words[:2], "-o", "json"]) == ExitCode.USAGE
    assert told(capsys)["error"]["code"] == "no-trusted-keys"


def test_a_policy_with_an_error_is_neither_accepted_nor_signed(shop, capsys, tmp_path):
    assert run(["keys", "init", str(tmp_path / "keys")]) == 0
    shop.policy.write_text(
        shop.policy.read_text().replace('publishers = ["team"]', 'publishers = ["x"]')
    )
    target = tmp_path / "policy.dsse.json"
    words = ["--keys", str(tmp_path / "keys"), "--to", str(target)]
    assert run(["container", "policy", "check", str(shop.policy)]) == ExitCode.POLICY
    assert run(["container", "policy", "sign", str(shop.policy), *words]) == ExitCode.POLICY
    assert not target.exists()
    assert shop.verify() == ExitCode.POLICY


def test_a_key_that_others_may_read_signs_nothing(shop, capsys):
    shop.key.chmod(0o644)
    assert shop.sign("-o", "json") == ExitCode.UNTRUSTED
    assert told(capsys)["error"]["code"] == "exposed-key"


@needs_registry
@pytest.mark.parametrize("kind", ["cosign", "cosign-bundle"])
def test_an_image_in_a_registry_is_signed_verified_by_cosign_and_fetched(
    shop, capsys, tmp_path, kind
):
    program("cosign")
    with registry(tmp_path / "registry") as running:
        image = running.push("team/app", "text", "1.4").reference
        repository = image.rpartition(":")[0]
        shop.image = image
        shop.policy.write_text(shop.policy.read_text().replace(REPOSITORY, repository))
        assert shop.verify("--plain-http") == ExitCode.UNTRUSTED
        assert shop.sign("--plain-http", "--format", kind) == 0
        assert shop.verify("--plain-http") == 0
        cosign(
            tmp_path, "verify", "--key", "team.pub", "--insecure-ignore-tlog",
            "--allow-http-registry", image,
        )  # fmt: skip
        store = tmp_path / "store"
        assert run(["container", "fetch", image, "--plain-http", "--store", str(store)]) == 0
        capsys.readouterr()
        assert shop.verify("-o", "json") == ExitCode.INTERNAL
        assert told(capsys)["error"]["code"] == "registry-unreachable"
    shop.image = f"oci:{store}:{image}"
    assert shop.verify() == 0
