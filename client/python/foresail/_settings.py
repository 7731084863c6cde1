"""Settings of tasks and of computations: what users write, and what the workflow says."""

from __future__ import annotations

import difflib
import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Union

from ._optimize import Optimization
from ._show import seconds, usd

Memory = Union[str, int]
Duration = Union[str, int, float]

_UNITS_MS = {"ms": 1.0, "s": 1_000.0, "min": 60_000.0, "h": 3_600_000.0}
_NAME = re.compile(r"[^A-Za-z0-9_.:@+~-]+")
_NAME_MAX = 200
_MEMORY_MIN_MB = 64
_CONFIDENCE_MAX = 0.999
_SEED_MAX = (1 << 64) - 1


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
        if self.memory != "auto" and not is_whole(self.memory, 1):
            raise refusal("memory", self.memory, '"auto" or a whole number of MB from 1', "`memory=2048` for 2 GB")
        if self.retries is not None and not is_whole(self.retries, 0):
            raise refusal("retries", self.retries, "a whole number from 0", "`retries=3`")
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


def is_whole(value: Any, least: int) -> bool:
    """Whether it is a whole number from `least`; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def refusal(name: str, value: Any, rule: str, write: str) -> ValueError:
    """The exception for a setting that cannot be taken."""
    return ValueError(f"`{name}` is {value!r}; it must be {rule}; hint: write {write}")


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
_SLA = re.compile(r"mean|median|p(?!0{1,2}(\.0{1,2})?$)[0-9]{1,2}(\.[0-9]{1,2})?")
_REPLAN = ("off", "suggest", "auto")
_WITHOUT = ("pre-load", "task-dup", "pre-warm", "overlap-uploads", "run-ahead")
ELSEWHERE = ("planner", "retries", "name", "client")
"""Options of a computation that are taken before `run_options`."""


def run_options(
    sla: str = "mean",
    deadline: Optional[Duration] = None,
    confidence: Optional[float] = None,
    budget_usd: Optional[float] = None,
    objective: Optional[str] = None,
    replan: Union[str, bool] = "off",
    seed: int = 0,
    without: Sequence[str] = (),
    **unknown: Any,
) -> Dict[str, Any]:
    """The options of a computation as the bridge has them, without the planner."""
    if unknown:
        raise _no_option(next(iter(unknown)))
    _check_run_options(sla, deadline, confidence, budget_usd, objective, seed)
    if isinstance(replan, bool):
        replan = "auto" if replan else "off"
    if replan not in _REPLAN:
        raise refusal("replan", replan, "one of " + _listed(_REPLAN), '`replan="auto"`')
    given = [name for name, value in zip(_CHOICES, (deadline, budget_usd, objective)) if value is not None]
    if len(given) > 1 and objective is not None:
        rule = "`deadline` and `budget_usd` are objectives of their own, alone or together"
        raise ValueError(f"{' and '.join(given)} were given; {rule}")
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
        "replan": replan,
        "without": _without(without),
    }
    return options


@dataclass(frozen=True)
class Limits:
    """What the plan of a computation was asked to keep."""

    deadline_ms: Optional[float] = None
    budget_usd: Optional[float] = None

    @classmethod
    def of(cls, options: Dict[str, Any]) -> "Limits":
        """Those among the options of a computation."""
        deadline, budget_usd = options.get("deadline"), options.get("budget_usd")
        return cls(None if deadline is None else milliseconds(deadline), budget_usd)

    def __bool__(self) -> bool:
        return self.deadline_ms is not None or self.budget_usd is not None

    def missed(self, predicted: Dict[str, Any]) -> str:
        """What of them a plan is predicted to miss, in words; empty where it keeps all."""
        said = []
        if self.deadline_ms is not None and predicted["makespan_ms"] > self.deadline_ms:
            said.append(f"{seconds(predicted['makespan_ms'])}, over the deadline of {seconds(self.deadline_ms)}")
        if self.budget_usd is not None and predicted["cost_usd"] > self.budget_usd:
            said.append(f"{usd(predicted['cost_usd'])}, over the budget of {usd(self.budget_usd)}")
        if not said:
            return ""
        # Of both the deadline is what is planned for, at least cost.
        begin = "no plan was found that keeps to it"
        if self.deadline_ms is not None and "deadline" not in said[0]:
            begin = "the cheapest plan that keeps the deadline costs more"
        return f"{begin}: {' and '.join(said)}, is predicted; it is run all the same"


def _check_run_options(
    sla: Any, deadline: Any, confidence: Any, budget_usd: Any, objective: Any, seed: Any
) -> None:
    if not isinstance(sla, str) or _SLA.fullmatch(sla) is None:
        raise refusal("sla", sla, '"mean", "median" or "pNN", a percentile above 0 and below 100', '`sla="p95"`')
    if deadline is not None and milliseconds(deadline) <= 0:
        raise refusal("deadline", deadline, "more than 0", '`deadline=20` or `deadline="20s"`')
    if confidence is not None and not (_is_number(confidence) and 0 < confidence <= _CONFIDENCE_MAX):
        raise refusal("confidence", confidence, f"a number above 0 and at most {_CONFIDENCE_MAX}", "`confidence=0.95`")
    if budget_usd is not None and not (_is_number(budget_usd) and budget_usd >= 0):
        raise refusal("budget_usd", budget_usd, "a number of USD from 0", "`budget_usd=0.01`")
    if objective is not None and not isinstance(objective, str):
        raise refusal("objective", objective, '"fastest", "cheapest" or "balance:SHARE"', '`objective="balance:0.5"`')
    if not is_whole(seed, 0) or seed > _SEED_MAX:
        raise refusal("seed", seed, f"a whole number from 0 to {_SEED_MAX}", "`seed=1`")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _without(names: Any) -> List[str]:
    if isinstance(names, str) or not isinstance(names, (list, tuple, set, frozenset)):
        raise refusal("without", names, "a list of names", '`without=["pre-warm"]`')
    found: List[Any] = list(names)
    for name in found:
        if not isinstance(name, str) or name.replace("_", "-") not in _WITHOUT:
            raise refusal("without", names, "a list of some of " + _listed(_WITHOUT), '`without=["pre-warm"]`')
    return [name.replace("-", "_") for name in found]


def _no_option(name: str) -> TypeError:
    known = sorted([*ELSEWHERE, *inspect.signature(run_options).parameters])
    known.remove("unknown")
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(f'`{each}`' for each in known)}"
    return TypeError(f"there is no option `{name}` of a computation; hint: {hint}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def menu(memory: Any) -> List[int]:
    """Memory sizes of workers in MB."""
    write = "`memory=[1024, 2048]`, in MB"
    if isinstance(memory, (str, bytes)) or not isinstance(memory, Iterable):
        raise refusal("memory", memory, "a list of sizes", write)
    sizes: List[Any] = list(memory)
    if not sizes or not all(is_whole(size, _MEMORY_MIN_MB) for size in sizes):
        raise refusal("memory", memory, f"a list of whole numbers from {_MEMORY_MIN_MB}", write)
    return sorted(set(sizes))
