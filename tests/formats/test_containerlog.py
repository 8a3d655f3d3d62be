from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats.containerlog import (
    MAX_EVENT,
    WORD,
    ContainerEvent,
    Create,
    Deny,
    Exec,
    Exit,
    GateStart,
    Launch,
    PolicyInForce,
    abridge,
    encode,
    parse,
    to_record,
)
from catena.ids import HashAlg
from changed import replace
from small_records import LAUNCH, create, deny, execute, gate_start, leave, story

times = st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC))  # noqa: DTZ001
texts = st.text(max_size=40)
hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
banks = st.dictionaries(st.sampled_from(("sha256", "sha384")), hexes, min_size=1)
lists = st.lists(texts, max_size=5).map(tuple)
counts = st.integers(min_value=0, max_value=2**40)
launches = st.builds(
    Launch,
    argv=lists,
    argv_total=counts,
    user=texts,
    env=st.dictionaries(texts, hexes, max_size=5),
    mounts=lists,
    capabilities=lists,
    config=hexes,
)
words = {"container": texts, "image": texts}
decided = {"policy": hexes, "launch": launches}
events = st.one_of(
    st.builds(GateStart, at=times, boot=texts, catena=texts, banks=banks),
    st.builds(PolicyInForce, at=times, policy=hexes, name=texts, version=counts),
    st.builds(
        Create,
        at=times,
        sandbox=texts,
        repository=texts,
        publisher=texts,
        signature=texts,
        root=hexes,
        launch_policy=st.one_of(st.just(""), hexes),
        **words,
        **decided,
    ),
    st.builds(Exec, at=times, **words, **decided),
    st.builds(Deny, at=times, verb=texts, code=texts, message=texts, repository=texts, **words),
    st.builds(Exit, at=times, container=texts),
)


@given(events)
def test_every_event_round_trips(event):
    assert parse(encode(event)) == event


@given(events)
def test_an_event_that_fits_is_not_abridged(event):
    assert abridge(event) is event


@pytest.mark.parametrize("event", story(), ids=lambda event: event.__struct_config__.tag)
def test_damaged_events_are_refused_or_well_formed(event):
    wire = encode(event)
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(wire))
    for size in range(len(wire)):
        with pytest.raises(FormatError):
            parse(wire[:size])


def test_every_kind_has_a_tag_of_its_own():
    tags = {kind.__struct_config__.tag for kind in get_args(ContainerEvent)}
    assert tags == {"gate-start", "policy", "create", "exec", "deny", "exit"}


def changed(event, **fields):
    """The event as JSON, with some members other than they should be."""
    return msgspec.json.encode(msgspec.to_builtins(event) | fields)


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (leave(), {"kind": "start"}),
        (leave(), {"extra": 1}),
        (leave(), {"container": "c" * (WORD + 1)}),
        (leave(), {"container": None}),
        (leave(), {"at": "2026-05-04T12:00:00"}),
        (leave(), {"at": "yesterday"}),
        (gate_start(), {"banks": {}}),
        (gate_start(), {"banks": {"sha256": "XY" * 32}}),
        (gate_start(), {"banks": {"sha256": "00" * 65}}),
        (gate_start(), {"banks": {"b" * 17: "00" * 32}}),
        (gate_start(), {"banks": {str(number): "00" * 32 for number in range(9)}}),
        (create(), {"policy": ""}),
        (create(), {"root": "AB" * 32}),
        (create(), {"launch_policy": "00"}),
        (create(), {"launch": {}}),
        (create(), {"launch": msgspec.to_builtins(LAUNCH) | {"argv_total": -1}}),
        (create(), {"launch": msgspec.to_builtins(LAUNCH) | {"argv": ["a"] * 1025}}),
        (create(), {"launch": msgspec.to_builtins(LAUNCH) | {"env": {"TOKEN": "hunter2"}}}),
    ],
    ids=repr,
)
def test_an_event_that_breaks_a_limit_is_refused(event, fields):
    with pytest.raises(FormatError):
        parse(changed(event, **fields))


