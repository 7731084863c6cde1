"""How calls become a workflow: nothing is run here."""

from __future__ import annotations

import base64
import collections
import dataclasses
import gc
import pickle
import subprocess
import sys
import threading
import typing
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

import foresail
from foresail import _client, _graph, _settings, _wire

Build = Callable[..., Dict[str, Any]]


@foresail.task
def one() -> int:
    return 1


@foresail.task(name="adds", memory=512, retries=2, timeout="1.5min", optimizations=[foresail.PreLoad()])
def add(a: int, b: int = 0) -> int:
    return a + b


@foresail.task(outputs=2)
def halves(items: List[int]) -> Any:
    return items[::2], items[1::2]


@foresail.task
def listed(n: int) -> List[int]:
    return list(range(n))


@dataclasses.dataclass
class Holder:
    part: Any
    parts: Dict[str, Any]


@foresail.task
def opens(holder: Any) -> int:
    return holder.part + sum(holder.parts["x"])


def args_of(task: Dict[str, Any], values: List[Any]) -> Any:
    data = base64.b64decode(task["run"]["python"]["args"])
    return _wire.load_args(data, lambda pid: _wire.find_in(values, [True] * len(values), pid))


def test_settings_stand_in_the_task(built: Build) -> None:
    task = built(add(1, b=2))["adds-0"]
    assert (task["name"], task["memory_mb_min"], task["attempts_max"]) == ("adds", 512, 3)
    assert (task["timeout_ms"], task["optimizations"]) == (90_000.0, [{"kind": "pre_load"}])
    assert args_of(task, []) == ((1,), {"b": 2})


def test_an_exception_is_not_tried_again_unless_the_author_says_so(built: Build) -> None:
    assert built(one())["test_graph.one-0"]["retry"]["not_on"] == ["task_error", "timeout"]
    assert "retry" not in built(add(1))["adds-0"]


def test_the_version_of_python_stands_in_every_task(built: Build) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    tasks = built(add(one(), 1), foresail.when(one(), 1, 2))
    assert {task["run"]["python"]["python"] for task in tasks.values()} == {version}


def test_values_are_found_at_any_depth(built: Build) -> None:
    first, second = one(), one()
    task = built(opens(Holder(first, {"x": [second, (first, 3)]})))["test_graph.opens-0"]
    assert task["inputs"] == [{"task": "test_graph.one-0"}, {"task": "test_graph.one-1"}]
    ((holder,), _) = args_of(task, [10, 20])
    assert holder == Holder(10, {"x": [20, (10, 3)]})


def test_values_alone_are_the_arguments_in_their_order(built: Build) -> None:
    first, second = one(), one()
    task = built(add(second, first))["adds-0"]
    assert "args" not in task["run"]["python"]
    assert [source["task"] for source in task["inputs"]] == ["test_graph.one-1", "test_graph.one-0"]
    twice = built(add(first, first))["adds-0"]
    assert args_of(twice, [7]) == ((7, 7), {})


def test_ids_follow_the_order_of_the_calls_and_not_of_their_use(built: Build) -> None:
    calls = [add(number) for number in range(3)]
    tasks = built(add(calls[2], add(calls[0], calls[1])))
    assert [args_of(tasks[f"adds-{number}"], [])[0] for number in range(3)] == [(0,), (1,), (2,)]


def test_a_function_is_sent_once(tmp_path: Path) -> None:
    workflow = _graph.build([add(add(1), add(2))], "w", _graph.Constants(str(tmp_path)))
    ((digest, code),) = workflow.spec["code"].items()
    assert digest == _wire.code_hash(base64.b64decode(code))
    assert pickle.loads(base64.b64decode(code))(2, 3) == 5


def test_large_arguments_become_files_written_once(built: Build, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    large = numpy.arange(100_000)
    tasks = built(add(large, 1), add({"deep": [large]}, b"x" * 100_000), add(["y" * 200] * 50_000, 0))
    files = list(tmp_path.iterdir())
    uris = [source["uri"] for task in tasks.values() for source in task["inputs"]]
    assert len(uris) == 4
    assert {str(file) for file in files} == set(uris)
    assert len(set(uris)) == 3
    assert (_wire.loads(Path(uris[0]).read_bytes()) == large).all()
    assert all(len(task["run"]["python"]["args"]) < 1_000 for task in tasks.values())


def test_arguments_travel_inside_a_workflow_whose_workers_do_not_see_files(tmp_path: Path) -> None:
    constants = _graph.Constants(str(tmp_path), is_seen=False)
    size = _graph.CARRIED_BYTES_MAX // 2
    for _ in range(3):
        spec = _graph.build([add(b"x" * size, 1)], "w", constants).spec
        (task,) = spec["tasks"]
        assert "inputs" not in task
        assert len(args_of(task, [])[0][0]) == size
    with pytest.raises(foresail.ForesailError, match="do not see the files"):
        _graph.build([add(b"x" * size, b"y" * size)], "w", constants)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "host", "platform", "expect"),
    [
        ("/data", "http://127.0.0.1:1", "local", True),
        (None, "http://127.0.0.1:1", "local", True),
        (None, "http://[::1]:1", "local", True),
        (None, "http://10.0.0.3:1", "local", False),
        (None, "http://127.0.0.1:1", "aws-lambda-x86", False),
    ],
)
def test_which_workers_see_the_files_of_a_session(data: Any, host: str, platform: str, expect: bool) -> None:
    assert _client._sees_files({"data": data, "host": host, "platform": platform}) is expect


