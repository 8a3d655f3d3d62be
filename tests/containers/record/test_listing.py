from __future__ import annotations

import pytest

from catena.containers.record.listing import State, rows
from catena.containers.record.replay import read_record
from small_records import (
    create,
    deny,
    execute,
    gate_start,
    later,
    leave,
    policy,
    record_of,
    value_after,
)


def rows_of(*events):
    return rows(read_record(record_of(gate_start(), policy(), *events)))


def test_creation_and_exit_are_paired():
    web, db = rows_of(create(2, "web"), create(3, "db"), leave(4, "web"))
    assert (web.state, web.started, web.ended) == (State.EXITED, later(2), later(4))
    assert (db.state, db.started, db.ended) == (State.RUNNING, later(3), None)


def test_a_container_of_the_same_name_is_another_one():
    first, second = rows_of(create(2), leave(3), create(4))
    assert (first.state, first.ended) == (State.EXITED, later(3))
    assert (second.state, second.started) == (State.RUNNING, later(4))


def test_a_container_that_was_created_again_is_replaced():
    first, second = rows_of(create(2), create(3))
    assert (first.state, first.ended) == (State.REPLACED, later(3))
    assert second.state == State.RUNNING


def test_commands_belong_to_the_container_that_runs():
    first, second = rows_of(create(2), execute(3), leave(4), create(5), execute(6), execute(7))
    assert (len(first.execs), len(second.execs)) == (1, 2)


def test_a_refusal_says_why_and_when():
    (row,) = rows_of(deny(3, verb="exec", code="argv-refused", message="no such command"))
    assert (row.state, row.started, row.ended) == (State.REFUSED, later(3), None)
    assert (row.verb, row.why) == ("exec", "argv-refused: no such command")


def test_running_containers_go_on_across_gates():
    before = (gate_start(), policy(), create(2))
    again = gate_start(3, value_after(*before))
    (row,) = rows(read_record(record_of(*before, again, policy(4), leave(5))))
    assert (row.state, row.ended) == (State.EXITED, later(5))


@pytest.mark.parametrize(
    ("launch_policy", "words"), [("01" * 32, "its launch policy"), ("", "the default launch")]
)
def test_why_something_ran_names_publisher_policy_and_launch_policy(launch_policy, words):
    (row,) = rows_of(create(launch_policy=launch_policy))
    assert row.why.startswith("signed by acme (cosign), policy site 3, ")
    assert words in row.why
