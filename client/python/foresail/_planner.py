"""Planners of one's own: a function from a problem to a plan, run in a process of its own."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from typing import Any, Callable, Dict, Iterable, List, Optional

from . import _wire

Placement = Dict[str, Any]

_PROGRAM = """\
import json, pickle, sys
sys.path[:0] = {path!r}
from foresail._planner import Problem, answer
with open({function!r}, "rb") as file:
    function = pickle.load(file)
json.dump(answer(function(Problem(json.load(sys.stdin)))), sys.stdout)
"""


class Problem:
    """What a planner is given. `data` is the whole problem, see docs/planning.md."""

    def __init__(self, data: Dict[str, Any]) -> None:
        self.data = data
        self._at = {task["id"]: number for number, task in enumerate(self.tasks)}
        self._parents: Optional[Dict[str, List[str]]] = None

    @property
    def tasks(self) -> List[Dict[str, Any]]:
        """The tasks of the workflow; each has `id`, `name`, perhaps `inputs` and `memory_mb_min`."""
        found: List[Dict[str, Any]] = self.data["workflow"]["tasks"]
        return found

    @property
    def sizes(self) -> List[Dict[str, Any]]:
        """The sizes of workers, ascending: each `{"memory_mb": ...}`."""
        found: List[Dict[str, Any]] = self.data["predictions"]["configs"]
        return found

    @property
    def objective(self) -> Dict[str, Any]:
        """What the plan shall be best at: its `kind` and its limit."""
        found: Dict[str, Any] = self.data["objective"]
        return found

    @property
    def workers_max(self) -> int:
        """Most workers at the same time."""
        return int(self.data["platform"]["concurrency_max"])

    def exec_ms(self, task: str, size: int) -> float:
        """Predicted execution time of a task on the size of this number, in ms."""
        return float(self.data["predictions"]["exec_ms"][size][self._at[task]])

    def parents(self, task: str) -> List[str]:
        """The tasks that must have ended before."""
        if self._parents is None:
            self._parents = {
                entry["id"]: list(
                    dict.fromkeys(
                        [source["task"] for source in entry.get("inputs", []) if "task" in source]
                        + entry.get("after", [])
                        + ([entry["when"]["task"]] if "when" in entry else [])
                    )
                )
                for entry in self.tasks
            }
        return self._parents[task]

    def in_order(self) -> Iterable[str]:
        """The tasks, each after its parents."""
        done: Dict[str, None] = {}
        for start in self._at:
            waiting = [start]
            while waiting:
                missing = [parent for parent in self.parents(waiting[-1]) if parent not in done]
                if missing:
                    waiting.extend(missing)
                else:
                    done.setdefault(waiting.pop())
        return list(done)


class Planner:
    """A planner of one's own, to be given as `planner=`."""

    def __init__(self, function: Callable[[Problem], Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "planner")
        self.__doc__ = function.__doc__

    def __call__(self, problem: Problem) -> Any:
        return self.function(problem)

    def __repr__(self) -> str:
        return f"<Planner {self.__name__}>"


def planner(function: Callable[[Problem], Any]) -> Planner:
    """Makes a function a planner: it takes a `Problem` and returns a placement for each task.

    A placement is a dict with `task` and `config` (one of `problem.sizes`), and, where it likes, `worker` (any
    name; tasks with the same one share a worker of one size), `rank` (lower goes first), `why` and
    `optimizations` (for instance `[{"kind": "pre_load"}]`). Foresail checks the plan and times it itself.
    """
    return Planner(function)


def answer(found: Any) -> Dict[str, Any]:
    """The plan as it is written."""
    if isinstance(found, dict) and "tasks" in found:
        return found
    placements = list(found)
    wrong = next((entry for entry in placements if not isinstance(entry, dict) or "task" not in entry), None)
    if wrong is not None:
        raise TypeError(f"`{wrong!r}` is no placement; it must be a dict with `task` and `config`")
    return {"tasks": placements}


def program_of(function: Callable[[Problem], Any], folder: str) -> str:
    """The name of the planner that runs `function` in a process of its own."""
    pickled = _wire.dump_code(function)
    base = os.path.join(folder, f"planner-{hashlib.sha256(pickled).hexdigest()[:16]}")
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = list(dict.fromkeys([*(os.path.abspath(entry or os.getcwd()) for entry in sys.path), here]))
    with open(f"{base}.pickle", "wb") as file:
        file.write(pickled)
    with open(f"{base}.py", "w", encoding="utf-8") as program:
        program.write(_PROGRAM.format(path=path, function=f"{base}.pickle"))
    return f"exec:{shlex.quote(sys.executable)} {shlex.quote(base + '.py')}"
