"""Image configurations: what decides about a start, and nothing that engines read otherwise."""

from __future__ import annotations

import json

import pytest
from hostile import bit_flips, refuses_cleanly

from catena.errors import FormatError
from catena.formats import imageconfig
from catena.formats.imageconfig import MAX_IMAGE_CONFIG, AmbiguousImageConfig

DIFF_ID = "sha256:" + "ab" * 32
WHOLE = {
    "created": "2026-01-02T03:04:05Z",
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "User": "1000:50",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--serve"],
        "Volumes": {"/data": {}, "/cache": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["NONE"]},
    },
    "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
    "history": [{"created_by": "x"}],
    "some.extension": 1,
}


def wire(config: object) -> bytes:
    return json.dumps(config).encode()


def test_what_decides_about_a_start_is_read():
    image = imageconfig.parse(wire(WHOLE))
    assert (image.entrypoint, image.argv) == (("/bin/app",), ("/bin/app", "--serve"))
    assert image.env == (("PATH", "/bin"), ("A", "b=c"))
    assert (image.user, image.working_directory) == ("1000:50", "/srv")
    assert (image.volumes, image.diff_ids) == (("/cache", "/data"), (DIFF_ID,))


@pytest.mark.parametrize("settings", [None, {}, {"Cmd": None, "Env": None, "Entrypoint": None}])
def test_an_image_may_say_nothing(settings):
    image = imageconfig.parse(wire({**WHOLE, "config": settings}))
    assert (image.argv, image.env, image.user) == ((), (), "")
    assert (image.working_directory, image.volumes) == ("/", ())


@pytest.mark.parametrize(
    "text",
    [
        '{"config":{"Cmd":["a"],"Cmd":["b"]}',
        '{"config":{"cmd":["a"]}',
        '{"config":{"Cmd":["a"],"CMD":["b"]}',
        '{"config":{"EntryPoint":["a"]}',
        '{"Config":{"Cmd":["a"]}',
        '{"config":{},"config":{}',
        '{"OS":"x","config":{}',
        '{"config":{"Labels":{"a":"b","a":"c"}}',
        '{"config":{"User":"0\\u0000"}',
    ],
)
def test_what_an_engine_could_understand_otherwise_is_refused(text):
    more = ',"architecture":"a","os":"l","rootfs":{"type":"layers","diff_ids":[]}}'
    with pytest.raises(AmbiguousImageConfig) as refused:
        imageconfig.parse((text + more).encode())
    assert refused.value.code == "image-config-ambiguous"


@pytest.mark.parametrize("name", ["Diff_ids", "TYPE"])
def test_layers_are_spelled_as_the_specification_has_them(name):
    with pytest.raises(AmbiguousImageConfig):
        imageconfig.parse(wire({**WHOLE, "rootfs": {**WHOLE["rootfs"], name: []}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rootfs": None},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:AB"]}},
        {"rootfs": {"type": "layers", "diff_ids": [f"{DIFF_ID}\n"]}},
        {"rootfs": {"type": "layers", "diff_ids": [DIFF_ID] * 1025}},
        {"config": {"Cmd": "sh"}},
        {"config": {"Env": [1]}},
        {"architecture": None},
    ],
)
def test_what_breaks_the_specification_is_malformed(changes):
    with pytest.raises(FormatError):
        imageconfig.parse(wire({**WHOLE, **changes}))


def test_a_configuration_beyond_the_limit_is_not_read():
    with pytest.raises(FormatError, match="too large"):
        imageconfig.parse(b" " * (MAX_IMAGE_CONFIG + 1))


def test_truncation_anywhere_and_bit_flips_are_refused_cleanly():
    data = wire(WHOLE)
    assert all(refuses_cleanly(imageconfig.parse, data[:size]) for size in range(len(data)))
    assert all(refuses_cleanly(imageconfig.parse, flipped) for flipped in bit_flips(data))
