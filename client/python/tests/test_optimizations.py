"""Optimisations of one's own, through the real stack."""

from __future__ import annotations

import pickle
import zlib
from typing import Any, Dict, List

import pytest

import foresail
from foresail import _graph


class Compressed(foresail.Optimization):
    """Values that only such tasks see travel compressed."""

    def after(self, task: foresail.OptimizedTask, outputs: List[Any]) -> List[Any]:
        return [
            zlib.compress(pickle.dumps(value)) if within else value
            for value, within in zip(outputs, task.outputs_within)
        ]

    def before(self, task: foresail.OptimizedTask, inputs: List[Any]) -> List[Any]:
        return [
            pickle.loads(zlib.decompress(value)) if within else value
            for value, within in zip(inputs, task.inputs_within)
        ]


class Never(Compressed):
    def wanted(self, task: foresail.OptimizedTask) -> bool:
        return False


def table(size: int) -> List[int]:
    return [7] * size


def total(*parts: List[int]) -> int:
    return sum(map(sum, parts))


def workflow(*values: foresail.Value[Any]) -> Dict[str, Any]:
    return _graph.build(values, "w", _graph.Constants("")).spec


def uploaded(client: foresail.Client, optimizations: Any) -> int:
    make = foresail.task(optimizations=optimizations)(table)
    add = foresail.task(optimizations=optimizations)(total)
    run = client.submit(add(make(200_000), make(200_000)))
    assert run.result() == 2_800_000
    return int(run.actual["upload_bytes"])


def test_values_travel_as_the_optimisation_makes_them(client: foresail.Client) -> None:
    plain, compressed = uploaded(client, []), uploaded(client, [Compressed()])
    assert compressed < plain / 10


def test_what_others_see_stays_as_it_is(client: foresail.Client) -> None:
    make = foresail.task(optimizations=[Compressed()])(table)
    add, plain = foresail.task(optimizations=[Compressed()])(total), foresail.task(total)
    first, second = make(10), make(1)
    # A result, a value that a task without the optimisation reads too, and one that stays within.
    assert client.compute(first, add(first, second), plain(first), add(make(3))) == [[7] * 10, 77, 70, 21]


def test_the_planning_half_says_no() -> None:
    make = foresail.task(optimizations=[Never()])(table)
    without = foresail.task(table)
    assert list(workflow(make(1))["code"]) == list(workflow(without(1))["code"])


def test_a_function_is_pickled_once_for_tasks_alike() -> None:
    make = foresail.task(optimizations=[Compressed()])(table)
    add = foresail.task(optimizations=[Compressed()])(total)
    assert len(workflow(add(*[make(size) for size in range(50)]))["code"]) == 2


def test_several_are_layers(client: foresail.Client) -> None:
    class Shifted(foresail.Optimization):
        def after(self, task: foresail.OptimizedTask, outputs: List[Any]) -> List[Any]:
            return [value + b"!" if task.outputs_within[0] else value for value in outputs]

        def before(self, task: foresail.OptimizedTask, inputs: List[Any]) -> List[Any]:
            return [value[:-1] if within else value for value, within in zip(inputs, task.inputs_within)]

    both = [Compressed(), Shifted()]
    make, add = foresail.task(optimizations=both)(table), foresail.task(optimizations=both)(total)
    assert add(make(5), make(6)).compute(client=client) == 77


def test_what_is_no_optimisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"derived from `foresail\.Optimization`"):
        foresail.task(optimizations=["compressed"])(table)  # type: ignore[list-item]


def test_one_that_loses_a_value_fails_its_task_with_its_name(client: foresail.Client) -> None:
    class Forgetful(foresail.Optimization):
        def after(self, task: foresail.OptimizedTask, outputs: List[Any]) -> List[Any]:
            return []

    with pytest.raises(TypeError, match=r"Forgetful.after` returned 0 values"):
        foresail.task(optimizations=[Forgetful()])(table)(1).compute(client=client)
