"""A run as its submitter sees it: progress, result, cancel, reasons, events."""

from __future__ import annotations

import functools
import math
import mmap
import os
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generator,
    Generic,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from . import _show, _wire
from ._errors import BridgeError, ForesailError, ResultLost, RunCancelled, of_failure
from ._graph import Shape, Workflow
from ._values import Mapped, Value

if TYPE_CHECKING:
    from ._client import Client

R = TypeVar("R")

MAP_BYTES_MIN = 64 << 10
"""Results of at least so many bytes are mapped from their file instead of being read."""
SETTLE_SECONDS = 10.0
"""Longest wait for the workers of a run that has ended to tell what they used."""
EVENTS_WAIT_MS = 10_000.0
PRINTED = "\nprinted before that:\n"
"""Stands before what was printed in the message of a failure."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. Times in ms, money in USD; `left_ms` is what the prediction still expects."""

    status: str
    tasks: int
    done: int
    running: int
    skipped: int
    failed_attempts: int
    workers: int
    elapsed_ms: float
    left_ms: float
    cost_usd: float
    predicted_ms: float
    predicted_usd: float
    replanned: int = 0
    suggested: int = 0

    @classmethod
    def of(cls, params: Dict[str, Any]) -> "Progress":
        """As the bridge tells it."""
        return cls(**{name: params[name] for name in cls.__dataclass_fields__ if name in params})

    def __str__(self) -> str:
        return _show.line(self)

    def _repr_html_(self) -> str:
        return _show.bar(self)


