"""`foresail.Executor` as `concurrent.futures` has it."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any, Iterator

import pytest

import foresail


@pytest.fixture
def executor(client: foresail.Client) -> Iterator[foresail.Executor]:
    with foresail.Executor(client) as executor:
        yield executor


def test_calls_are_made_and_exceptions_end_their_own_call_alone(executor: foresail.Executor) -> None:
    good = [executor.submit(pow, base, 2) for base in range(5)]
    bad = executor.submit(divmod, 1, 0)
    assert [future.result(60) for future in good] == [0, 1, 4, 9, 16]
    error = bad.exception(60)
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error.__cause__, foresail.RemoteTraceback)


def test_maps_keep_their_order_in_chunks_too(executor: foresail.Executor) -> None:
    assert list(executor.map(pow, range(10), [2] * 10, chunksize=3)) == [n * n for n in range(10)]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)


def test_what_cannot_be_sent_fails_alone(executor: foresail.Executor) -> None:
    good, bad = executor.submit(abs, -1), executor.submit(next, (n for n in [1]))
    assert good.result(60) == 1
    with pytest.raises(TypeError, match="generator"):
        bad.result(60)


def test_a_call_that_ends_its_worker_takes_no_other_with_it(executor: foresail.Executor) -> None:
    def ends() -> None:
        import os

        os._exit(3)

    task = foresail.task(retries=0)(ends)
    good, bad = executor.submit(abs, -2), executor.submit(task)
    assert isinstance(bad.exception(60), foresail.TaskFailed)
    assert good.result(60) == 2


class Wants(Exception):
    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Stubborn:
    """Pickles, and does not come back."""

    def __reduce__(self) -> Any:
        return int, ("none",)


def test_what_goes_wrong_with_one_call_is_its_own(executor: foresail.Executor) -> None:
    def raises(error: BaseException) -> None:
        raise error

    def wants() -> None:
        raise Wants("no", 7)

    good = [executor.submit(abs, -number) for number in range(3)]
    bad = executor.submit(wants)
    interrupted, exits = executor.submit(raises, KeyboardInterrupt()), executor.submit(raises, SystemExit(3))
    lost = executor.submit(Stubborn)
    assert [future.result(60) for future in good] == [0, 1, 2]
    found = bad.exception(60)
    assert isinstance(found, Wants)
    assert found.code == 7
    assert isinstance(interrupted.exception(60), KeyboardInterrupt)
    assert isinstance(exits.exception(60), SystemExit)
    with pytest.raises(ValueError, match="none"):
        lost.result(60)


def waits_for(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return path


def test_results_come_as_calls_end_and_later_calls_wait_for_none(executor: foresail.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    quick, slow = executor.submit(abs, -1), executor.submit(waits_for, str(gate))
    assert quick.result(60) == 1
    later = executor.submit(abs, -2)
    done, not_done = concurrent.futures.wait([slow, later], 60, concurrent.futures.FIRST_COMPLETED)
    assert (done, not_done) == ({later}, {slow})
    gate.touch()
    assert slow.result(60) == str(gate)


def test_an_interrupt_ends_the_runs(client: foresail.Client, tmp_path: Path) -> None:
    executor = foresail.Executor(client)
    quick, slow = executor.submit(abs, -1), executor.submit(waits_for, str(tmp_path / "never"))
    assert quick.result(60) == 1
    executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert isinstance(slow.exception(60), foresail.RunCancelled)


def test_nothing_is_taken_after_the_shutdown(client: foresail.Client) -> None:
    executor = foresail.Executor(client)
    future = executor.submit(abs, -3)
    executor.shutdown()
    assert future.result(0) == 3
    assert not concurrent.futures.wait([future]).not_done
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
