"""Dask collections on Foresail, and Dask's own tests for schedulers."""

from __future__ import annotations

import operator
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

import foresail
from foresail import _graph

dask = pytest.importorskip("dask")
fdask = pytest.importorskip("foresail.dask")

from dask.utils_test import GetFunctionTestMixin  # noqa: E402


class TestGetFunction(GetFunctionTestMixin):  # type: ignore[misc]
    """What Dask demands of every scheduler function."""

    get = staticmethod(fdask.get)

    @pytest.fixture(autouse=True)
    def _started(self, client: foresail.Client) -> None:
        pass


def test_a_suite_of_dask_passes_with_foresail_as_every_scheduler() -> None:
    command = [sys.executable, str(Path(__file__).with_name("dask_suites.py")), "quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "passed" in done.stdout


def test_delayed(client: foresail.Client) -> None:
    @dask.delayed
    def inc(x: int) -> int:
        return x + 1

    total = dask.delayed(sum)([inc(n) for n in range(10)])
    assert total.compute(scheduler=fdask.get) == 55
    assert dask.compute(total, inc(1), {"a": inc(2)}, scheduler=fdask.get) == (55, 2, {"a": 3})


def test_arrays_by_the_configuration(client: foresail.Client) -> None:
    array = pytest.importorskip("dask.array")
    numpy = pytest.importorskip("numpy")
    whole = numpy.arange(40_000, dtype="float64").reshape(200, 200)
    x = array.from_array(whole, chunks=100)
    with dask.config.set(scheduler=fdask.get):
        assert (x + x.T).sum().compute() == pytest.approx((whole + whole.T).sum())
        numpy.testing.assert_allclose((x @ x).compute(), whole @ whole)


def test_frames_and_bags(client: foresail.Client) -> None:
    pandas = pytest.importorskip("pandas")
    frames = pytest.importorskip("dask.dataframe")
    bag = pytest.importorskip("dask.bag")
    frame = pandas.DataFrame({"key": list("abcd") * 25, "value": range(100)})
    lazy = frames.from_pandas(frame, npartitions=3).groupby("key").value.mean()
    with dask.config.set(scheduler=fdask.get):
        means = lazy.compute()
        words = bag.from_sequence(list("abaca"), npartitions=2).frequencies().compute()
    pandas.testing.assert_series_equal(means.sort_index(), lazy.compute(scheduler="sync").sort_index())
    assert dict(words) == {"a": 3, "b": 1, "c": 1}


def test_exceptions_keep_their_type(client: foresail.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        dask.delayed(operator.truediv)(1, 0).compute(scheduler=fdask.get)


def graph_of(value: Any) -> Dict[str, Any]:
    """The tasks that a Dask value becomes, by id."""
    seen: Dict[str, Any] = {}

    def look(dsk: Any, keys: Any, **_: Any) -> Any:
        graph = fdask._plain(dsk)
        values = fdask._Graph(graph, fdask._annotations(dsk)).values(list(fdask._flat(keys)))
        workflow = _graph.build(values.values(), "dask", _graph.Constants(""))
        seen.update({task["id"]: task for task in workflow.spec["tasks"]})
        return dask.get(dsk, keys)

    value.compute(scheduler=look)
    return seen


def test_names_are_the_prefix_of_the_key() -> None:
    def double(x: int) -> int:
        return 2 * x

    first, second = graph_of(dask.delayed(double)(1)), graph_of(dask.delayed(double)(1))
    assert list(first) == list(second) == ["dask.double-0"]


def test_annotations_become_settings() -> None:
    with dask.annotate(retries=4, resources={"memory": 3 << 30}):
        value = dask.delayed(operator.add)(1, 2)
    (task,) = graph_of(value).values()
    assert (task["attempts_max"], task["memory_mb_min"]) == (5, 3_072)
    with dask.annotate(resources={"MEMORY": "2GB", "GPU": 1}):
        value = dask.delayed(operator.add)(1, 2)
    with pytest.warns(UserWarning, match=r"`resources\['GPU'\]`"):
        (task,) = graph_of(value).values()
    assert task["memory_mb_min"] == 1_908
    with dask.annotate(priority=3):
        value = dask.delayed(operator.add)(1, 2)
    with pytest.warns(UserWarning, match="priority"):
        graph_of(value)


def test_graphs_of_tuples_work_without_task_objects(client: foresail.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fdask, "_spec", None)
    graph = {"x": 1, "y": (operator.add, "x", 10), "z": (sum, ["y", "x", (operator.mul, 2, "y")])}
    assert fdask.get(graph, ["z", ["x", "y"]]) == (34, (1, 11))


def test_values_of_graphs_of_tuples_need_not_be_hashable(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    monkeypatch.setattr(fdask, "_spec", None)
    graph = {"x": numpy.arange(3), "y": {"unhashable": True}, "z": "x"}
    values = fdask._Graph(graph, {}).values(["x", "y"])
    assert values["x"] is graph["x"]
    assert values["y"] is graph["y"]