class Run(Generic[R]):
    """The handle of a run that was submitted."""

    def __init__(self, client: "Client", told: Dict[str, Any], workflow: Workflow, shape: Shape, show: bool) -> None:
        self._client, self._workflow, self._shape = client, workflow, shape
        self.id: str = told["run"]
        self.tasks: int = told["tasks"]
        self.planner: str = told["planner"]
        self.predicted: Dict[str, Any] = told["predicted"]
        self._changed = threading.Condition()
        self._status = "running"
        self._failure: Optional[Dict[str, Any]] = None
        self._settled: Optional[Dict[str, Any]] = None
        self._lost: Optional[BaseException] = None
        self._future: "Future[None]" = Future()
        self._future.set_running_or_notify_cancel()
        self._show = show

    @property
    def status(self) -> str:
        """`running`, `completed`, `failed` or `cancelled`."""
        return self._status

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._future.done()

    def wait(self, timeout: Optional[float] = None, show: Optional[bool] = None) -> bool:
        """Waits for the end, `timeout` seconds at most; whether it has come."""
        shown = _show.Display(self._show if show is None else show, self._look)
        try:
            return self._wait(timeout, shown)
        finally:
            shown.end(self.done())

    def _look(self) -> Optional[Progress]:
        try:
            return self.progress()
        except ForesailError:  # the wait itself tells what is wrong
            return None

    def _wait(self, timeout: Optional[float], shown: "_show.Display") -> bool:
        import time

        until = None if timeout is None else time.monotonic() + timeout
        while not self._future.done():
            if until is not None and time.monotonic() >= until:
                return False
            with self._changed:
                if not self._future.done():
                    left = math.inf if until is None else max(0.0, until - time.monotonic())
                    self._changed.wait(min(shown.pause, left))
            # Apart from the lock: notifications come in meanwhile.
            if not self._future.done():
                shown.update()
        return True

    def result(self, timeout: Optional[float] = None) -> R:
        """The result, once the run has ended.

        Raises `TimeoutError` after `timeout` seconds, and what the function raised where it failed; its cause
        then shows where in the worker.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"run `{self.id}` has not ended after {timeout} s; it goes on")
        self._raise()
        result: R = self._shape.fill(self._results(self._shape.values))
        return result

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Why the run failed or was cancelled; nothing where it completed."""
        if not self.wait(timeout):
            raise TimeoutError(f"run `{self.id}` has not ended after {timeout} s; it goes on")
        try:
            self._raise()
        except BaseException as error:
            return error
        return None

    def __await__(self) -> Generator[Any, None, R]:
        return self._aresult().__await__()

    async def _aresult(self) -> R:
        import asyncio

        try:
            await asyncio.shield(asyncio.wrap_future(self._future))
        except asyncio.CancelledError:
            self._client._bridge.send("cancel", {"run": self.id, "reason": "the task that awaits it was cancelled"})
            raise
        # A future takes no StopIteration: whoever awaits one that is given it waits for ever.
        found, error = await asyncio.get_running_loop().run_in_executor(None, self._outcome)
        if isinstance(error, StopIteration):
            raise RuntimeError(f"a task of run `{self.id}` raised StopIteration") from error
        if error is not None:
            raise error
        result: R = found
        return result

    def _outcome(self) -> Tuple[Any, Optional[BaseException]]:
        try:
            return self.result(), None
        except BaseException as error:
            return None, error

    def progress(self) -> Progress:
        """How far the run is now."""
        return Progress.of(self._client._request("progress", {"run": self.id}))

    def cancel(self, reason: str = "cancelled by its submitter") -> None:
        """Ends the run; one that has ended stays as it is."""
        self._client._request("cancel", {"run": self.id, "reason": reason})

    def explain(self, task: Optional[str] = None) -> str:
        """Why the plan is as it is, in words; of one task, what every other size and place would have brought."""
        tasks = [task] if task is not None else []
        text: str = self._client._request("explain", {"plan": self.id, "tasks": tasks})["text"]
        return text

    def events(self, follow: bool = False) -> Iterator[Dict[str, Any]]:
        """Every change of the run so far, in order; with `follow`, further ones until it has ended."""
        after = 0
        while True:
            wait_ms = EVENTS_WAIT_MS if follow else 0.0
            page = self._client._request("events", {"run": self.id, "after": after, "wait_ms": wait_ms})
            yield from page["events"]
            is_over = page["status"] != "running" or not follow
            if is_over and (not page["events"] or page["next_after"] <= after):
                return
            after = page["next_after"]

    def _commits(self) -> Iterator[List[str]]:
        """The tasks that have committed, as they do, until the run has ended."""
        names = [task["id"] for task in self._workflow.spec["tasks"]]
        after = 0
        while True:
            asked = {"run": self.id, "after": after, "wait_ms": EVENTS_WAIT_MS}
            page = self._client._request("events", asked)
            tasks = [names[event["task"]] for event in page["events"] if event["kind"] == "task_committed"]
            if tasks:
                yield tasks
            if page["status"] != "running" and (not page["events"] or page["next_after"] <= after):
                return
            after = page["next_after"]

    def printed(self) -> Dict[str, str]:
        """What each task wrote to stdout and stderr, as far as it is kept: the last 8 KiB of its attempt."""
        names = {index: task["id"] for index, task in enumerate(self._workflow.spec["tasks"])}
        printed: Dict[str, str] = {}
        for event in self.events():
            if "task" not in event:
                continue
            text = (event.get("commit") or {}).get("printed")
            if text is None:
                # Of a failure it is the end of the message.
                _, _, text = (event.get("failure") or {}).get("message", "").partition(PRINTED)
            if text:
                printed[names[event["task"]]] = text
        return printed

    @property
    def actual(self) -> Dict[str, Any]:
        """What the run took and cost, by what its workers told at its end: `makespan_ms`, `cost_usd`, ..."""
        with self._changed:
            if not self._wait_until_settled():
                raise ForesailError(f"run `{self.id}` is {self._status}", "wait for its end: run.wait()")
            if self._settled is None:
                raise self._lost or ForesailError("nothing is known of the run any more")
            found: Dict[str, Any] = self._settled["actual"]
            return found

    def _wait_until_settled(self) -> bool:
        """Waits for the workers to tell what they used; whether they have, or nothing is heard any more."""
        with self._changed:
            over = self._changed.wait_for(lambda: self._settled is not None or self._lost is not None, SETTLE_SECONDS)
        return over

    def bill(self) -> Dict[str, Any]:
        """What the run was predicted to cost and has cost: `lines`, and the `causes` of `difference_usd`."""
        if self.done():
            self._wait_until_settled()
        bill: Dict[str, Any] = self._client._request("bill", {"run": self.id})
        return bill

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self._status}, {_show.counted(self.tasks, 'task')}>"

    def _repr_html_(self) -> str:
        try:
            return _show.run(self.id, self.progress(), self.predicted)
        except ForesailError:
            return f"<code>{self!r}</code>"

    def _raise(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._status != "completed":
            error = of_failure(self.id, self._status, self._failure)
            if isinstance(error, RunCancelled) and not self._client.is_open:
                raise BridgeError(f"the session of run `{self.id}` has ended")
            raise error

    def _hear(self, method: str, params: Dict[str, Any]) -> None:
        """Takes a notification."""
        with self._changed:
            if method == "ended":
                self._status, self._failure = params["status"], params.get("failure")
            elif method == "settled":
                self._settled = params
            else:
                said = params.get("reason", "the session has ended")
                self._lost = self._lost or BridgeError(f"run `{self.id}` cannot be followed: {said}")
            if method in ("ended", "lost", "closed") and not self._future.done():
                self._future.set_result(None)
            self._changed.notify_all()

    def _results(self, values: Sequence[Value[Any]]) -> List[Any]:
        """The results of values of a run that has completed."""
        wanted: List[Tuple[str, str]] = []
        for value in values:
            parts = value._parts if isinstance(value, Mapped) else [value]
            wanted.extend(self._workflow.output(part) for part in parts)
        objects = iter(self._read(list(dict.fromkeys(wanted)), wanted))
        results: List[Any] = []
        for value in values:
            if isinstance(value, Mapped):
                parts = [next(objects) for _ in value._parts]
                results.append(_wire.interleave([part for part in parts if part is not SKIPPED]))
            else:
                found = next(objects)
                results.append(None if found is SKIPPED else found)
        return results

    def _read(self, asked: List[Tuple[str, str]], wanted: List[Tuple[str, str]]) -> List[Any]:
        places = self._places(asked)
        found = {key: place() for key, place in zip(asked, places)}
        return [found[key] for key in wanted]

    def _places(self, asked: List[Tuple[str, str]]) -> List[Callable[[], Any]]:
        """What reads each of these outputs, which can fail for one without the others."""
        answer = self._client._request("result", {"run": self.id, "outputs": asked})
        packed = memoryview(bytearray())
        if answer["file"] is not None:
            packed = _map(answer["file"])
            os.unlink(answer["file"])
        return [functools.partial(_load, packed, place) for place in answer["places"]]


def _load(packed: memoryview, place: Optional[Dict[str, Any]]) -> Any:
    if place is None:
        return SKIPPED
    stored: "bytearray | memoryview"
    if "path" in place:
        stored = _map(place["path"])
    else:
        stored = packed[place["at"] : place["at"] + place["bytes"]]
        # Small ones are copied, so that one of them does not keep all of them in memory.
        stored = stored if len(stored) >= MAP_BYTES_MIN else bytearray(stored)
    try:
        return _wire.loads(stored, writable=True)
    except _wire.OtherVersion as error:
        own = ".".join(map(str, sys.version_info[:2]))
        raise ForesailError(
            f"a result has a function or a class that was pickled by Python {error.python} in a worker, and this "
            f"program runs Python {own}",
            "return what is importable or plain data, or let both run the same version: foresail.Client(python=...)",
        ) from None


SKIPPED = object()
"""Stands for the result of a task that was not run."""


def _map(path: str) -> memoryview:
    """The content of a file; a large one in place, with changes that stay in this process."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < MAP_BYTES_MIN:
                return memoryview(bytearray(file.read()))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        hint = "run it again; results are kept for some runs only"
        raise ResultLost(f"a result cannot be read: {error}", hint) from error
