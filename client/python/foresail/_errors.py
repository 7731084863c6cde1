"""What can go wrong, as exceptions; each says what to do next."""

from __future__ import annotations

import base64
import pickle
import re
from typing import Any, Dict, Optional, Tuple


class ForesailError(Exception):
    """Something went wrong between this program, the planner and the workers.

    `hint` says what to do next; it is part of the text.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self.hint = hint


class BridgeError(ForesailError):
    """The program `foresail` could not be started, or has ended."""


class PlanError(ForesailError):
    """No plan was found: no such planner, or a task that fits nowhere."""


class ResultLost(ForesailError):
    """A result is not there any more, or was damaged."""


class TaskFailed(ForesailError):
    """A task used up its attempts, for a reason that is no exception of its function.

    Or for one that could not be pickled. `task`, `attempt` and `kind` (`task_error`, `task_crash`, `timeout`,
    `out_of_memory`, ...) say where and how.
    """

    def __init__(self, message: str, failure: Optional[Dict[str, Any]] = None, hint: str = "") -> None:
        super().__init__(message, hint)
        failure = failure or {}
        self.task: Optional[str] = failure.get("task")
        self.attempt: int = failure.get("attempt", 0)
        self.kind: str = failure.get("kind", "")


class RunCancelled(ForesailError):
    """The run was cancelled."""


class RemoteTraceback(Exception):
    """The cause of an exception that a task raised: where it was raised, in the worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}\n"""'


_KINDS = {
    "no_plan": PlanError,
    **dict.fromkeys(["lost_result", "no_result", "blob_not_found", "run_not_found"], ResultLost),
}
_NOT_SEEN = (
    "name the directory that `foresail up` prints with `foresail.Client(url, data=...)` where this machine has it, or "
    "let the stack keep results where all see them: `foresail up --store metad` or `--store s3://...`"
)


def of_fault(fault: Dict[str, Any]) -> ForesailError:
    """The exception of a fault of the bridge."""
    data = fault.get("data") or {}
    name, hint = data.get("kind", ""), data.get("hint", "")
    message = fault.get("message", "it failed")
    if name == "blob_not_found":
        message = f"a result is in files of the host of the workers, which are not seen here: {message}"
        hint = _NOT_SEEN
    elif name == "run_not_found":
        hint = "runs are kept for a time only: compute the value again"
    return _KINDS.get(name, ForesailError)(message, hint)


def of_failure(run: str, status: str, failure: Optional[Dict[str, Any]]) -> BaseException:
    """The exception of a run that did not complete: that of the user's function where there was one."""
    message = in_python((failure or {}).get("message", ""))
    if status == "cancelled":
        return RunCancelled(f"run `{run}` was cancelled: {message}")
    failure = failure or {}
    where = f"attempt {failure.get('attempt')} of task `{failure.get('task')}` in run `{run}`"
    original, why = exception_of(base64.b64decode(failure.get("exception") or ""))
    if original is not None:
        if isinstance(original, ValueError) and "read-only" in str(original):
            message += f"\nhint: {_READ_ONLY}"
        original.__cause__ = RemoteTraceback(f"{where}: {message}")
        return original
    if failure.get("task") is None:
        return TaskFailed(f"run `{run}` failed: {message}", failure)
    message += why
    # One hint is enough: that of the worker knows more of the case.
    hint = "" if "hint: " in message else _HINTS.get(failure["kind"], "")
    return TaskFailed(f"{where} failed ({failure.get('kind')}): {message}", failure, hint)


_WORDS = {
    "(`foresail run --memory 442,1769,4096`, or a platform whose menu has one)": (
        "(`foresail.Client(memory=[1024, 4096])`, or the `--memory` of `foresail up`)"
    ),
    "(`memory_mb_min`)": "(`@foresail.task(memory=MB)`)",
    "`attempts_max` and `retry` of the task set how often and when it is tried again": (
        "`@foresail.task(retries=n)` sets how often it is tried again"
    ),
    "with `--python PATH` or FORESAIL_PYTHON": "with `foresail.Client(python=PATH)` or FORESAIL_PYTHON",
    "(`--python PATH`, FORESAIL_PYTHON)": "(`foresail.Client(python=PATH)`, FORESAIL_PYTHON)",
}


# Tasks that say nothing of retries have settings all the same.
_NOT_RETRIED = re.compile(r"its retry settings name the failure `(task_error|timeout)`, so that it is not retried")


def in_python(message: str) -> str:
    """What a worker said, with the settings as this package has them."""
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return _NOT_RETRIED.sub(r"a failure `\1` is tried again only with `@foresail.task(retries=n)`", message)


_READ_ONLY = "arrays that a task receives are read-only: `array = array.copy()` before it is changed"
_HINTS = {
    "timeout": "give it more time with `@foresail.task(timeout=...)`, or look for a loop without end",
    "out_of_memory": "give it more with `@foresail.task(memory=MB)`, and let workers be larger with "
    "`foresail.Client(memory=[...])`",
}


def exception_of(pickled: bytes) -> Tuple[Optional[BaseException], str]:
    """The exception as the task raised it; where this process cannot unpickle it nothing, and why."""
    if not pickled:
        return None, ""
    try:
        found = pickle.loads(pickled)
    except Exception as error:
        return None, f"\nthe exception itself cannot be unpickled here: {type(error).__name__}: {error}"
    return (found, "") if isinstance(found, BaseException) else (None, "")
