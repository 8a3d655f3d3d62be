from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.formats.pattern import MAX_STATES, Pattern, UnsafePattern, anchor, compile_pattern

_ATOMS = st.sampled_from(["a", "b", ".", r"\S", r"\d", "[ab]", "[^a]", r"\.", "[a-c0]"])
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@given(_PATTERNS, st.text("ab0. c", max_size=8))
def test_patterns_mean_what_they_mean_elsewhere(source, text):
    expected = re.fullmatch(source, text, re.ASCII) is not None
    assert Pattern(source).matches(text) is expected


@pytest.mark.parametrize(
    ("source", "accepted", "refused"),
    [
        (r"\[.*\]", "[ -f /boot/first ]", "[ -f x"),
        ("set .+", "set root=hd0", "reset x"),
        (r"menuentry Flatcar \S+ --id=flatcar\S* {", "menuentry Flatcar b --id=flatcar {", ""),
        (r"mount.usr=PARTUUID=\S{36}", "mount.usr=PARTUUID=" + "a" * 36, "mount.usr=PARTUUID=a"),
        (r"ro (console=\S+)? x", "ro console=tty0 x", "ro console=tty0 x init=/bin/sh"),
        ("^insmod all_video$", "insmod all_video", "insmod all_video; x"),
        (r"[]a-]", "-", "b"),
        (r"[^\]]", "a", "]"),
        (r"[\d.-]+", "1.2-3", "1a"),
        ("(a*)*", "aaa", "aab"),
        (r"cost\$", "cost$", "cost"),
        (r"menuentry x {\n\tfwsetup\n}", "menuentry x {\n\tfwsetup\n}", "menuentry x { fwsetup }"),
        ("a||b", "", "c"),
        ("x{,2}", "x{,2}", "xx"),
    ],
)
def test_a_pattern_matches_the_whole_text_or_not_at_all(source, accepted, refused):
    pattern = Pattern(source)
    assert pattern.matches(accepted)
    assert not pattern.matches(refused)
    assert not pattern.matches(f"{accepted}\n")


@pytest.mark.parametrize(
    "source",
    [
        r"(a)\1", "(?=a)", "(?!a)", "(?<=a)b", "(?P<n>a)", "(?i)a", r"\bword", r"\Aa", r"\p{L}", "a^b",
        "a$b", "*a", "a**", "a+*", "(a", "a)", "[a", "[]", "a\\", "[b-a]", r"[\d-z]", "a{3,2}",
        "a{999}", "(" * 20 + ")" * 20, "(a{200}){200}", "a" * 1025, "caf\u00e9", "a\nb",
    ],
)  # fmt: skip
def test_what_is_outside_the_subset_is_refused(source):
    with pytest.raises(UnsafePattern) as refused:
        compile_pattern(source)
    assert refused.value.code == "pcr-policy-pattern"


@pytest.mark.parametrize(
    "source", ["(a*)*b", "(a|a)*b", "(a|b)*a(a|b){80}c", "(a?){60}a{60}b", "(.*)*(.*)*(.*)*x"]
)
def test_a_pattern_that_would_backtrack_for_years_answers_at_once(source):
    pattern, before = Pattern(source), time.process_time()
    assert not pattern.matches("a" * 4096)
    assert time.process_time() - before < 20


def test_what_a_text_teaches_a_pattern_is_bounded():
    pattern = Pattern("(a|b)*a(a|b){100}")
    letters = random.Random(1)
    text = "".join(letters.choice("ab") for _ in range(2000)) + "a" * 101
    assert pattern.matches(text)
    assert pattern.matches(text)
    assert not pattern.matches(text + "c")
    held = sum(len(states) + len(after) for (states, _), after in pattern._memo.items())
    assert held < 20_000


def test_an_automaton_is_bounded_before_it_is_built():
    with pytest.raises(UnsafePattern):
        Pattern("((a{250}){250}){250}")
    assert Pattern("a" * (MAX_STATES - 1)).matches("a" * (MAX_STATES - 1))


@pytest.mark.parametrize(
    ("source", "inner", "changed"),
    [
        ("^a$", "a", False),
        ("a$", "a", True),
        ("^a", "a", True),
        ("a", "a", True),
        (r"^a\$", r"a\$", True),
        (r"^a\\$", r"a\\", False),
        ("^a|b$", "a|b", True),
    ],
)
def test_only_what_both_anchors_held_before_is_unchanged(source, inner, changed):
    anchored = anchor(source)
    assert (anchored.source, anchored.changed) == (inner, changed)


def test_text_that_is_not_ascii_matches_nothing():
    assert not Pattern(".*").matches("caf\u00e9")


def offset_of_fault(source: str) -> int:
    try:
        Pattern(source)
    except UnsafePattern as error:
        return error.offset
    return 0


@given(st.text(max_size=40))
def test_no_text_is_a_pattern_that_fails_otherwise(source):
    assert 0 <= offset_of_fault(source) <= len(source)
