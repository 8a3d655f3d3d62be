from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import inventory
from catena.formats.inventory import BadInventory, Machine

EK = "ab" * 32
LIST = f'name,role,site,channel,ek_sha256,ek_serial,ek_issuer\n\
web-1,web,berlin,stable,{EK},,\n\
db-1,db,,,,4f2a,"CN=Acme TPM CA,O=Acme"\n'
MACHINES = (
    Machine(name="web-1", role="web", site="berlin", channel="stable", ek_sha256=EK),
    Machine(name="db-1", role="db", ek_serial="4f2a", ek_issuer="CN=Acme TPM CA,O=Acme"),
)


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(BadInventory) as caught:
        inventory.parse(text.encode())
    return caught.value.faults


def test_csv_and_json_say_the_same():
    assert inventory.parse(LIST.encode()) == MACHINES
    assert inventory.parse(b"\xef\xbb\xbf" + LIST.replace("\n", "\r\n").encode()) == MACHINES
    again = inventory.parse(inventory.encode(MACHINES))
    assert again == tuple(sorted(MACHINES, key=lambda one: one.name))


def test_a_list_has_one_digest_whatever_its_order():
    assert inventory.encode(MACHINES) == inventory.encode(MACHINES[::-1])


def test_every_bad_line_is_told_with_its_number():
    text = f"name,role,ek_sha256\nWEB,web,{EK}\nok,web,{'cd' * 32}\nx,web\ny,web,12\n\nok,web,{'ef' * 32}\n"
    told = faults(text)
    assert [one.partition(":")[0] for one in told] == ["line 2", "line 4", "line 5", "line 7"]
    assert "name of line 3" in told[-1]


def test_machines_of_a_json_list_are_counted():
    rows = [{"name": "a", "role": "web", "ek_sha256": EK}, {"name": "b", "role": "web", "x": 1}]
    (told,) = faults(json.dumps(rows))
    assert told.startswith("machine 2: ")


@pytest.mark.parametrize(
    "line",
    [
        "a,web,,,",
        f"a,web,{EK},1f,CN=x",
        "a,web,,1f,",
        "a,web,,,CN=x",
        "a,web,,0f,CN=x",
        "a,web,,1F,CN=x",
        f"a,,{EK},,",
        f",web,{EK},,",
        f"a.b,web,{EK},,",
        f"a,web,{EK.upper()},,",
    ],
)
def test_a_line_that_does_not_name_one_tpm_and_one_machine_is_refused(line):
    assert len(faults(f"name,role,ek_sha256,ek_serial,ek_issuer\n{line}\n")) == 1


def test_a_tpm_is_on_one_line_only():
    text = f"name,role,ek_sha256\na,web,{EK}\nb,web,{EK}\n"
    assert faults(text) == ("line 3: the TPM of line 2 once more",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name,role,ek_sha256\n",
        "name,role,ek_sha256,colour\n",
        "name,name,role\n",
        "name,ek_sha256\n",
        f'name,role,ek_sha256\n"a,web,{EK}\n',
        "name,role\0\n",
        "[]",
        "[1]",
        '[{"name": "a", "name": "b"}]',
        '[{"name": "a"}',
    ],
)
def test_what_is_no_list_is_malformed(text):
    with pytest.raises(FormatError):
        inventory.parse(text.encode())


def test_lists_are_bounded(monkeypatch):
    monkeypatch.setattr(inventory, "MAX_MACHINES", 1)
    with pytest.raises(FormatError, match="too long"):
        inventory.parse(LIST.encode())
    monkeypatch.setattr(inventory, "MAX_LIST", 10)
    with pytest.raises(FormatError, match="too large"):
        inventory.parse(LIST.encode())


def test_a_thousand_bad_lines_are_counted_and_some_are_told():
    text = "name,role,ek_sha256\n" + "X,web,1\n" * 1000
    with pytest.raises(BadInventory) as caught:
        inventory.parse(text.encode())
    assert len(caught.value.faults) == 1000
    assert str(caught.value).startswith("1000 lines")
    assert "and 970 more" in str(caught.value)


def test_what_a_list_says_reaches_no_terminal():
    told = faults(f"name,role,ek_sha256\n\x1b[31m,web,{EK}\n")
    assert "\x1b" not in "".join(told)
    with pytest.raises(FormatError) as caught:
        inventory.parse(b"name,role,\x1b[31m\n")
    assert "\x1b" not in str(caught.value)


def test_every_truncation_is_a_list_or_malformed():
    content = LIST.encode()
    for end in range(len(content)):
        try:
            inventory.parse(content[:end])
        except FormatError:
            continue


@given(st.binary(max_size=200))
def test_anything_is_a_list_or_malformed(content):
    try:
        inventory.parse(b"name,role,ek_sha256\n" + content)
        inventory.parse(b"[" + content)
    except FormatError:
        return
