"""Positions in TOML: each place found is where the key or value really stands."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.server.tomlplace import Place, find, syntax_fault, with_element, with_string

TEXT = '''\
# settings
listen = "127.0.0.1:8440"
names = [ "a", 'b#]',   # a comment with ] and "
  """c
"d""",
]
  "quoted.key"  =  7
when = 1979-05-27 07:32:00Z
a.b = 1
many = [[1, 2], {x = [3], y = "}"}, -1.5e3]
empty = []
text = \'\'\'it's
= here\'\'\'
last = true
[table]
listen = 5
[["an array"]]
names = [1]
'''


def test_keys_values_and_elements_are_found_where_they_stand():
    tomllib.loads(TEXT)
    found = find(TEXT)
    assert list(found) == [
        *("listen", "names", "quoted.key", "when", "a", "many", "empty", "text", "last"),
        *("table", "an array"),
    ]
    assert found["listen"].key == Place(2, 1)
    assert found["listen"].value == Place(2, 10)
    assert found["names"].elements == (Place(3, 11), Place(3, 16), Place(4, 3))
    assert found["quoted.key"].key == Place(7, 3)
    assert found["quoted.key"].value == Place(7, 20)
    assert found["many"].elements == (Place(10, 9), Place(10, 17), Place(10, 37))
    assert found["empty"].elements == ()
    assert found["text"].value == Place(12, 8)
    assert found["last"].key == Place(14, 1)
    assert found["table"].key == Place(15, 1)
    assert str(found["an array"].key) == "17:1"


@pytest.mark.parametrize(
    "text", ["", "# only", "\n\n", "a=1", "a = '''''x'''", 'a = """\\""" """', "a = 1 # x", "[t]"]
)
def test_short_texts(text):
    assert list(find(text)) == list(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = 1\nb = = 2\n", Place(2, 5)), ("a = [1,\n", Place(2, 1)), ('a = "', Place(1, 6))],
)
def test_a_syntax_fault_has_its_place(text, place):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    message, found = syntax_fault(text, caught.value)
    assert found == place
    assert message
    assert "line" not in message


_scalars = st.one_of(
    st.integers(0, 9).map(str),
    st.sampled_from(["true", "1.5", "1979-05-27T07:32:00Z", "07:32:00", '""', "''", "{}", "[]"]),
    st.text("ab =#[]{},'\n\t", max_size=8).map(lambda text: '"""' + text + 'x"""'),
    st.text('ab =#[]{},"', max_size=8).map(lambda text: f"'{text}'"),
)
_arrays = st.lists(_scalars, max_size=4).map(lambda items: "[\n " + " ,# , ]\n".join(items) + "]")


@given(st.lists(st.one_of(_scalars, _arrays), max_size=6), st.sampled_from(["", "  ", "# x\n\n"]))
def test_every_value_begins_where_it_is_said_to(values, gap):
    text = "".join(f"{gap}k{number} = {value} # c\n" for number, value in enumerate(values))
    parsed = tomllib.loads(text)
    lines = text.split("\n")
    found = find(text)
    assert list(found) == list(parsed)
    for (name, setting), value in zip(found.items(), values, strict=True):
        line = lines[setting.key.line - 1]
        assert line[setting.key.column - 1 :].startswith(f"{name} = ")
        at = lines[setting.value.line - 1][setting.value.column - 1 :]
        assert at.startswith(value.split("\n", maxsplit=1)[0])
        if isinstance(parsed[name], list):
            assert len(setting.elements) == len(parsed[name])


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ('a = 1\nlog = "x" # why\n', 'a = 1\nlog = "é\\"new" # why\n'),
        ("log = '''\nx\ny'''\n[table]\nlog = 2\n", 'log = "é\\"new"\n[table]\nlog = 2\n'),
        ("# head\na = 1\n", '# head\nlog = "é\\"new"\na = 1\n'),
        ("", 'log = "é\\"new"\n'),
        ('"log" = "x"', '"log" = "é\\"new"'),
        ("log = 1\n", "log = 1\n"),
    ],
)
def test_a_string_takes_the_place_of_another(text, changed):
    assert with_string(text, "log", 'é"new') == changed
    if text != changed:
        assert tomllib.loads(changed)["log"] == 'é"new'


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("a = 1\n", 'more = ["new"]\na = 1\n'),
        ("more = []\n", 'more = ["new"]\n'),
        ("more = [ 'x',\n]  # y\n[t]\n", "more = [\"new\",  'x',\n]  # y\n[t]\n"),
    ],
)
def test_an_array_gets_one_more_string(text, changed):
    assert with_element(text, "more", "new") == changed
    assert tomllib.loads(changed)["more"][0] == "new"
