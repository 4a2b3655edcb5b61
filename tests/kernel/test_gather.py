"""Calls of one moment, done as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kaleidoscope.kernel.gather import Gathering


async def test_calls_of_one_moment_are_done_as_one() -> None:
    lots: list[list[int]] = []

    async def double(items: Sequence[int]) -> list[int]:
        lots.append(list(items))
        return [2 * item for item in items]

    gathering = Gathering(double)
    assert await asyncio.gather(*[gathering(n) for n in range(3)]) == [0, 2, 4]
    assert await gathering(7) == 14
    assert lots == [[0, 1, 2], [7]]


async def test_a_full_lot_goes_at_once() -> None:
    lots: list[int] = []

    async def count(items: Sequence[int]) -> list[None]:
        lots.append(len(items))
        return [None] * len(items)

    gathering: Gathering[int, None] = Gathering(count, seconds=3600, most=2)
    waiting = [asyncio.create_task(gathering(n)) for n in range(3)]
    await asyncio.gather(*waiting[:2])
    assert lots == [2]
    gathering.now()
    await waiting[2]
    assert lots == [2, 1]


async def test_each_caller_gets_its_own_error() -> None:
    async def divide(items: Sequence[int]) -> list[float | Exception]:
        return [1 / n if n else ZeroDivisionError(n) for n in items]

    gathering = Gathering(divide)
    good, bad = await asyncio.gather(gathering(2), gathering(0), return_exceptions=True)
    assert good == 0.5
    assert isinstance(bad, ZeroDivisionError)


async def test_what_fails_fails_for_all_of_the_lot() -> None:
    async def fail(items: Sequence[int]) -> list[None]:
        raise OSError("away")

    gathering: Gathering[int, None] = Gathering(fail)
    for outcome in await asyncio.gather(gathering(1), gathering(2), return_exceptions=True):
        assert isinstance(outcome, OSError)
    with pytest.raises(OSError, match="away"):
        await gathering(3)


async def test_a_caller_that_is_broken_off_disturbs_nobody() -> None:
    async def same(items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0.01)
        return list(items)

    gathering = Gathering(same)
    one, other = (asyncio.create_task(gathering(n)) for n in (1, 2))
    await asyncio.sleep(0)
    one.cancel()
    assert await other == 2
