"""config.json and process.json: what runtimes could understand otherwise is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats.runtime import (
    MAX_CONFIG,
    AmbiguousConfig,
    Mount,
    UnknownSetting,
    parse_config,
    parse_mount,
    parse_process,
    private_copy,
)

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
VECTORS = sorted((CORPUS / "opencontainers+runtime-spec/schema/test/config").glob("*/*.json"))
RECORDED = sorted((Path(__file__).parents[1] / "containers/launch_configs").glob("*.json"))

SMALL = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 1, "gid": 2}, "args": ["/a"], "env": ["K=v=w"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/d", "type": "bind", "source": "data", "options": ["rbind"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
    ],
    "annotations": {
        "io.kubernetes.cri.sandbox-id": "pod",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "registry.example/web:1",
    },
    "linux": {"namespaces": [{"type": "pid"}], "sysctl": {"a": "1", "A": "2"}},
}


def wire(config: object) -> bytes:
    return json.dumps(config).encode()


@pytest.mark.skipif(not VECTORS, reason=f"no corpus at {CORPUS}")
def test_the_specifications_own_vectors_keep_their_verdicts():
    for path in VECTORS:
        if path.parent.name == "good":
            parse_config(path.read_bytes())
        else:
            with pytest.raises(FormatError):
                parse_config(path.read_bytes())


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_engines_write_is_known(path):
    config = parse_config(path.read_bytes())
    assert config.argv
    assert [parse_mount(text).text for text in config.mount_texts] == list(config.mount_texts)


def test_a_record_has_what_it_needs():
    config = parse_config(wire(SMALL))
    assert (config.argv, config.user, config.env) == (("/a",), "1:2", (("K", "v=w"),))
    assert config.mount_texts == ("bind data /d rbind", "proc proc /proc -")
    assert (config.sandbox, config.container_type) == ("pod", "container")
    assert config.image_names == ("registry.example/web:1",)
    assert (config.capabilities, config.foreign) == ((), ())


def test_a_configuration_without_a_process_has_no_command():
    config = parse_config(b'{"ociVersion":"1.0.0"}')
    assert (config.argv, config.env, config.capabilities, config.sandbox) == ((), (), (), "")


def test_secrets_are_not_in_a_values_representation():
    config = parse_config(wire({**SMALL, "process": {"env": ["K=canary"], "args": ["canary"]}}))
    assert "canary" not in repr(config)
    assert "canary" not in repr(config.process)


@pytest.mark.parametrize(
    "text",
    [
        '{"ociVersion":"1","ociVersion":"1"}',
        '{"ociVersion":"1","process":{"args":["/a"],"args":["/b"]}}',
        '{"ociVersion":"1","process":{"args":["/a"],"Args":["/b"]}}',
        '{"ociVersion":"1","process":{"Args":["/b"]}}',
        '{"ociVersion":"1","Process":{}}',
        '{"ociVersion":"1","proceſſ":{}}',
        '{"ociVersion":"1","hooKs":{}}',
        '{"ociVersion":"1","linux":{"maskedpaths":[]}}',
        '{"ociVersion":"1","annotations":{"a":"1","a":"2"}}',
        '{"ociVersion":"1","windows":{"a":[{"b":1,"b":2}]}}',
        '{"ociVersion":"1","hostname":"a\\u0000b"}',
        '{"ociVersion":"1","root":{"args":"x"}}',
    ],
)
def test_what_a_runtime_could_understand_otherwise_is_refused(text):
    with pytest.raises(AmbiguousConfig) as refused:
        parse_config(text.encode())
    assert refused.value.code == "launch-ambiguous-config"


@pytest.mark.parametrize(
    "text",
    [
        '{"ociVersion":"1","future":{}}',
        '{"ociVersion":"1","linux":{"future":1}}',
        '{"ociVersion":"1","process":{"future":1}}',
        '{"ociVersion":"1","mounts":[{"destination":"/a","future":1}]}',
        '{"ociVersion":"1","linux":{"resources":{"future":1}}}',
        '{"ociVersion":"1","linux":{"seccomp":{"defaultAction":"x","future":1}}}',
        '{"ociVersion":"1","hooks":{"future":[]}}',
    ],
)
def test_a_setting_that_nobody_knows_is_refused(text):
    with pytest.raises(UnknownSetting) as refused:
        parse_config(text.encode())
    assert refused.value.code == "launch-unknown-setting"
    assert "future" in refused.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"ociVersion":"1"} {}',
        b'{"ociVersion":1}',
        b'\xef\xbb\xbf{"ociVersion":"1"}',
        '{"ociVersion":"1"}'.encode("utf-16"),
        b'{"ociVersion":"\\ud800"}',
        b'{"ociVersion":"\xff"}',
        b'{"ociVersion":"1","process":{"user":{"uid":-1}}}',
        b'{"ociVersion":"1","process":{"user":{"uid":4294967296}}}',
        b'{"ociVersion":"1","process":{"user":{"uid":0.0}}}',
        b'{"ociVersion":"1","process":{"noNewPrivileges":"true"}}',
        b'{"ociVersion":"1","process":{"terminal":NaN}}',
        b'{"ociVersion":"1","vm":' + b"[" * 5000,
        b" " * (MAX_CONFIG + 1),
    ],
)
def test_what_is_no_configuration_is_malformed(data):
    with pytest.raises(FormatError) as refused:
        parse_config(data)
    assert refused.value.code == "malformed"


def test_null_is_what_gos_readers_take_it_for():
    config = parse_config(b'{"ociVersion":"1","process":null,"mounts":null,"linux":null}')
    assert (config.process, config.mounts, config.linux) == (None, None, None)


def test_keys_of_maps_may_differ_by_case():
    linux = parse_config(wire(SMALL)).linux
    assert linux is not None
    assert linux.sysctl == {"a": "1", "A": "2"}


def test_truncation_anywhere_and_bit_flips_are_refused_cleanly():
    data = wire(SMALL)
    assert all(refuses_cleanly(parse_config, data[:size]) for size in range(len(data)))
    assert all(refuses_cleanly(parse_config, flipped) for flipped in bit_flips(data))


def test_the_process_of_an_exec_is_read_as_strictly():
    process = parse_process(wire({"args": ["/a"], "cwd": "/", "user": {"uid": 0, "gid": 0}}))
    assert (process.argv, process.user_text) == (("/a",), "0:0")
    for text in (b'{"args":[],"args":[]}', b'{"ARGS":[]}', b'{"cwd":"/"}{}', b'{"more":1}'):
        with pytest.raises(FormatError):
            parse_process(text)


# The private copy ------------------------------------------------------------------------------


def test_the_private_copy_means_the_same_outside_of_its_bundle():
    copied = json.loads(private_copy(wire(SMALL), Path("/run/bundle")))
    expected = copy.deepcopy(SMALL)
    expected["root"]["path"] = "/run/bundle/rootfs"
    expected["mounts"][0]["source"] = "/run/bundle/data"
    assert copied == expected


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_private_copy_drops_nothing(path):
    original = json.loads(path.read_bytes())
    copied = private_copy(path.read_bytes(), Path("/run/bundle"))
    if original["root"]["path"] == "rootfs":
        original["root"]["path"] = "/run/bundle/rootfs"
    assert json.loads(copied) == original
    assert list(json.loads(copied)) == list(original)
    assert private_copy(copied, Path("/elsewhere")) == copied


def test_no_private_copy_is_made_of_what_is_refused():
    with pytest.raises(AmbiguousConfig):
        private_copy(b'{"ociVersion":"1","Root":{"path":"/"}}', Path("/b"))


# Mounts as text --------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=20).filter(lambda word: word.isprintable() or " " in word)


@given(destination=words, source=words, kind=words, options=st.lists(words.filter(lambda w: w != "-"), max_size=3))  # fmt: skip
def test_a_mounts_text_is_read_back(destination, source, kind, options):
    mount = Mount(destination=destination, source=source, type=kind, options=tuple(options))
    assert mount.text.isascii()
    assert parse_mount(mount.text) == mount


@pytest.mark.parametrize("text", ["", "a b c", "a b c d e", "a b \\377 -", "a  b c d"])
def test_what_is_no_mount_is_malformed(text):
    with pytest.raises(FormatError):
        parse_mount(text)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("bind", None, True),
        ("none", ("rbind",), True),
        ("proc", ("ro", "bind"), True),
        ("proc", ("ro",), False),
    ],
)
def test_an_option_makes_a_mount_a_bind_mount_whatever_its_type(kind, options, expected):
    assert Mount(destination="/a", type=kind, options=options).is_bind is expected
