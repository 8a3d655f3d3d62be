"""Engines are pointed at the wrapper, and back, in a file system of their own."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from catena.cli import container_install
from catena.containers.engines import ConfigNotUnderstood, Engine, FileTaken, set_toml
from catena.containers.install import (
    RECORD,
    AlreadyInstalled,
    ConfigChanged,
    Installer,
    NoRealRuntime,
    NotInstalled,
)
from catena.errors import CatenaError, FormatError

RUNC = Path("/usr/sbin/runc")
GATE = Path("/run/catena-gate/gate.sock")
CONTAINERD = Path("etc/containerd/config.toml")
DOCKER = Path("etc/docker/daemon.json")
WRAPPER = "/usr/lib/catena/catena-runc"
DEBIAN = """version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"   # a comment
"""
FULL = (
    DEBIAN
    + """    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
        BinaryName = "/usr/bin/runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.fast]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
      runtime_type = "io.containerd.kata.v2"
"""
)


@pytest.fixture
def root(tmp_path):
    runc = tmp_path / "usr/sbin/runc"
    runc.parent.mkdir(parents=True)
    runc.write_bytes(b"\x7fELF")
    runc.chmod(0o755)
    put(tmp_path / CONTAINERD, DEBIAN)
    put(tmp_path / DOCKER, '{"log-level": "debug"}')
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode)
        for path in root.rglob("*")
        if path.is_file()
    }


def install(root, *engines):
    return Installer(root).install(engines, runtime=RUNC, gate=GATE)


def cri(root):
    document = tomllib.loads((root / CONTAINERD).read_text())
    return document["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]


@pytest.mark.parametrize("engine", list(Engine))
def test_what_is_installed_is_undone_byte_for_byte(root, engine):
    (root / CONTAINERD).chmod(0o640)
    before = contents(root)
    install(root, engine)
    assert contents(root) != before
    Installer(root).uninstall((engine,))
    assert contents(root) == before


@pytest.mark.parametrize("engine", list(Engine))
def test_what_did_not_exist_is_gone_afterwards(root, engine):
    for path in (CONTAINERD, DOCKER):
        (root / path).unlink()
    before = contents(root)
    install(root, engine)
    Installer(root).uninstall((engine,))
    assert contents(root) == before


def test_engines_share_the_wrapper_until_the_last_is_undone(root):
    before = contents(root)
    install(root, Engine.CONTAINERD)
    install(root, Engine.DOCKER, Engine.PODMAN)
    Installer(root).uninstall((Engine.CONTAINERD,))
    assert (root / "usr/local/sbin/runc").exists()
    Installer(root).uninstall((Engine.DOCKER,))
    assert not (root / "usr/local/sbin/runc").exists()
    assert (root / WRAPPER[1:]).stat().st_mode & 0o777 == 0o755
    Installer(root).uninstall((Engine.PODMAN,))
    assert contents(root) == before


@pytest.mark.parametrize("text", [DEBIAN, FULL, "version = 2", "version = 2\n# end"])
def test_containerd_starts_the_wrapper_for_every_runc_runtime(root, text):
    (root / CONTAINERD).write_text(text)
    done = install(root, Engine.CONTAINERD)
    for name in ("runc", "fast") if text == FULL else ("runc",):
        assert cri(root)[name]["options"]["BinaryName"] == WRAPPER
        assert cri(root)[name]["runtime_type"] == "io.containerd.runc.v2"
    kept = [line for line in text.splitlines() if "BinaryName" not in line]
    assert all(line in (root / CONTAINERD).read_text() for line in kept)
    expected = ("runtime kata of CRI is not runc's",) if text == FULL else ()
    assert done.uncovered == expected


def test_containerd_of_version_3_is_understood(root):
    (root / CONTAINERD).write_text("version = 3\n")
    install(root, Engine.CONTAINERD)
    plugins = tomllib.loads((root / CONTAINERD).read_text())["plugins"]
    runtimes = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert runtimes["runc"]["options"]["BinaryName"] == WRAPPER


@pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd")
@pytest.mark.parametrize("text", [DEBIAN, FULL])
def test_real_containerd_reads_what_was_meant(root, text):
    (root / CONTAINERD).write_text(text)
    install(root, Engine.CONTAINERD)
    done = subprocess.run(
        ["containerd", "-c", root / CONTAINERD, "config", "dump"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    plugins = tomllib.loads(done.stdout)["plugins"]
    runtimes = plugins["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert runtimes["runc"]["options"]["BinaryName"] == WRAPPER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1\n",
        "version = 4\n",
        "version = \n",
        "version = 2\nplugins = 3\n",
        'version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {}}\n',
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nruntimes.runc.options = {}\n',
        'version = 2\nx = """\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n"""\n',
    ],
)
def test_configuration_that_cannot_be_changed_safely_is_left_alone(root, text):
    (root / CONTAINERD).write_text(text)
    before = contents(root)
    with pytest.raises(ConfigNotUnderstood) as refused:
        install(root, Engine.PODMAN, Engine.CONTAINERD)
    assert refused.value.code == "engine-config-not-understood"
    assert contents(root) == before


def test_docker_keeps_its_other_settings(root):
    install(root, Engine.DOCKER)
    document = msgspec.json.decode((root / DOCKER).read_bytes())
    assert document == {
        "log-level": "debug",
        "runtimes": {"catena": {"path": WRAPPER}},
        "default-runtime": "catena",
    }


@pytest.mark.parametrize("text", ["", "[]", '{"runtimes": []}', "{"])
def test_docker_configuration_that_is_none_is_refused(root, text):
    (root / DOCKER).write_text(text)
    if text:
        with pytest.raises(ConfigNotUnderstood):
            install(root, Engine.DOCKER)


@pytest.mark.parametrize("engine", [Engine.PODMAN, Engine.CRIO])
def test_drop_ins_name_the_wrapper_for_every_runtime(root, engine):
    done = install(root, engine)
    (file,) = [root / path[1:] for path in done.files if path.endswith(".conf")]
    text = file.read_text()
    assert tomllib.loads(text)
    assert text.count(WRAPPER) == 2


def test_file_that_changed_since_stops_the_undoing_of_all(root):
    install(root, Engine.CONTAINERD, Engine.PODMAN)
    installed = contents(root)
    with (root / CONTAINERD).open("a") as file:
        file.write("# mine\n")
    with pytest.raises(ConfigChanged) as refused:
        Installer(root).uninstall((Engine.CONTAINERD, Engine.PODMAN))
    assert refused.value.code == "engine-config-changed"
    changed = contents(root)
    assert {path for path in changed if changed[path] != installed[path]} == {str(CONTAINERD)}


def test_copy_that_was_lost_or_damaged_stops_the_undoing(root):
    install(root, Engine.CONTAINERD)
    (copy,) = [one for one in (root / str(RECORD)[1:]).iterdir() if len(one.name) == 64]
    kept = copy.read_bytes()
    copy.write_bytes(kept + b"x")
    with pytest.raises(ConfigChanged):
        Installer(root).uninstall((Engine.CONTAINERD,))
    copy.unlink()
    with pytest.raises(ConfigChanged):
        Installer(root).uninstall((Engine.CONTAINERD,))


def test_installation_that_was_cut_short_can_be_undone(root):
    """Copies and ledger come first, files one by one: any of them may still be as before."""
    before = contents(root)
    done = install(root, Engine.CONTAINERD)
    after = contents(root)
    for cut in range(len(done.files)):
        for path in done.files[cut:]:
            name = path[1:]
            if name in before:
                (root / name).write_bytes(before[name][0])
            else:
                (root / name).unlink()
        Installer(root).uninstall((Engine.CONTAINERD,))
        assert contents(root) == before
        install(root, Engine.CONTAINERD)
        assert contents(root) == after


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda root: (root / "usr/sbin/runc").unlink(), NoRealRuntime),
        (lambda root: (root / "usr/sbin/runc").chmod(0o644), NoRealRuntime),
        (
            lambda root: put(root / "usr/sbin/runc", "#!/usr/lib/catena/gate-client /r /g\n"),
            NoRealRuntime,
        ),
        (lambda root: put(root / "usr/local/sbin/runc", "a runc"), FileTaken),
        (lambda root: put(root / WRAPPER[1:], "other"), FileTaken),
        (lambda root: install(root, Engine.CONTAINERD), AlreadyInstalled),
        (lambda root: put(root / str(RECORD)[1:] / "ledger.json", "{"), FormatError),
    ],
)
def test_what_stands_in_the_way_is_told_and_nothing_is_changed(root, spoil, error):
    spoil(root)
    before = contents(root)
    with pytest.raises(error) as refused:
        install(root, Engine.CONTAINERD)
    assert refused.value.remedy
    assert contents(root) == before


def test_other_settings_for_a_second_engine_are_refused(root):
    install(root, Engine.CONTAINERD)
    with pytest.raises(AlreadyInstalled):
        Installer(root).install((Engine.PODMAN,), runtime=RUNC, gate=Path("/other.sock"))


def test_undoing_what_was_not_done_is_told(root):
    with pytest.raises(NotInstalled):
        Installer(root).uninstall((Engine.CRIO,))


def test_verbs_say_what_they_did(root):
    runner = CliRunner()
    words = ["--runtime", "containerd", "--root", str(root)]
    shown = runner.invoke(container_install.install, words)
    assert shown.exit_code == 0, shown.output
    assert "wrote     /etc/containerd/config.toml" in shown.output
    assert "restart   containerd" in shown.output
    again = runner.invoke(container_install.install, words)
    assert isinstance(again.exception, CatenaError)
    undone = runner.invoke(container_install.uninstall, [*words, "-o", "json"])
    assert "/usr/local/sbin/runc" in msgspec.json.decode(undone.output)["files"]


@given(
    st.dictionaries(st.sampled_from(["a", "b", "version"]), st.integers(), max_size=3),
    st.lists(st.sampled_from(["x", "y.z", "runc"]), min_size=1, max_size=4),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
def test_setting_changes_exactly_what_it_should(values, path, value):
    text = "".join(f"{name} = {number}\n" for name, number in values.items())
    try:
        changed = set_toml(text, (*path, "key"), value)
    except ConfigNotUnderstood:
        return
    document = tomllib.loads(changed)
    for depth, name in enumerate(path):
        inner = document.pop(name)
        assert document == ({} if depth else values)
        document = inner
    assert document == {"key": value}