def test_a_call_with_several_outputs_gives_several_values(built: Build) -> None:
    even, odd = halves([1, 2, 3])
    tasks = built(add(odd, even))
    assert [output["name"] for output in tasks["test_graph.halves-0"]["outputs"]] == ["out-0", "out-1"]
    assert [source["output"] for source in tasks["adds-0"]["inputs"]] == ["out-1", "out-0"]


def test_a_fan_out_has_places_that_run_where_the_list_reaches_them(built: Build) -> None:
    @foresail.task
    def total(items: List[int]) -> int:
        return sum(items)

    items = listed(5)
    tasks = built(total(add.map(add.map(items, width=2))))
    source = tasks["test_graph.listed-0"]
    assert source["decision"] == "width"
    assert [output["name"] for output in source["outputs"]] == ["width", "part-0", "part-1"]
    assert tasks["adds-1"]["when"] == {"task": "test_graph.listed-0", "above": 1}
    assert tasks["adds-1"]["inputs"] == [{"task": "test_graph.listed-0", "output": "part-1"}]
    assert "when" not in tasks["adds-3"]
    assert tasks["adds-3"]["inputs"] == [{"task": "adds-1"}]
    (last,) = (task for task in tasks.values() if task["name"].endswith("total"))
    assert all(source["optional"] for source in last["inputs"])
    assert args_of(last, [[0, 2, 4], [1, 3]]) == (([0, 1, 2, 3, 4],), {})


def test_parts_come_together_in_the_order_of_their_list() -> None:
    items = list(range(11))
    for width in range(1, 14):
        parts = [items[place::width] for place in range(width)]
        assert _wire.interleave([part for part in parts if part]) == items


def test_what_only_a_branch_needs_runs_where_it_is_taken(built: Build) -> None:
    shared = one()
    then = add(add(shared, 1), 2)
    nested = foresail.when(one(), add(3), add(4))
    tasks = built(foresail.when(shared, then, nested), shared)
    outer, inner = "foresail.test-1", "foresail.test-0"
    assert tasks[outer]["decision"] == "decision"
    assert "when" not in tasks["test_graph.one-0"]
    for task in ("adds-0", "adds-1"):
        assert tasks[task]["when"] == {"task": outer, "is": "true"}
    for task in (inner, "test_graph.one-1", "foresail.either-0"):
        assert tasks[task]["when"] == {"task": outer, "is": "false"}
    assert tasks["adds-2"]["when"] == {"task": inner, "is": "true"}
    assert tasks["adds-3"]["when"] == {"task": inner, "is": "false"}
    assert [source.get("optional", False) for source in tasks["foresail.either-1"]["inputs"]] == [False, True, True]


def test_a_chain_deeper_than_the_stack_is_built(built: Build) -> None:
    value = one()
    for _ in range(3 * sys.getrecursionlimit()):
        value = add(value, 1)
    assert len(built(value)) == 3 * sys.getrecursionlimit() + 1


def test_misuse_of_a_value_says_what_to_do_instead() -> None:
    value = one()
    for misuse, hint in [
        (lambda: bool(value), "foresail.when"),
        (lambda: list(value), "map"),
        (lambda: len(value), "compute"),
        (lambda: pickle.dumps(value), "argument"),
    ]:
        with pytest.raises(TypeError, match=hint):
            misuse()


def test_a_value_in_a_closure_is_refused_with_a_reason(built: Build) -> None:
    value = one()

    @foresail.task
    def captures() -> Any:
        return value

    with pytest.raises(TypeError, match="pass it as an argument"):
        built(captures())


def test_an_argument_that_does_not_pickle_is_named(built: Build) -> None:
    with pytest.raises(TypeError, match="generator"):
        built(add(x for x in range(3)))  # type: ignore[arg-type]


def test_a_task_inside_a_task_is_its_function(built: Build) -> None:
    @foresail.task
    def outer(x: int) -> Any:
        return add(x, 1)

    code = _wire.dump_code(outer.function)
    assert pickle.loads(code)(4) == 5


def test_hints_survive_the_decorator() -> None:
    assert typing.get_type_hints(add) == {"a": int, "b": int, "return": int}
    assert add.__name__ == "add"
    assert add.function(2, 3) == 5


def test_structures_are_filled_with_results() -> None:
    first, second = one(), one()
    Pair = collections.namedtuple("Pair", "left right")
    shape = _graph.Shape({"a": [first, 5], "b": (second, first)})
    assert len(shape.values) == 2
    assert shape.fill([10, 20]) == {"a": [10, 5], "b": (20, 10)}
    assert _graph.Shape(Holder(first, {})).fill([3]) == Holder(3, {})
    assert Pair(1, 2).left == 1


