"""Rates: what an address and a node may do, in a memory that has an end."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.server import ratelimit
from catena.server.config import load
from catena.server.faults import RateLimited
from catena.server.ratelimit import Buckets, Rate, address_key
from server.conftest import *  # noqa: F403 - fixtures
from server.live import *  # noqa: F403 - fixtures
from service.machine import Call
from swtpm import needs_swtpm


class Ticks:
    time = 0.0

    def __call__(self):
        return self.time


def test_a_burst_then_a_rate():
    clock = Ticks()
    buckets = Buckets(Rate(2, 3), clock)
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(RateLimited) as caught:
        buckets.take("a")
    assert caught.value.retry_after == 1
    buckets.take("b")  # somebody else has a bucket of their own
    clock.time = 0.5
    buckets.take("a")
    with pytest.raises(RateLimited):
        buckets.take("a")
    clock.time = 1000
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(RateLimited):
        buckets.take("a")


def test_a_slow_rate_says_how_long():
    clock = Ticks()
    buckets = Buckets(Rate(1 / 60, 1), clock)
    buckets.take("a")
    clock.time = 10
    with pytest.raises(RateLimited) as caught:
        buckets.require("a")
    assert caught.value.retry_after == 50


def test_a_refusal_takes_nothing_and_a_clock_that_goes_back_gives_nothing():
    clock = Ticks()
    buckets = Buckets(Rate(1, 1), clock)
    buckets.take("a")
    for _ in range(10):
        with pytest.raises(RateLimited):
            buckets.take("a")
    clock.time = -1000
    with pytest.raises(RateLimited):
        buckets.take("a")
    clock.time = 1
    buckets.take("a")


def test_memory_has_an_end_and_the_longest_unused_goes_first():
    buckets = Buckets(Rate(1, 1), Ticks(), most=100)
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 100
    with pytest.raises(RateLimited):
        buckets.take("999")
    buckets.take("0")


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate_allow(pauses):
    clock = Ticks()
    buckets = Buckets(Rate(0.7, 5), clock)
    let_through = 0
    for pause in pauses:
        clock.time += pause
        try:
            buckets.take("a")
        except RateLimited as error:
            again = Ticks()
            again.time = clock.time + error.retry_after
            buckets._clock, kept = again, buckets._clock
            buckets.require("a")  # who waits as long as it was told is let through
            buckets._clock = kept
        else:
            let_through += 1
    assert let_through <= math.ceil(5 + 0.7 * clock.time + 1e-6)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_whose_an_address_is(one, other, same):
    assert (address_key(one) == address_key(other)) is same


def test_a_fleet_behind_one_address_is_not_hindered(server):
    """Two requests a minute of each of 100,000 nodes."""
    config = load(server.folder)
    clock = Ticks()
    buckets = ratelimit.of_addresses(config, clock)
    for number in range(200_000):
        clock.time = number * 60 / 200_000
        buckets.take("192.0.2.1")


def test_a_node_may_always_attest_twice_in_an_interval(server):
    import msgspec

    config = msgspec.structs.replace(load(server.folder), interval=1, rate_node=1)
    clock = Ticks()
    buckets = ratelimit.of_nodes(config, clock)
    for second in range(1000):
        clock.time = second / 2
        buckets.take("n")
    assert ratelimit.of_nodes(msgspec.structs.replace(config, rate_node=0), clock) is None
    assert ratelimit.of_addresses(msgspec.structs.replace(config, rate_address=0), clock) is None


@pytest.mark.parametrize("running", [{"rate_address": 1}], indirect=True)
def test_an_address_that_asks_too_often_is_told_when_to_come_again(running):
    with running.http() as http:
        answers = [http.get("/v1/admin/nodes") for _ in range(8)]
        assert [one.status_code for one in answers] == [401] * 5 + [429] * 3
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json()["code"] == "rate-limited"
        for path in ("/healthz", "/readyz"):
            assert http.get(path).status_code == 200
    running.process.terminate()
    _, errors = running.process.communicate()
    codes = [json.loads(line).get("code") for line in errors.splitlines()]
    assert codes.count("rate-limited") == 3


@needs_swtpm
@pytest.mark.tpm
def test_a_node_that_attests_too_often_waits_and_nobody_can_make_it_wait(
    trusting_running, machine, monkeypatch
):
    with trusting_running.http() as http:
        call: Call = trusting_running.call(http)
        machine.enrol(call)
        forged = {"node_id": machine.node_id}
        for _ in range(ratelimit.NODE_BURST + 5):  # whoever only names it
            assert http.post("/v1/attest", json=forged).status_code == 400
        for _ in range(ratelimit.NODE_BURST):
            machine.attest(call)
        with pytest.raises(AssertionError, match="rate-limited"):
            machine.attest(call)
