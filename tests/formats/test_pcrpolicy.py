from __future__ import annotations

import io
import json
import zipfile

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import pcrpolicy
from catena.formats.pattern import UnsafePattern
from catena.formats.pcrpolicy import BadPcrPolicy, WeakPcrPolicy, is_pcr_policy, parse

SHA1, SHA256, SHA384 = "0a" * 20, "AB" * 32, "cd" * 48


def document(table) -> bytes:
    return json.dumps(table).encode()


def binary(*values, prefix="grub_module"):
    return {"binaryvalues": [{"prefix": prefix, "values": [{"value": one} for one in values]}]}


def ascii_(*values, prefix="grub_cmd"):
    entries = [{"value": one, "description": "Flatcar Grub configuration 1"} for one in values]
    return {"asciivalues": [{"prefix": prefix, "values": entries}]}


LOADER = document({"4": binary(SHA256, prefix=""), "9": binary(SHA384)})
COMMANDS = document({"8": ascii_("set .+", r"^\[.*\]$")})


def packed(files, **options) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return target.getvalue()


ZIP = packed([("grub_loader.config", LOADER), ("grub_commands.config", COMMANDS)])


def test_a_policy_becomes_one_rule_for_each_value():
    rules = parse(document({"9": binary(SHA256, SHA384), "8": ascii_("set .+")})).rules
    assert [(one.id, one.pcr, one.kind, one.prefix, one.value) for one in rules] == [
        ("9.binary.0", 9, "binary", "grub_module", SHA256.lower()),
        ("9.binary.1", 9, "binary", "grub_module", SHA384),
        ("8.ascii.0", 8, "ascii", "grub_cmd", "set .+"),
    ]
    assert rules[2].what == "Flatcar Grub configuration 1"


def test_a_raw_value_is_read():
    (rule,) = parse(document({"4": {"rawvalues": [{"value": SHA256}]}})).rules
    assert (rule.kind, rule.value) == ("raw", SHA256.lower())


def test_every_pattern_that_had_to_be_anchored_is_a_warning():
    policy = parse(COMMANDS)
    assert [one.value for one in policy.rules] == ["set .+", r"\[.*\]"]
    assert policy.warnings == ("8.ascii.0 now has to match the whole text: set .+",)


def test_sha1_values_are_left_out_with_a_warning():
    policy = parse(document({"9": binary(SHA1, SHA256)}))
    assert [one.id for one in policy.rules] == ["9.binary.1"]
    assert policy.warnings == (f"9.binary.0 is left out: SHA-1 is never quoted: {SHA1}",)


@pytest.mark.parametrize("table", [{}, {"8": {}}, {"9": binary(SHA1)}])
def test_a_policy_of_which_nothing_is_left_is_refused(table):
    with pytest.raises(WeakPcrPolicy) as refused:
        parse(document(table))
    assert refused.value.code == "pcr-policy-weak"


def test_the_files_of_a_zip_are_one_policy():
    assert {one.id for one in parse(ZIP).rules} == {
        "4.binary.0",
        "9.binary.0",
        "8.ascii.0",
        "8.ascii.1",
    }
    twice = packed([("a.config", LOADER), ("b.config", LOADER)])
    assert len({one.id for one in parse(twice).rules}) == 4


@pytest.mark.parametrize(
    "wire",
    [
        b"", b"[]", b"{", b'{"8":{}} x', b'{"8":{"other":[]}}', b'{"24":{}}', b'{"08":{}}', b'{"-1":{}}',
        document({"8": ascii_("a") | {"extra": 1}}),
        document({"9": binary("ab" * 31)}),
        document({"9": binary("zz" * 32)}),
        document({"9": binary("")}),
        document({"8": ascii_("a", prefix="p" * 65)}),
        document({"8": ascii_("a", prefix="p\x1b[0m")}),
        document({"9": binary(*[SHA256] * 4097)}),
        document({"8": ascii_(*["a"] * 257)}),
        b'{"8":{}' + b" " * pcrpolicy.MAX_FILE + b"}",
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(wire):
    with pytest.raises(BadPcrPolicy) as refused:
        parse(wire)
    assert refused.value.code == "pcr-policy-malformed"


@pytest.mark.parametrize("name", ["../x.config", "/x.config", "pcrs/x.config", "x.sh", "a b.json", "é.json"])  # fmt: skip
def test_a_zip_holds_nothing_but_policies(name):
    with pytest.raises(BadPcrPolicy):
        parse(packed([(name, LOADER)]))


def test_a_zip_that_unpacks_to_too_much_is_refused():
    filler = LOADER + b" " * (pcrpolicy.MAX_FILE - len(LOADER))
    bomb = packed([(f"{number}.config", filler) for number in range(5)])
    assert len(bomb) < 20_000
    for wire in (
        bomb,
        packed([("a.config", filler + b" ")]),
        packed([(f"{number}.config", LOADER) for number in range(65)]),
    ):
        with pytest.raises(BadPcrPolicy):
            parse(wire)


def test_a_zip_whose_directory_lies_about_a_size_is_refused():
    size = len(COMMANDS).to_bytes(4, "little")
    stored = packed([("a.config", COMMANDS)])
    with pytest.raises(BadPcrPolicy):
        parse(stored[:30] + stored[30:].replace(size, (len(COMMANDS) - 1).to_bytes(4, "little")))


def test_two_files_of_one_name_are_refused():
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = packed([("a.config", LOADER), ("a.config", COMMANDS)])
    with pytest.raises(BadPcrPolicy):
        parse(twice)


def test_a_hazardous_pattern_is_refused_with_its_own_code():
    with pytest.raises(UnsafePattern):
        parse(document({"8": ascii_(r"(a)\1")}))


@pytest.mark.parametrize("wire", [LOADER, COMMANDS, ZIP], ids=["binary", "ascii", "zip"])
def test_damage_raises_nothing_but_format_errors(wire):
    for end in range(len(wire)):
        with pytest.raises(FormatError):
            parse(wire[:end])
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(wire, 3))


@given(st.binary(max_size=200))
def test_no_bytes_fail_otherwise(data):
    assert refuses_cleanly(parse, data)
    assert refuses_cleanly(parse, pcrpolicy.ZIP_MAGIC + data)


def test_policies_are_told_from_signed_documents():
    assert is_pcr_policy(ZIP)
    assert is_pcr_policy(b' \n{ "8" : {}}')
    assert not is_pcr_policy(b'{"payload":"","payloadType":"","signatures":[]}')
    assert not is_pcr_policy(b"{}")
