"""What only the run decides: how wide a fan-out is, which branch is taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, List

import pytest

import foresail


@foresail.task
def listed(n: int) -> List[int]:
    return list(range(n))


@foresail.task
def square(x: int) -> int:
    return x * x


@foresail.task
def total(items: List[int]) -> int:
    return sum(items)


@foresail.task
def marks(folder: str, name: str) -> str:
    """Leaves a mark that it ran."""
    open(os.path.join(folder, name), "w").close()
    return name


@foresail.task
def is_even(n: int) -> int:
    return 1 - n % 2


@pytest.mark.parametrize(("length", "width"), [(10, 4), (2, 4), (0, 3), (5, 1)])
def test_a_fan_out_follows_the_length_of_its_list(client: foresail.Client, length: int, width: int) -> None:
    squares = square.map(listed(length), width=width)
    expect = [n * n for n in range(length)]
    assert foresail.compute(squares, total(squares)) == [expect, sum(expect)]


def test_places_that_the_list_does_not_reach_are_skipped(client: foresail.Client) -> None:
    run = foresail.submit(square.map(listed(2), width=5))
    assert run.result(60) == [0, 1]
    progress = run.progress()
    assert (progress.tasks, progress.done, progress.skipped) == (6, 3, 3)


def test_fan_outs_follow_one_another_and_the_list_is_a_result_too(client: foresail.Client) -> None:
    items = listed(7)
    twice = square.map(square.map(items, width=3))
    assert foresail.compute(items, twice, foresail.gather(twice)) == [
        list(range(7)),
        [n**4 for n in range(7)],
        [n**4 for n in range(7)],
    ]


@pytest.mark.parametrize("number", [4, 5])
def test_only_the_branch_that_is_taken_runs(client: foresail.Client, tmp_path: Path, number: int) -> None:
    folder = str(tmp_path)
    then, otherwise = marks(folder, marks(folder, "even")), marks(folder, "odd")
    chosen = foresail.when(is_even(number), then, otherwise)
    expect = "odd" if number % 2 else "even"
    assert chosen.compute() == expect
    assert os.listdir(folder) == [expect]


def test_branches_nest_and_take_plain_values(client: foresail.Client) -> None:
    def sign(n: int) -> Any:
        inner = foresail.when(is_even(n), {"even": square(n)}, "odd")
        return foresail.when(square(n), inner, 0)

    assert foresail.compute([sign(n) for n in range(4)]) == [0, "odd", {"even": 4}, "odd"]


def test_a_value_that_both_branches_and_others_need_runs_once_for_all(client: foresail.Client) -> None:
    shared = square(3)
    chosen = foresail.when(is_even(3), total([shared, 1]), total([shared, 2]))
    assert foresail.compute(chosen, shared) == [11, 9]
