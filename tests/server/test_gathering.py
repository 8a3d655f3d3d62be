from __future__ import annotations

import asyncio
import threading

import pytest
from anyio import CapacityLimiter

from catena.server.faults import Busy
from catena.server.gathering import Gathering


class Desk:
    """Decides numbers in a thread, one group at a time, when it is let."""

    def __init__(self) -> None:
        self.groups: list[tuple[int, ...]] = []
        self.let = threading.Event()
        self.begun = threading.Event()

    def decide(self, numbers):
        self.groups.append(tuple(numbers))
        self.begun.set()
        assert self.let.wait(20)
        return [ValueError(number) if number < 0 else number * 10 for number in numbers]


async def while_one_is_decided(desk: Desk, gathering, *others: int) -> list:
    """Outcomes of a first request and of others that arrive before it is decided."""
    first = asyncio.create_task(gathering(1))
    await asyncio.to_thread(desk.begun.wait, 20)
    waiting = [asyncio.create_task(gathering(number)) for number in others]
    await asyncio.sleep(0)
    desk.let.set()
    return await asyncio.gather(first, *waiting, return_exceptions=True)


@pytest.fixture
def desk():
    return Desk()


def test_what_arrives_meanwhile_is_decided_together(desk):
    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4))
        return await while_one_is_decided(desk, gathering, 2, 3, 4)

    assert asyncio.run(main()) == [10, 20, 30, 40]
    assert desk.groups == [(1,), (2, 3, 4)]


def test_an_error_is_told_to_whom_it_concerns(desk):
    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4))
        return await while_one_is_decided(desk, gathering, 2, -3, 4)

    found = asyncio.run(main())
    assert [one for one in found if not isinstance(one, Exception)] == [10, 20, 40]
    assert isinstance(found[2], ValueError)


def test_no_group_is_larger_than_allowed(desk):
    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4), most=2)
        return await while_one_is_decided(desk, gathering, 2, 3, 4, 5, 6)

    assert asyncio.run(main()) == [10, 20, 30, 40, 50, 60]
    assert max(map(len, desk.groups)) == 2


def test_a_defect_of_the_whole_group_is_told_to_all(desk):
    def broken(numbers):
        if len(numbers) > 1:
            raise ZeroDivisionError
        return desk.decide(numbers)

    async def main():
        gathering = Gathering(broken, CapacityLimiter(4))
        found = await while_one_is_decided(desk, gathering, 2, 3)
        return found, await gathering(7)

    found, after = asyncio.run(main())
    assert found[0] == 10
    assert all(isinstance(one, ZeroDivisionError) for one in found[1:])
    assert after == 70


def test_who_waits_too_long_is_told_to_come_again_and_not_decided_about(desk):
    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4), patience=0.05)
        first = asyncio.create_task(gathering(1))
        await asyncio.to_thread(desk.begun.wait, 20)
        with pytest.raises(Busy):
            await gathering(2)
        desk.let.set()  # the first has waited longer, but it had begun
        return await first, await gathering(3)

    assert asyncio.run(main()) == (10, 30)
    assert desk.groups == [(1,), (3,)]


def test_who_arrives_when_the_last_group_has_just_ended_is_decided(desk):
    """The next request comes in the very step in which the answer to the one before arrived."""

    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4))
        desk.let.set()
        async with asyncio.timeout(20):
            return [await gathering(number) for number in range(5)]

    assert asyncio.run(main()) == [0, 10, 20, 30, 40]


def test_waiting_for_a_worker_counts_and_nobody_begins_who_gave_up(desk):
    async def main():
        workers = CapacityLimiter(1)
        gathering = Gathering(desk.decide, workers, patience=0.05)
        desk.let.set()
        async with workers:
            with pytest.raises(Busy):
                await gathering(1)
        return await gathering(2)

    assert asyncio.run(main()) == 20
    assert desk.groups == [(2,)]


def test_whoever_has_gone_is_not_decided_about_and_keeps_nobody_waiting(desk):
    async def main():
        gathering = Gathering(desk.decide, CapacityLimiter(4))
        first = asyncio.create_task(gathering(1))
        await asyncio.to_thread(desk.begun.wait, 20)
        gone, stays = asyncio.create_task(gathering(2)), asyncio.create_task(gathering(3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        desk.let.set()
        return await asyncio.gather(first, stays)

    assert asyncio.run(main()) == [10, 30]
    assert desk.groups == [(1,), (3,)]
