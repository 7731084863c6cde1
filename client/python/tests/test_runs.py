"""Runs through the real stack: results, failures, settings, handles."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import threading
import warnings
from typing import Any, List

import pytest

import foresail


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Refused(Exception):
    """An exception of this module, which the worker gets by value."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason, code)
        self.code = code


@foresail.task
def square(x: int) -> int:
    return x * x


@foresail.task
def total(items: Any) -> int:
    return sum(items)


@foresail.task
def fails(x: int) -> int:
    print("about to fail")
    raise Refused(f"no {x}", 7)


@foresail.task
def sleeps(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


@foresail.task(outputs=2)
def divide(a: int, b: int) -> Any:
    return divmod(a, b)


def test_a_map_and_its_reduction(client: foresail.Client) -> None:
    assert total(square.map(range(20))).compute() == sum(x * x for x in range(20))


def test_values_nest_in_structures_both_ways(client: foresail.Client) -> None:
    @foresail.task
    def flatten(point: Point) -> List[int]:
        return [point.x, *point.y["deep"][0]]

    nested = flatten(Point(square(2), {"deep": ([square(3), 5],)}))
    assert nested.compute() == [4, 9, 5]
    first, second = square(2), square(3)
    assert foresail.compute(first, second) == [4, 9]
    assert foresail.compute({"a": first, "b": Point(1, [second])}) == {"a": 4, "b": Point(1, [9])}


def test_a_value_that_others_read_is_a_result_too(client: foresail.Client) -> None:
    numpy = pytest.importorskip("numpy")

    @foresail.task
    def ones(n: int) -> Any:
        import numpy

        return numpy.ones(n)

    @foresail.task
    def double(array: Any) -> Any:
        return array * 2

    first = ones(100_000)
    whole, doubled = foresail.compute(first, double(first))
    assert whole.sum() == 100_000
    assert doubled.sum() == 200_000
    whole += 1
    assert isinstance(whole, numpy.ndarray)


def test_large_arguments_and_results_arrive_whole(client: foresail.Client) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1_000_000, dtype="float64").reshape(1_000, 1_000)

    @foresail.task
    def transposed(a: Any, scale: float) -> Any:
        return a.T * scale

    found = transposed(array, 2.0).compute()
    assert (found == array.T * 2).all()


def test_several_outputs_and_items_of_a_value(client: foresail.Client) -> None:
    quotient, rest = divide(17, 5)
    assert foresail.compute(quotient, rest) == [3, 2]
    assert total([quotient, rest]).compute() == 5

    @foresail.task
    def pair() -> Any:
        return {"a": 1}

    assert pair()["a"].compute() == 1


def test_an_exception_arrives_as_itself_with_the_place_where_it_was_raised(client: foresail.Client) -> None:
    with pytest.raises(Refused) as caught:
        total([square(1), fails(3)]).compute()
    assert caught.value.code == 7
    assert isinstance(caught.value.__cause__, foresail.RemoteTraceback)
    text = str(caught.value.__cause__)
    assert "in fails" in text
    assert "test_runs.fails-0" in text


def test_retries_repeat_a_task_until_it_succeeds(client: foresail.Client, tmp_path: Any) -> None:
    marks = str(tmp_path)

    @foresail.task(retries=3)
    def third_time() -> int:
        import os

        count = len(os.listdir(marks))
        open(os.path.join(marks, str(count)), "w").close()
        if count < 2:
            raise OSError("not yet")
        return count

    assert third_time().compute() == 2


def test_a_function_that_ends_its_process_is_told_with_the_task(client: foresail.Client) -> None:
    @foresail.task(retries=0)
    def ends() -> None:
        import os

        os._exit(3)

    with pytest.raises(foresail.TaskFailed, match="ends-0") as caught:
        ends().compute()
    assert caught.value.kind == "task_crash"


def test_a_time_out_ends_a_task(client: foresail.Client) -> None:
    endless = sleeps.options(timeout="300ms")
    with pytest.raises(foresail.TaskFailed, match="timeout") as caught:
        endless(600.0).compute()
    assert caught.value.kind == "timeout"


def test_a_handle_tells_of_its_run_and_ends_it(client: foresail.Client) -> None:
    run = sleeps(600.0).submit()
    assert run.status == "running"
    with pytest.raises(TimeoutError):
        run.result(timeout=0.2)
    progress = run.progress()
    assert (progress.tasks, progress.done) == (1, 0)
    assert progress.left_ms >= 0
    assert "0/1 done" in str(progress)
    run.cancel("enough")
    with pytest.raises(foresail.RunCancelled, match="enough"):
        run.result(timeout=60)
    assert run.status == "cancelled"


