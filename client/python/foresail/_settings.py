"""Settings of tasks and of computations: what users write, and what the workflow says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Union

from ._errors import ForesailError
from ._optimize import Optimization

Memory = Union[str, int]
Duration = Union[str, int, float]

_UNITS_MS = {"ms": 1.0, "s": 1_000.0, "min": 60_000.0, "h": 3_600_000.0}
_NAME = re.compile(r"[^A-Za-z0-9_.:@+~-]+")
_NAME_MAX = 200


class _Known(Optimization):
    """An optimisation that workers have, whether a planner finds that it pays or not."""

    def __init__(self, kind: str, registered: Optional[str] = None, params: Any = None) -> None:
        self.kind, self.registered, self.params = kind, registered, params

    def spec(self) -> Optional[Dict[str, Any]]:
        """As the workflow has it."""
        spec: Dict[str, Any] = {"kind": self.kind}
        if self.registered is not None:
            spec["name"] = self.registered
            if self.params is not None:
                spec["params"] = self.params
        return spec


def PreLoad() -> Optimization:
    """The worker of the task fetches each input as soon as it exists, while it runs other tasks."""
    return _Known("pre_load")


def TaskDup() -> Optimization:
    """A worker that waits for the task's output may run the task too; the first result stands."""
    return _Known("task_dup")


def PreWarm() -> Optimization:
    """A worker is started beforehand, so that the task's own worker starts warm."""
    return _Known("pre_warm")


def Custom(name: str, params: Any = None) -> Optimization:
    """One that is registered, in Rust, in the program that the workers run."""
    return _Known("custom", name, params)


@dataclass(frozen=True)
class TaskSettings:
    """How the calls of a task are run."""

    memory: Memory = "auto"
    retries: Optional[int] = None
    timeout: Optional[Duration] = None
    optimizations: Sequence[Optimization] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if self.memory != "auto" and (not isinstance(self.memory, int) or self.memory < 1):
            raise ValueError(f'`memory` is {self.memory!r}; it must be "auto" or a number of MB from 1')
        if self.retries is not None and (not isinstance(self.retries, int) or self.retries < 0):
            raise ValueError(f"`retries` is {self.retries!r}; it must be a whole number from 0")
        wrong = [each for each in self.optimizations if not isinstance(each, Optimization)]
        if wrong:
            hint = "`foresail.PreLoad()`, or an object of a class derived from `foresail.Optimization`"
            raise ValueError(f"`optimizations` has {wrong[0]!r}, which is none; hint: {hint}")
        if self.timeout is not None and milliseconds(self.timeout) <= 0:
            raise ValueError(f"`timeout` is {self.timeout!r}; it must be more than 0")

    def spec(self, retries: Optional[int] = None) -> Dict[str, Any]:
        """The fields of a task of the workflow; `retries` where it has none of its own."""
        spec: Dict[str, Any] = {}
        if self.retries is not None:
            retries = self.retries
        if isinstance(self.memory, int):
            spec["memory_mb_min"] = self.memory
        if retries is None:
            # What broke is tried again, what the function itself says is not.
            spec["retry"] = {"not_on": ["task_error", "timeout"]}
        else:
            spec["attempts_max"] = retries + 1
        if self.timeout is not None:
            spec["timeout_ms"] = milliseconds(self.timeout)
        known = [found for found in (each.spec() for each in self.optimizations) if found is not None]
        if known:
            spec["optimizations"] = known
        return spec


def milliseconds(time: Duration) -> float:
    """A time in ms: a number of seconds, or text like `20s`, `1.5min`, `300ms`."""
    if isinstance(time, (int, float)) and not isinstance(time, bool):
        return 1_000.0 * time
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|min|h)\s*", str(time))
    if found is None:
        raise ValueError(f"`{time}` is no time; write seconds as a number, or text like 300ms, 20s, 1.5min, 2h")
    return float(found[1]) * _UNITS_MS[found[2]]


def clean_name(name: str) -> str:
    """A name as the workflow may have it."""
    name = name.replace("<locals>.", "").replace("<lambda>", "lambda")
    name = _NAME.sub("_", name).lstrip(".:@+~-") or "task"
    return name[-_NAME_MAX:].lstrip(".:@+~-")


_CHOICES = ("deadline", "budget_usd", "objective")


def run_options(
    sla: str = "mean",
    deadline: Optional[Duration] = None,
    confidence: Optional[float] = None,
    budget_usd: Optional[float] = None,
    objective: Optional[str] = None,
    replan: Union[str, bool] = "off",
    seed: int = 0,
    without: Sequence[str] = (),
) -> Dict[str, Any]:
    """The options of a computation as the bridge has them, without the planner."""
    given = [name for name, value in zip(_CHOICES, (deadline, budget_usd, objective)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given; a plan has one of {', '.join(_CHOICES)}")
    if confidence is not None and deadline is None:
        raise ValueError("`confidence` is that of a deadline; give `deadline` too")
    if deadline is not None:
        objective = f"deadline:{milliseconds(deadline)}ms"
        if confidence is not None:
            objective += f"@{confidence}"
    elif budget_usd is not None:
        objective = f"budget:{budget_usd}"
    options: Dict[str, Any] = {
        "objective": objective or "fastest",
        "sla": sla,
        "seed": seed,
        "replan": {True: "auto", False: "off"}.get(replan, replan) if isinstance(replan, bool) else replan,
        "without": [kind.replace("-", "_") for kind in without],
    }
    return options


def menu(memory: Optional[Sequence[int]]) -> List[int]:
    """Memory sizes of workers in MB."""
    sizes = sorted(set(memory)) if memory else []
    if any(size < 64 for size in sizes):
        raise ForesailError(f"a worker of {sizes[0]} MB has no place for Python", "give 64 MB or more")
    return sizes
