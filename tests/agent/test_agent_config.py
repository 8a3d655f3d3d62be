from __future__ import annotations

import re
from pathlib import Path

import pytest

from catena.agent import config as config_module
from catena.agent.config import AgentConfig, InvalidConfig, MissingConfig, load
from catena.ids import HashAlg

NEEDED = 'server = "https://trust.example:8443"\nca = "/etc/catena/ca.crt"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_two_settings_are_enough(tmp_path):
    config = load(write(tmp_path, NEEDED))
    assert config.server == "https://trust.example:8443"
    assert config.tcti == "device:/dev/tpmrm0"
    assert config.runtime_dir == Path("/run/catena")
    assert config.hash_alg is HashAlg.SHA256
    assert config.interval is None
    assert not config.allow_disk


def test_every_setting_is_read(tmp_path):
    config = load(
        write(
            tmp_path,
            NEEDED
            + 'tcti = "swtpm:port=2321"\nruntime_dir = "/run/x"\nallow_disk = true\n'
            + 'interval = 30\nbank = "sha384"\nevent_log = "/e"\nima_log = "/i"\n'
            + 'name_hint = "rack-3"\nsealed_copy = "/dev/vport1"\n',
        )
    )
    assert (config.interval, config.hash_alg) == (30, HashAlg.SHA384)
    assert config.sealed_copy == Path("/dev/vport1")


def test_every_setting_is_documented():
    documented = re.findall(r"^``(\w+)``", config_module.__doc__, re.MULTILINE)
    assert documented == list(AgentConfig.__struct_fields__)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'server = "https://h"',
        NEEDED + "unknown = 1\n",
        NEEDED + "interval = 0\n",
        NEEDED + 'interval = "30"\n',
        NEEDED + 'bank = "sha1"\n',
        NEEDED + 'bank = "sm3_256"\n',
        NEEDED + 'runtime_dir = "relative"\n',
        NEEDED + "runtime_dir = 5\n",
        NEEDED + f'name_hint = "{"x" * 300}"\n',
        NEEDED.replace("https", "http"),
        NEEDED.replace("trust.example:8443", ""),
        NEEDED.replace("trust.example", "user:word@trust.example"),
        NEEDED.replace(":8443", ":port"),
        NEEDED.replace(":8443", ":99999"),
        NEEDED.replace(":8443", ":8443/path"),
        NEEDED.replace(":8443", ":8443?query"),
        "not toml",
    ],
)
def test_senseless_setting_is_refused(tmp_path, text):
    with pytest.raises(InvalidConfig):
        load(write(tmp_path, text))


def test_records_lie_in_a_pcr_or_in_the_indices_of_tenants(tmp_path):
    config = load(write(tmp_path, NEEDED + 'container_record = "/c"\n'))
    assert config.container_records == {None: Path("/c")}
    tables = (
        '[[container_index]]\nnv_index = 0x01800f00\nrecord = "/a"\n'
        '[[container_index]]\nnv_index = 0x01800f01\nrecord = "/b"\n'
    )
    config = load(write(tmp_path, NEEDED + tables))
    assert config.container_records == {0x01800F00: Path("/a"), 0x01800F01: Path("/b")}


@pytest.mark.parametrize(
    "table",
    [
        "nv_index = 0x01800f00",
        'record = "/a"',
        'nv_index = 15\nrecord = "/a"',
        'nv_index = 0x01800f00\nrecord = "a"',
        'nv_index = 0x01800f00\nrecord = "/a"\npcr = 15',
        'nv_index = 1\nrecord = "/a"',
        (
            'nv_index = 0x01800f00\nrecord = "/a"\n[[container_index]]\n'
            'nv_index = 0x01800f00\nrecord = "/b"'
        ),
    ],
)
def test_a_senseless_index_is_refused(tmp_path, table):
    with pytest.raises(InvalidConfig):
        load(write(tmp_path, f"{NEEDED}[[container_index]]\n{table}\n"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig):
        load(path)


def test_missing_file_says_so(tmp_path):
    with pytest.raises(MissingConfig):
        load(tmp_path / "absent.toml")
