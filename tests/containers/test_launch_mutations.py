"""Any one change of a setting that gives rights turns an allowed configuration into a refused one."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch_vectors import STRICT, nobodys, ordinary, parsed

from catena.containers.launch.check import check_create
from catena.containers.launch.refusals import LaunchRefused
from catena.containers.launch.rules import compile_launch
from catena.errors import FormatError

POLICY = compile_launch(STRICT)
BASE = ordinary()
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12)
numbers = st.integers(0, 2**32 - 1)


def refused(config: dict) -> bool:
    try:
        check_create(parsed(config), POLICY, None, nobodys)
    except (LaunchRefused, FormatError):
        return True
    return False


def edited(edit) -> bool:
    config = copy.deepcopy(BASE)
    edit(config)
    return config == BASE or refused(config)


@given(st.lists(words, max_size=4))
def test_another_command(argv):
    assert edited(lambda config: config["process"].update(args=argv))


@given(names, words)
def test_a_further_variable(name, value):
    listed = name in STRICT.env
    assert listed or edited(lambda config: config["process"]["env"].append(f"{name}={value}"))


@given(words)
def test_another_value_of_a_variable_with_a_rule(value):
    if value != "xterm":
        assert edited(lambda config: config["process"]["env"].append(f"TERM={value}"))


@given(numbers, numbers, st.lists(numbers, max_size=3))
def test_another_user_or_group(uid, gid, groups):
    same = (uid, gid) == (0, 0) and set(groups) <= {0, 10}
    user = {"uid": uid, "gid": gid, "additionalGids": groups}
    assert same or edited(lambda config: config["process"].update(user=user))


@given(words.map(lambda tail: f"/{tail}"))
def test_another_working_directory(cwd):
    same = not cwd.replace("/", "").replace(".", "") and ".." not in cwd.split("/")
    assert same or edited(lambda config: config["process"].update(cwd=cwd))


@given(
    st.sampled_from(["bounding", "effective", "permitted", "inheritable", "ambient"]),
    names.map(lambda name: f"CAP_{name}"),
)
def test_a_further_capability(kind, name):
    def edit(config):
        config["process"]["capabilities"].setdefault(kind, []).append(name)

    assert name in STRICT.capabilities or edited(edit)


@given(
    destination=words.map(lambda tail: f"/{tail}"),
    source=words.map(lambda tail: f"/{tail}"),
    kind=st.sampled_from(["bind", "none", "overlay", "ext4", "proc", "nfs", "fuse.x", ""]),
    options=st.lists(st.sampled_from(["ro", "rw", "rbind", "bind", "rshared", "suid"]), max_size=4),
)
def test_a_further_mount(destination, source, kind, options):
    mount = {"destination": destination, "type": kind, "source": source, "options": options}
    assert edited(lambda config: config["mounts"].append(mount))


@given(st.data())
def test_another_end_of_a_mount(data):
    places = [n for n, one in enumerate(BASE["mounts"]) if one["type"] == "bind"]
    at = data.draw(st.sampled_from(places))
    end = data.draw(st.sampled_from(["destination", "source"]))
    value = "/" + data.draw(words)

    def edit(config):
        config["mounts"][at][end] = value

    assert edited(edit)


@given(st.data())
def test_a_namespace_less(data):
    at = data.draw(st.integers(0, len(BASE["linux"]["namespaces"]) - 1))
    assert edited(lambda config: config["linux"]["namespaces"].pop(at))


@given(
    kind=st.sampled_from(["b", "c", "u", "a", ""]),
    major=st.none() | st.integers(-2, 300),
    minor=st.none() | st.integers(-2, 300),
    access=st.sampled_from(["r", "w", "rw", "rwm", "wm"]),
)
def test_a_further_device(kind, major, minor, access):
    rule = {"allow": True, "type": kind, "access": access}
    rule |= {"major": major} if major is not None else {}
    rule |= {"minor": minor} if minor is not None else {}
    usual = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}
    pseudo = major == 136 and (minor is None or minor < 0)
    allowed = kind == "c" and ((major, minor) in usual or pseudo)
    assert allowed or edited(lambda config: config["linux"]["resources"]["devices"].append(rule))


@given(st.sampled_from(["/dev/null", "/dev/x", "/dev/sda"]), st.integers(0, 9), st.integers(0, 9))
def test_a_further_device_node(path, major, minor):
    node = {"path": path, "type": "c", "major": major, "minor": minor}
    usual = path == "/dev/null" and (major, minor) == (1, 3)
    assert usual or edited(lambda config: config["linux"].update(devices=[node]))


@given(st.data())
def test_a_masked_or_read_only_path_less(data):
    kind = data.draw(st.sampled_from(["maskedPaths", "readonlyPaths"]))
    free = {"/proc/timer_stats", "/sys/fs/selinux", "/sys/dev/block", "/proc/asound"}
    path = data.draw(st.sampled_from([one for one in BASE["linux"][kind] if one not in free]))
    assert edited(lambda config: config["linux"][kind].remove(path))


@given(st.sampled_from(sorted(BASE["linux"]["seccomp"])), words)
def test_a_filter_that_is_another(member, value):
    if member in {"defaultAction", "listenerPath"}:
        assert edited(lambda config: config["linux"]["seccomp"].update({member: value}))


def _objects(tree: object, way: tuple = ()):
    if isinstance(tree, dict):
        yield way
        for key, value in tree.items():
            yield from _objects(value, (*way, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree[:2]):
            yield from _objects(value, (*way, number))


MAPS = {("annotations",), ("linux", "sysctl")}
OBJECTS = [way for way in _objects(BASE) if way not in MAPS]


@pytest.mark.parametrize("way", OBJECTS, ids=lambda way: ".".join(map(str, way)) or "top")
@given(name=words.filter(bool))
def test_a_member_that_nobody_knows(way, name):
    config = copy.deepcopy(BASE)
    place = config
    for word in way:
        place = place[word]
    if name not in place:
        place[f"{name}?"] = None
        with pytest.raises(FormatError):
            parsed(config)


@pytest.mark.parametrize("way", OBJECTS, ids=lambda way: ".".join(map(str, way)) or "top")
def test_a_member_that_is_doubled_or_respelled(way):
    place = BASE
    for word in way:
        place = place[word]
    marked = {"@": "@"}
    for key, value in place.items():
        for other in {key, key.upper(), key.capitalize(), key.replace("s", "ſ")}:
            text = json.dumps(BASE).replace(json.dumps(place), json.dumps({**place, **marked}), 1)
            text = text.replace('"@": "@"', f"{json.dumps(other)}: {json.dumps(value)}")
            with pytest.raises(FormatError) as refused_for:
                parsed_text(text)
            assert refused_for.value.code == "launch-ambiguous-config"


def parsed_text(text: str):
    from catena.formats.runtime import parse_config

    return parse_config(text.encode())