def test_a_run_explains_itself_and_keeps_its_events_and_its_costs(client: foresail.Client) -> None:
    run = total([square(3)]).submit()
    assert run.result(60) == 9
    kinds = [event["kind"] for event in run.events()]
    assert kinds.count("task_committed") == 2
    assert "run_finished" in kinds
    assert "test_runs.total-0" in run.explain()
    assert run.explain("test_runs.square-0").startswith("test_runs.square-0")
    assert run.actual["cost_usd"] > 0
    bill = run.bill()
    assert abs(bill["billed_usd"] - run.actual["cost_usd"]) < 1e-12
    assert abs(sum(cause["usd"] for cause in bill["causes"]) - bill["difference_usd"]) < 1e-12
    assert run.progress().done == 2
    assert run.id in {found["run"] for found in client.runs()}


def test_what_a_task_prints_is_kept_with_it(client: foresail.Client) -> None:
    @foresail.task
    def says() -> int:
        print("hello from the worker")
        return 1

    run = says().submit()
    run.result(60)
    ((task, text),) = run.printed().items()
    assert task.endswith("says-0")
    assert "hello from the worker" in text


def test_what_a_task_that_fails_prints_is_kept_too(client: foresail.Client) -> None:
    run = fails(1).submit()
    assert isinstance(run.exception(60), Refused)
    assert run.printed() == {"test_runs.fails-0": "about to fail"}


def test_hints_are_in_the_words_of_the_package(client: foresail.Client) -> None:
    @foresail.task(retries=1)
    def aborts() -> None:
        import os

        os.abort()

    @foresail.task(retries=1)
    def raises() -> None:
        raise ValueError("no")

    # A failure with a hint of its own has no other.
    crashed = str(aborts().submit().exception(60))
    raised = raises().submit().exception(60)
    assert raised is not None
    tried = str(raised.__cause__)
    for said, hint in [(crashed, "@foresail.task(memory=MB)"), (tried, "@foresail.task(retries=n)")]:
        assert hint in said
        assert "memory_mb_min" not in said
        assert "attempts_max" not in said


def test_what_is_nested_too_deeply_is_told(client: foresail.Client) -> None:
    deep: List[Any] = []
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    with pytest.raises(TypeError, match="nested deeper"):
        total(deep).submit()

    @foresail.task
    def makes() -> Any:
        import sys

        made: List[Any] = []
        for _ in range(sys.getrecursionlimit()):
            made = [made]
        return made

    with pytest.raises(foresail.TaskFailed, match="nested deeper"):
        makes().compute()


def test_a_task_that_closes_its_output_takes_it_from_no_other(client: foresail.Client) -> None:
    @foresail.task
    def closes(how: str) -> int:
        import os
        import sys

        if how == "stream":
            sys.stdout.close()
        elif how == "descriptor":
            os.close(1)
        else:
            sys.stdout = open(os.devnull, "w")
        return 1

    @foresail.task
    def says(before: int) -> int:
        import os

        print("I am heard")
        return os.getpid()

    for how in ("stream", "descriptor", "replaced"):
        run = says(closes(how)).submit()
        run.result(60)
        assert list(run.printed().values()) == ["I am heard\n"], how


def test_flexible_workers_are_called_so(client: foresail.Client) -> None:
    plan = square(1).plan(planner="simple")
    assert ("flexible workers" in repr(plan)) == (not plan.workers)
    plan.data["workers"] = []
    assert "1 task on flexible workers" in repr(plan)


def test_a_run_that_is_gone_and_a_client_that_is_closed_are_told(tmp_path: Any) -> None:
    with foresail.Client(data=str(tmp_path), workers=1, progress=False) as other:
        run = square(1).submit()
        assert run.result(60) == 1
        gone = square(2).submit()
        gone.wait(60)
        gone.id = "r-20200101-000000-000000"
        with pytest.raises(foresail.ResultLost, match="compute the value again"):
            gone.result()
    with pytest.raises(foresail.BridgeError, match="the client is closed"):
        run.result()
    with pytest.raises(foresail.BridgeError, match="the client is closed"):
        other.compute(square(1))


def test_a_plan_can_be_looked_at_and_carried_out(client: foresail.Client) -> None:
    plan = total(square.map(range(4))).plan(planner="simple", objective="cheapest")
    assert len(plan.tasks) == 5
    assert plan.data["planner"] == "simple"
    assert "<svg" in plan.html()
    assert "iframe" in plan._repr_html_()
    assert plan.compute() == 14


