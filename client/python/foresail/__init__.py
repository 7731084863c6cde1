"""Foresail: Python functions as workflows on serverless workers, which get better with every run.

    import foresail

    @foresail.task
    def square(x: int) -> int:
        return x * x

    @foresail.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    print(total(square.map(range(10))).compute())

Calls are lazy; `compute()` plans all of them and runs them on worker processes of this machine, which are
started for the purpose and end with the program. See docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ._client import Client, acompute, compute, default_client, plan, submit
from ._errors import (
    BridgeError,
    ForesailError,
    PlanError,
    RemoteTraceback,
    ResultLost,
    RunCancelled,
    TaskFailed,
)
from ._executor import Executor
from ._optimize import Optimization, OptimizedTask
from ._plan import Picture, Plan
from ._planner import Planner, Problem, planner
from ._run import Progress, Run
from ._settings import Custom, PreLoad, PreWarm, TaskDup
from ._task import Task, task
from ._values import Mapped, Value, gather, when
from ._wire import Raw

if TYPE_CHECKING:
    from . import dask

__version__ = "0.1.0"

__all__ = [
    "BridgeError",
    "Client",
    "Context",
    "Custom",
    "Executor",
    "ForesailError",
    "Mapped",
    "Optimization",
    "OptimizedTask",
    "Picture",
    "Plan",
    "PlanError",
    "Planner",
    "PreLoad",
    "PreWarm",
    "Problem",
    "Progress",
    "Raw",
    "RemoteTraceback",
    "ResultLost",
    "Run",
    "RunCancelled",
    "Task",
    "TaskDup",
    "TaskFailed",
    "Value",
    "acompute",
    "compute",
    "context",
    "dask",
    "default_client",
    "gather",
    "plan",
    "planner",
    "submit",
    "task",
    "when",
]


class Context(TypedDict, total=False):
    """Where a task runs: `attempt` counts from 1, `idempotency_key` is the same for all attempts."""

    run: str
    task: str
    attempt: int
    idempotency_key: str


def context() -> Context:
    """Inside a task: its `run`, `task`, `attempt` and `idempotency_key`; empty elsewhere."""
    import sys

    runner = sys.modules.get("foresail._runner")
    found: Context = runner.context() if runner is not None else {}
    return found


def __getattr__(name: str) -> Any:
    # Dask is imported only by whoever uses it.
    if name == "dask":
        import importlib

        return importlib.import_module("foresail.dask")
    raise AttributeError(f"module `foresail` has no attribute `{name}`")
