"""Child processes: what crashes, hangs or eats memory costs its own file and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from kaleidoscope.kernel.errors import Unavailable, UnreadableMedia
from kaleidoscope.ml.pool import Crashed, Pool, TookTooLong, WorkFailed

HERE = str(Path(__file__).parent)
Make = Callable[..., Pool]
Doubling = Callable[[list[int]], Awaitable[list[Any]]]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes pools that run `tasks.do`, and closes them."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    made: list[Pool] = []

    def pool(**options: object) -> Pool:
        made.append(Pool("tasks:do", **{"size": 1, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield pool
    for one in made:
        await one.close()


async def test_answers_come_to_whom_they_belong(make: Make) -> None:
    pool = make(size=2)
    values = [{"n": n, "text": "ä" * n * 1000} for n in range(20)]
    tasks = [pool.run({"do": "echo", "value": value}, name="x") for value in values]
    assert await asyncio.gather(*tasks) == values


async def test_work_in_the_background_steps_back(make: Make) -> None:
    here = await make().run({"do": "niceness"}, name="x")
    there = await make(background=True).run({"do": "niceness"}, name="x")
    assert here == os.nice(0) < there


async def test_tasks_run_side_by_side(make: Make) -> None:
    pool = make(size=2)
    tasks = [pool.run({"do": "pid", "seconds": 0.3}, name="x") for _ in range(2)]
    assert len(set(await asyncio.gather(*tasks))) == 2


async def test_an_error_keeps_its_kind_and_fields(make: Make) -> None:
    with pytest.raises(UnreadableMedia, match=r"a\.jpg: is damaged") as caught:
        await make().run({"do": "refuse"}, name="a.jpg")
    assert caught.value.fields == {"path": "a.jpg", "reason": "damaged"}


async def test_an_unforeseen_error_names_the_file(make: Make) -> None:
    with pytest.raises(WorkFailed, match=r"a\.jpg: ZeroDivisionError: by accident"):
        await make().run({"do": "stumble"}, name="a.jpg")


async def test_a_file_that_kills_is_tried_once_more_and_fails(make: Make) -> None:
    pool = make()
    with pytest.raises(Crashed, match=r"a\.jpg: decoder crashed \(signal 11, SIGSEGV\)"):
        await pool.run({"do": "crash"}, name="a.jpg")
    assert pool.crashes == 2
    assert await pool.run({"do": "echo", "value": 1}, name="b.jpg") == 1


async def test_a_child_killed_once_costs_nothing(make: Make, tmp_path: Path) -> None:
    task = {"do": "crash", "once": str(tmp_path / "marker")}
    assert await make().run(task, name="a.jpg") == "fine now"


async def test_a_child_that_died_idle_is_replaced(make: Make) -> None:
    pool = make()
    for _ in range(3):
        child = await pool.run({"do": "pid"}, name="x")
        os.kill(child, signal.SIGKILL)
        assert await pool.run({"do": "pid"}, name="x") != child


async def test_what_takes_too_long_is_ended(make: Make) -> None:
    pool = make(seconds=0.5)
    with pytest.raises(TookTooLong, match=r"a\.jpg: took longer than 0\.5 s"):
        await pool.run({"do": "pid", "seconds": 60}, name="a.jpg")
    assert await pool.run({"do": "echo", "value": 1}, name="b.jpg") == 1


async def test_memory_is_limited(make: Make) -> None:
    pool = make(memory=512)
    with pytest.raises(WorkFailed, match="MemoryError"):
        await pool.run({"do": "hog", "megabytes": 2000}, name="a.jpg")
    assert await pool.run({"do": "hog", "megabytes": 100}, name="b.jpg") == 100 << 20


async def test_nobody_gets_the_answer_of_a_task_given_up(make: Make) -> None:
    pool = make()
    await pool.warm()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await pool.run({"do": "pid", "seconds": 1}, name="x")
    assert await pool.run({"do": "echo", "value": "mine"}, name="x") == "mine"


@pytest.fixture
async def doubling(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Doubling]:
    """Doubles numbers, up to four together, in one child; what each came to."""
    monkeypatch.setenv("LOTS", str(tmp_path / "lots"))
    async with Pool("tasks:double", size=1, seconds=0.5, together=4) as pool:
        await pool.warm()

        async def run(numbers: list[int]) -> list[Any]:
            asked = [pool.run(number, name=f"{number}.jpg") for number in numbers]
            return await asyncio.gather(*asked, return_exceptions=True)

        yield run


def lots(folder: Path) -> list[int]:
    return [int(number) for number in (folder / "lots").read_text().split()]


async def test_what_waits_is_done_together(doubling: Doubling, tmp_path: Path) -> None:
    assert await doubling(list(range(10))) == list(range(0, 20, 2))
    assert lots(tmp_path) == [1, 4, 4, 1]
    one, bad, other = await doubling([1, 13, 2])
    assert (one, other) == (2, 4)
    assert isinstance(bad, WorkFailed)
    assert "13.jpg: ValueError: unlucky" in bad.message


@pytest.mark.parametrize(("culprit", "error"), [(666, Crashed), (3600, TookTooLong)])
async def test_a_bad_one_among_many_is_found_out(
    doubling: Doubling, tmp_path: Path, culprit: int, error: type[Exception]
) -> None:
    first, one, bad, *others = await doubling([1, 2, culprit, 3, 4])
    assert [first, one, *others] == [2, 4, 6, 8]
    assert isinstance(bad, error)
    assert f"{culprit}.jpg" in str(bad)
    assert lots(tmp_path)[:4] == [1, 4, 1, 1]


async def test_who_spoils_it_for_all_is_done_alone(doubling: Doubling, tmp_path: Path) -> None:
    assert await doubling([1, 77, 2, 3, 4]) == [2, 154, 4, 6, 8]
    assert lots(tmp_path) == [1, 4, 1, 1, 1, 1]


async def test_nobody_waits_for_ever_when_asking_goes_wrong(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(together=4)
    await pool.warm()
    (child,) = pool._children
    ask = child.ask

    async def confused(tasks: list[Any]) -> list[dict[str, Any]]:
        return (await ask(tasks))[1:] if len(tasks) > 1 else await ask(tasks)

    monkeypatch.setattr(child, "ask", confused)
    asked = [pool.run({"do": "echo", "value": n}, name="x") for n in range(5)]
    async with asyncio.timeout(30):
        assert await asyncio.gather(*asked) == list(range(5))


async def test_closing_while_children_start_leaves_none(make: Make) -> None:
    pool = make(size=2)
    task = asyncio.create_task(pool.run({"do": "pid", "seconds": 60}, name="x"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        await pool.close()
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable):
        await pool.run({"do": "pid"}, name="x")
    await _until(lambda: not any(_alive(p) and _works_for_us(p) for p in _children()))


async def test_what_is_urgent_goes_before_what_waits(make: Make) -> None:
    pool, order = make(), []

    async def run(name: str, **options: bool) -> None:
        await pool.run({"do": "pid", "seconds": 0.1}, name=name, **options)
        order.append(name)

    await asyncio.gather(run("a"), run("b"), run("c"), run("urgent", first=True))
    assert order == ["a", "urgent", "b", "c"]


async def test_a_child_whose_task_is_given_up_is_free_at_once(make: Make) -> None:
    pool = make()
    busy = await pool.run({"do": "pid"}, name="x")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await pool.run({"do": "pid", "seconds": 50}, name="x")
    async with asyncio.timeout(30):
        assert await pool.run({"do": "pid"}, name="x") != busy
    assert pool.crashes == 0


async def test_closing_ends_tasks_and_children(make: Make) -> None:
    pool = make()
    child = await pool.run({"do": "pid"}, name="x")
    task = asyncio.create_task(pool.run({"do": "pid", "seconds": 60}, name="x"))
    await asyncio.sleep(0.1)
    await pool.close()
    with pytest.raises(Unavailable):
        await task
    assert not psutil.pid_exists(child)


async def test_work_that_cannot_be_imported_is_told() -> None:
    async with Pool("no_such_module:work", size=1) as pool:
        with pytest.raises(Unavailable, match="no_such_module"):
            await pool.run({}, name="x")


async def test_an_idle_child_is_told_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "idle"
    monkeypatch.setenv("IDLE_MARKER", str(marker))
    await make(idle_seconds=0.1).run({"do": "echo", "value": 1}, name="x")
    await _until(marker.exists)


async def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from kaleidoscope.ml.pool import Pool
async def main():
    pool = Pool("tasks:do", size=2)
    await pool.warm()
    tasks = [asyncio.create_task(pool.run({"do": "pid", "seconds": 60}, name="x"))]
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await asyncio.gather(*tasks)
asyncio.run(main())
"""
    env = {**os.environ, "PYTHONPATH": HERE}
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        await asyncio.to_thread(parent.stdout.readline)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) == 2
        parent.kill()
    await _until(lambda: not any(_alive(child) for child in children))


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


def _works_for_us(process: psutil.Process) -> bool:
    """Other tests of this process may have left children of other pools and servers."""
    with suppress(psutil.NoSuchProcess):
        return "tasks:do" in process.cmdline()
    return False


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


async def _until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
