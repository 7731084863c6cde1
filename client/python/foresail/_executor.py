"""`concurrent.futures` over workers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import Future
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, TypeVar

from . import _calls
from ._client import Client, default_client
from ._errors import ForesailError, RemoteTraceback, TaskFailed
from ._settings import TaskSettings
from ._task import Task, name_of
from ._values import Node, Value

R = TypeVar("R")

GATHER_SECONDS = 0.005
"""How long calls are gathered before they become one run."""
CALLS_PER_RUN_MAX = 10_000

_Item = Tuple["Future[Any]", Callable[..., Any], Tuple[Any, ...], Any]


class Executor(BaseExecutor):
    """A `concurrent.futures.Executor` whose calls are made by workers.

    Calls that come shortly after one another become one run. An exception ends its own call alone; where a
    worker process cannot go on (a crash, memory) the others of its run are tried again without the culprit.
    """

    def __init__(self, client: Optional[Client] = None, **options: Any) -> None:
        self._client = client or default_client()
        self._options = options
        self._lock = threading.Condition()
        self._waiting: List[_Item] = []
        self._closed = False
        self._busy = 0
        self._thread: Optional[threading.Thread] = None

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        """Has `fn(*args, **kwargs)` called by a worker."""
        future: "Future[R]" = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, fn, args, kwargs))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="foresail-executor", daemon=True)
                self._thread.start()
            self._lock.notify_all()
        return future

    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: Optional[float] = None, chunksize: int = 1
    ) -> Iterator[R]:
        """As the built-in `map`, with the calls made by workers; `chunksize` of them by one task."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        until = None if timeout is None else time.monotonic() + timeout
        items = list(zip(*iterables))
        chunks = [items[at : at + chunksize] for at in range(0, len(items), chunksize)]
        futures = [self.submit(_call_chunk, fn, chunk) for chunk in chunks]

        def results() -> Iterator[R]:
            try:
                for future in futures:
                    left = None if until is None else until - time.monotonic()
                    yield from future.result(left)
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; waits for those under way."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                for future, *_ in self._waiting:
                    future.cancel()
            self._lock.notify_all()
            thread = self._thread
        if wait and thread is not None:
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._lock.wait()
                if not self._waiting:
                    return
            time.sleep(GATHER_SECONDS)
            with self._lock:
                batch = self._waiting[:CALLS_PER_RUN_MAX]
                del self._waiting[: len(batch)]
            self._carry_out([item for item in batch if item[0].set_running_or_notify_cancel()])

    def _carry_out(self, batch: List[_Item]) -> None:
        while batch:
            values = [_guard(fn, args, kwargs) for _, fn, args, kwargs in batch]
            try:
                run = self._client.submit(values, **self._options)
            except Exception as error:
                batch = self._without_unpicklable(batch, error)
                continue
            try:
                results = run.result()
            except TaskFailed as error:
                tasks = [run._workflow.output(value)[0] for value in values]
                culprit = tasks.index(error.task) if error.task in tasks else None
                if culprit is None:
                    _fail(batch, error)
                    return
                batch.pop(culprit)[0].set_exception(error)
                continue
            except BaseException as error:
                _fail(batch, error)
                return
            for (future, *_), (is_result, found, text) in zip(batch, results):
                if is_result:
                    future.set_result(found)
                else:
                    found.__cause__ = RemoteTraceback(text)
                    future.set_exception(found)
            return

    def _without_unpicklable(self, batch: List[_Item], error: Exception) -> List[_Item]:
        """The calls that can be sent; the others fail with the reason."""
        from ._graph import Constants, build

        if isinstance(error, ForesailError) or len(batch) == 1:
            _fail(batch, error)
            return []
        left = []
        for item in batch:
            try:
                build([_guard(*item[1:])], "check", Constants(self._client._bridge.folder))
                left.append(item)
            except Exception as reason:
                item[0].set_exception(reason)
        if len(left) == len(batch):
            _fail(batch, error)
            return []
        return left


def _guard(fn: Callable[..., Any], args: Tuple[Any, ...], kwargs: Any) -> Value[Any]:
    function = fn.function if isinstance(fn, Task) else fn
    settings = fn.settings if isinstance(fn, Task) else TaskSettings()
    inner = args[0] if function is _call_chunk else function
    name = fn.name if isinstance(fn, Task) else name_of(inner)
    return Value(Node(_calls.guarded, (function, args, kwargs), {}, name, settings))


def _call_chunk(fn: Callable[..., R], items: List[Tuple[Any, ...]]) -> List[R]:
    return [fn(*item) for item in items]


def _fail(batch: List[_Item], error: BaseException) -> None:
    for future, *_ in batch:
        future.set_exception(error)