@pytest.mark.parametrize(
    ("given", "expect"),
    [(2, 2_000.0), ("300ms", 300.0), ("1.5min", 90_000.0), (" 20 s ", 20_000.0), ("2h", 7_200_000.0)],
)
def test_times_are_read(given: Any, expect: float) -> None:
    assert _settings.milliseconds(given) == expect


def test_wrong_settings_are_refused_with_their_value() -> None:
    for settings, said in [
        ({"memory": 0}, "memory"),
        ({"memory": "much"}, "much"),
        ({"retries": -1}, "retries"),
        ({"timeout": "soon"}, "soon"),
        ({"outputs": 0}, "outputs"),
        ({"memory": True}, "memory"),
        ({"retries": True}, "retries"),
    ]:
        with pytest.raises(ValueError, match=said):
            foresail.task(**settings)(lambda: 1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="deadline and objective"):
        _settings.run_options(deadline=1, objective="cheapest")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bogus": 1}, "there is no option `bogus`.*`deadline`"),
        ({"replna": "auto"}, "did you mean `replan`"),
        ({"sla": "p9x"}, "`sla` is 'p9x'.*p95"),
        ({"sla": "p0"}, "`sla` is 'p0'"),
        ({"replan": "sometimes"}, "`replan` is 'sometimes'.*\"suggest\""),
        ({"without": ["x"]}, r"`without` is \['x'\].*\"pre-load\".*\"run-ahead\""),
        ({"without": "pre-warm"}, "`without` is 'pre-warm'; it must be a list"),
        ({"seed": "a"}, "`seed` is 'a'"),
        ({"deadline": -1}, "`deadline` is -1"),
        ({"deadline": 1, "confidence": 95}, "`confidence` is 95"),
        ({"budget_usd": "1"}, "`budget_usd` is '1'"),
        ({"objective": 1}, "`objective` is 1"),
    ],
)
def test_wrong_options_are_refused_with_the_rule(options: Dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        _settings.run_options(**options)


def test_options_are_sent_as_the_session_has_them() -> None:
    names = ["pre-warm", "task_dup", "overlap-uploads", "run-ahead"]
    options = _settings.run_options(sla="p99.9", replan=True, without=names, seed=7)
    assert (options["sla"], options["replan"], options["seed"]) == ("p99.9", "auto", 7)
    assert options["without"] == ["pre_warm", "task_dup", "overlap_uploads", "run_ahead"]


@pytest.mark.parametrize(
    "settings", [{"memory": 5}, {"memory": ["1GB"]}, {"memory": [True]}, {"memory": []}, {"workers": -1}, {"lanes": 0}]
)
def test_wrong_settings_of_a_client_are_refused_before_anything_is_started(settings: Dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` is .*; it must be .*; hint: write "):
        foresail.Client(**settings)


def test_names_are_legal_and_stable() -> None:
    assert foresail.task(lambda x: x).name == "test_graph.test_names_are_legal_and_stable.lambda"
    assert foresail.task(name="a b/c")(lambda: 1).name == "a_b_c"
    program = (
        "import foresail\n@foresail.task\ndef f(): return 1\n"
        "from foresail import _graph\nw = _graph.build([f(), f()], 'w', _graph.Constants(''))\n"
        "print([t['id'] for t in w.spec['tasks']], sorted(w.spec['code']))"
    )
    command = [sys.executable, "-c", program]
    said = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


def test_a_picture_shows_every_call() -> None:
    first = one()
    svg = add(first, add(first, 1)).visualize().svg
    assert svg.count("<rect") == 3
    many = listed.map(range(1_000))
    grouped = add(many, 0).visualize().svg
    assert "listed x 1000" in grouped


@pytest.mark.parametrize(
    "use",
    [
        lambda value: value + 1,
        lambda value: 1 - value,
        lambda value: value @ value,
        lambda value: sum([value, value]),
        lambda value: value < 3,
        lambda value: -value,
        lambda value: float(value),
        lambda value: value.shape,
        lambda value: list(value),
        lambda value: len(value),
        lambda value: "yes" if value else "no",
    ],
)
def test_what_cannot_be_done_with_a_lazy_value_says_what_to_do(use: Callable[[Any], Any]) -> None:
    said = r"<Value of .*one> is not known yet.*; hint: .*value\.compute\(\)"
    with pytest.raises((TypeError, AttributeError), match=said):
        use(one())


def test_a_lazy_value_is_what_programs_look_for_and_no_more() -> None:
    value = one()
    assert not callable(value)
    assert not hasattr(value, "__array__")
    assert not hasattr(value, "__dask_graph__")
    assert not hasattr(value, "nbytes")
    assert not hasattr(foresail.Value.__new__(foresail.Value), "_node")
    assert value != one()
    assert len({value, value, one()}) == 2


def test_the_collector_is_left_as_it_was(built: Build) -> None:
    for is_on, begin in ((True, gc.enable), (False, gc.disable)):
        try:
            begin()
            built(one())
            assert gc.isenabled() == is_on
            with pytest.raises(TypeError, match="cannot be sent"):
                built(add(threading.Lock()))
            assert gc.isenabled() == is_on
        finally:
            gc.enable()