def test_an_event_without_a_member_is_refused():
    for event in story():
        for name in msgspec.to_builtins(event):
            rest = {key: one for key, one in msgspec.to_builtins(event).items() if key != name}
            optional = {"sandbox", "launch_policy", "image", "repository", "policy"}
            if name in optional and not isinstance(event, Exec):
                continue
            with pytest.raises(FormatError):
                parse(msgspec.json.encode(rest))


def test_an_event_is_bounded():
    with pytest.raises(FormatError, match="too long"):
        parse(encode(leave()) + b" " * MAX_EVENT)


def test_a_value_in_place_of_a_commitment_is_not_encoded():
    with pytest.raises(FormatError):
        encode(create(launch=replace(LAUNCH, env={"TOKEN": "hunter2"})))


# Abridging ---------------------------------------------------------------------------------

unruly = st.text(st.characters(categories=None), max_size=9000) | st.integers(1, 9000).map(
    lambda size: "\0" * size
)
unruly_lists = st.lists(unruly, max_size=30).map(tuple) | st.integers(0, 9000).map(
    lambda size: ("\1",) * size
)
unruly_launches = st.builds(
    Launch,
    argv=unruly_lists,
    argv_total=st.just(0),
    user=unruly,
    env=st.dictionaries(unruly, hexes, max_size=30),
    mounts=unruly_lists,
    capabilities=unruly_lists,
    config=hexes,
).map(lambda launch: replace(launch, argv_total=len(launch.argv)))


@given(
    st.one_of(
        st.builds(
            create,
            container=unruly,
            sandbox=unruly,
            image=unruly,
            repository=unruly,
            publisher=unruly,
            signature=unruly,
            launch=unruly_launches,
        ),
        st.builds(execute, container=unruly, image=unruly, launch=unruly_launches),
        st.builds(deny, container=unruly, verb=unruly, code=unruly, message=unruly),
        st.builds(leave, container=unruly),
    )
)
def test_any_launch_fits_when_it_is_abridged(event):
    short = abridge(event)
    assert len(encode(short)) <= MAX_EVENT
    if isinstance(short, Create | Exec):
        assert short.launch.argv_total == len(event.launch.argv)
        assert short.launch.config == event.launch.config
        assert short.launch.abridged == (replace(short.launch, abridged=False) != event.launch)


def test_the_worst_launch_fits():
    worst = "\0" * 100_000
    launch = Launch(
        argv=(worst,) * 5000,
        argv_total=5000,
        user=worst,
        env={f"\0{number}" * 1000: "00" * 32 for number in range(5000)},
        mounts=(worst,) * 5000,
        capabilities=(worst,) * 5000,
        config="00" * 32,
    )
    names = ("container", "sandbox", "image", "repository", "publisher", "signature")
    short = abridge(create(launch=launch, **dict.fromkeys(names, worst)))
    assert MAX_EVENT // 2 < len(encode(short)) <= MAX_EVENT
    assert short.launch.abridged
    assert short.launch.argv_total == 5000
    assert all((short.launch.argv, short.launch.env, short.launch.mounts))


def test_what_is_cut_shows_it():
    short = abridge(deny(message="m" * 600, container="c" * WORD))
    assert short.message == "m" * (WORD - 1) + "…"
    assert short.container == "c" * WORD


def test_what_is_no_unicode_is_spelled():
    assert abridge(deny(container="a\udc80")).container == "a\\udc80"


def test_a_long_list_keeps_its_beginning():
    argv = tuple(map(str, range(5000)))
    short = abridge(create(launch=replace(LAUNCH, argv=argv, argv_total=5000))).launch
    assert short.argv == argv[:1024]
    assert (short.argv_total, short.abridged) == (5000, True)
    assert short.env == LAUNCH.env


def test_a_record_has_a_digest_for_each_bank():
    record = to_record(3, b"{}", (HashAlg.SHA1, HashAlg.SHA512), pcr=15, nv_index=None)
    assert record.digests == {
        HashAlg.SHA1: HashAlg.SHA1.digest(b"{}"),
        HashAlg.SHA512: HashAlg.SHA512.digest(b"{}"),
    }
    assert (record.index, record.pcr, record.nv_index) == (3, 15, None)
