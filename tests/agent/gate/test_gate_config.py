from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from catena.agent.gate import config as module
from catena.agent.gate.config import GateConfig, InvalidGateConfig, MissingGateConfig, load
from catena.containers.wrapper import files

PROJECT = Path(__file__).resolve().parents[3]
MANUAL = PROJECT / "docs/containers.md"
UNIT = PROJECT / "deploy/catena-gate.service"
NEEDED = 'policy = "/etc/catena/containers.dsse"\npolicy_keys = ["/etc/catena/release.pub"]\n'
OWN_NAMESPACE = re.compile(
    r"^(Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Clock|Hostname)"
    r"|Private(Tmp|Devices|Mounts|Users|Network)|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths"
    r"|BindPaths|BindReadOnlyPaths|TemporaryFileSystem|RootDirectory|RootImage|MountAPIVFS|DynamicUser"
    r"|StateDirectory|ProcSubset|DevicePolicy)=",
    re.MULTILINE,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text)
    return path


def test_two_settings_are_enough(tmp_path):
    config = load(write(tmp_path, NEEDED))
    assert config.socket == Path("/run/catena-gate/gate.sock")
    assert (config.pcr, config.uids, config.strict) == (15, (0,), False)
    assert config.policy_keys == (Path("/etc/catena/release.pub"),)


def test_every_setting_is_read(tmp_path):
    text = (
        NEEDED
        + 'images = ["/a", "/b"]\nsocket = "/s"\nruntime_dir = "/r"\nrecord = "/c"\n'
        + 'tcti = "swtpm:port=2321"\npcr = 14\nruntime = "/usr/bin/crun"\n'
        + 'runtime_root = "/run/crun"\nstrict = true\nuids = [0, 7]\nworkers = 2\nqueue = 3\n'
        + "request_seconds = 9\n"
    )
    config = load(write(tmp_path, text))
    assert (config.images, config.uids, config.pcr) == ((Path("/a"), Path("/b")), (0, 7), 14)
    assert (config.workers, config.queue, config.request_seconds) == (2, 3, 9)


def test_every_setting_is_documented():
    documented = re.findall(r"^``(\w+)``", module.__doc__, re.MULTILINE)
    assert documented == list(GateConfig.__struct_fields__)


def test_manual_lists_the_settings_with_their_defaults():
    table = MANUAL.read_text().split("| `gate.toml` | default | meaning |\n", 1)[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    told = {row[0]: row[1] for row in rows[1:]}
    fields = msgspec.structs.fields(GateConfig)
    assert told == {f"`{field.name}`": shown(field) for field in fields}


def shown(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "(needed)"
    return f"`{msgspec.json.encode(field.default, enc_hook=str).decode()}`"


@pytest.mark.parametrize(
    "text",
    [
        "",
        'policy = "/p"',
        NEEDED + "unknown = 1\n",
        NEEDED.replace('["/etc/catena/release.pub"]', "[]"),
        NEEDED.replace("/etc/catena/containers", "containers"),
        NEEDED + "images = []\n",
        NEEDED + 'images = ["relative"]\n',
        NEEDED + "pcr = 7\n",
        NEEDED + "pcr = 10\n",
        NEEDED + "nv_index = 0x01800000\n",
        NEEDED + "nv_indices = [0x01800000]\n",
        NEEDED + "nv_index = 0x01800002\nnv_indices = [0x01800000, 0x01800001]\n",
        NEEDED + "nv_index = 0x01800000\nnv_indices = [0x01800000, 0x01800000]\n",
        NEEDED + "nv_index = 0x017fffff\nnv_indices = [0x017fffff]\n",
        NEEDED + "nv_index = 0x01c00000\nnv_indices = [0x01c00000]\n",
        NEEDED + f"nv_index = 25165824\nnv_indices = {[25165824 + n for n in range(5)]}\n",
        NEEDED + 'seal_lock = "relative"\n',
        NEEDED + "pcr = 16\n",
        NEEDED + "uids = []\n",
        NEEDED + "workers = 0\n",
        NEEDED + "queue = 0\n",
        NEEDED + "request_seconds = 101\n",
        NEEDED + 'strict = "yes"\n',
        "not toml",
    ],
)
def test_senseless_setting_is_refused(tmp_path, text):
    with pytest.raises(InvalidGateConfig):
        load(write(tmp_path, text))


def test_a_tenant_has_one_of_the_nodes_indices(tmp_path):
    text = NEEDED + "pcr = 14\nnv_index = 0x01800f01\nnv_indices = [0x01800f00, 0x01800f01]\n"
    config = load(write(tmp_path, text + 'seal_lock = "/l"\nowner_auth = "/o"\n'))
    assert (config.pcr, config.nv_index, config.nv_indices) == (
        14,
        0x01800F01,
        (0x01800F00, 0x01800F01),
    )
    assert (config.seal_lock, config.owner_auth) == (Path("/l"), Path("/o"))


def test_an_index_that_is_not_listed_is_named(tmp_path):
    text = NEEDED + "nv_index = 0x01800f01\nnv_indices = [0x01800f00]\n"
    with pytest.raises(InvalidGateConfig) as caught:
        load(write(tmp_path, text))
    assert (caught.value.expected, caught.value.got) == ("0x01800f00", "0x01800f01")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidGateConfig):
        load(path)


def test_missing_file_says_so(tmp_path):
    with pytest.raises(MissingGateConfig):
        load(tmp_path / "absent.toml")


def test_unit_leaves_the_gate_in_the_mount_namespace_of_the_engines():
    text = UNIT.read_text()
    assert not OWN_NAMESPACE.findall(text)
    assert "catena agent gate --config /etc/catena/gate.toml" in text
    assert "RuntimeDirectoryPreserve=yes" in text


def test_wrapper_waits_longer_than_the_gate_may_take(tmp_path):
    longest = load(write(tmp_path, NEEDED + "request_seconds = 100\n")).request_seconds
    source = Path(files.__file__).with_name("gate-client.c").read_text()
    patience = int(re.search(r"#define SECONDS (\d+)", source)[1])
    assert longest < patience < 120