def test_objectives_reach_the_planner(client: foresail.Client) -> None:
    value = square(2)
    assert value.plan(deadline="20s").data["objective"] == {"kind": "deadline", "makespan_ms": 20_000.0}
    assert value.plan(budget_usd=0.01).data["objective"] == {"kind": "budget", "cost_usd": 0.01}
    assert value.plan(sla="p95").data["sla"] == "p95"
    assert value.plan(without=["pre-warm", "task_dup"]).data["planner"]
    with pytest.raises(foresail.ForesailError, match="objective"):
        value.plan(objective="best")
    with pytest.raises(foresail.PlanError, match="nobody"):
        value.plan(planner="nobody")


def test_what_no_plan_keeps_is_warned_of_before_it_runs(client: foresail.Client) -> None:
    value = square(2)
    for options, said in [
        ({"deadline": 0.0001}, "over the deadline of 0.1 ms.*it is run all the same"),
        ({"budget_usd": 1e-12}, r"over the budget of \$1e-12"),
        ({"deadline": "1h", "budget_usd": 1e-12}, "the cheapest plan that keeps the deadline costs more"),
    ]:
        with pytest.warns(UserWarning, match=said) as caught:
            assert value.compute(**options) == 4
        assert caught[0].filename == __file__
        before = len(client.runs())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match=said):
                value.compute(**options)
        assert len(client.runs()) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value.compute(deadline="1h", budget_usd=1, sla="p95") == 4
        assert value.plan(deadline="1h", budget_usd=1).data["objective"]["kind"] == "deadline"


def test_a_planner_of_ones_own_places_the_tasks(client: foresail.Client) -> None:
    @foresail.planner
    def alone(problem: foresail.Problem) -> Any:
        return [
            {"task": task, "worker": "only", "config": problem.sizes[-1], "why": f"{problem.exec_ms(task, 0):.0f}"}
            for task in problem.in_order()
        ]

    value = total(square.map(range(3)))
    plan = value.plan(planner=alone)
    assert len(plan.workers) == 1
    assert len({task["worker"] for task in plan.tasks}) == 1
    assert plan.compute() == 5

    def broken(problem: foresail.Problem) -> Any:
        raise ValueError("no idea")

    with pytest.raises(foresail.PlanError, match="no idea") as caught:
        value.plan(planner=broken)
    assert "the planner `broken` gave no plan" in str(caught.value)
    assert "planner-" not in str(caught.value)
    assert "foresail plan" not in str(caught.value)
    assert "by alone" in repr(plan)


def test_the_second_run_is_planned_with_what_the_first_measured(client: foresail.Client) -> None:
    value = sleeps(0.05)
    assert set(value.plan(name="learns").basis) == {"assumed"}
    run = value.submit(name="learns")
    run.result(60)
    assert run.actual["makespan_ms"] > 0
    # The measurements of a worker come when it ends.
    for _ in range(200):
        if set(value.plan(name="learns").basis) != {"assumed"}:
            break
        threading.Event().wait(0.1)
    assert client.predict("test_runs.sleeps", name="learns")["values"]["median"] > 40


async def _await(value: Any) -> Any:
    return await value


def test_awaiting_runs_beside_each_other(client: foresail.Client) -> None:
    async def both() -> List[int]:
        return list(await asyncio.gather(square(5).acompute(), _await(square(6))))

    assert asyncio.run(both()) == [25, 36]


def test_awaiting_a_task_that_raises_stop_iteration_ends(client: foresail.Client) -> None:
    @foresail.task
    def first(items: List[int]) -> int:
        return next(iter(items))

    async def awaits() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await asyncio.wait_for(_await(first([])), 60)
        assert isinstance(caught.value.__cause__, StopIteration)

    asyncio.run(awaits())


def test_two_threads_share_a_client(client: foresail.Client) -> None:
    found: List[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(square(n).compute())) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [0, 1, 4, 9]


def test_a_task_knows_its_run(client: foresail.Client) -> None:
    @foresail.task
    def who() -> Any:
        return foresail.context()

    run = who().submit()
    told = run.result(60)
    assert told["run"] == run.id
    assert told["attempt"] == 1
    assert foresail.context() == {}


def test_workers_are_processes_of_their_own(client: foresail.Client) -> None:
    @foresail.task
    def pid() -> int:
        import os

        return os.getpid()

    assert pid().compute() != os.getpid()
