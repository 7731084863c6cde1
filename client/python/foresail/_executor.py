"""`concurrent.futures` over workers."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple, TypeVar

from . import _calls
from ._client import Client, default_client
from ._errors import ForesailError, RemoteTraceback, ResultLost, TaskFailed, exception_of
from ._settings import ELSEWHERE, TaskSettings, run_options
from ._task import Task, name_of
from ._values import Node, Value

if TYPE_CHECKING:
    from ._run import Run

R = TypeVar("R")

GATHER_SECONDS = 0.005
"""How long calls are gathered before they become one run."""
CALLS_PER_RUN_MAX = 10_000
RUNS_MAX = 64
"""Runs of one executor at the same time; calls that come then wait until one has ended."""

_Item = Tuple["Future[Any]", Callable[..., Any], Tuple[Any, ...], Any]


class Executor(BaseExecutor):
    """A `concurrent.futures.Executor` whose calls are made by workers.

    Calls that come shortly after one another become one run; later ones begin at once, in a run of their own.
    A future has its result as soon as its call has ended. An exception ends its own call alone; where a worker
    process cannot go on (a crash, memory) the calls of its run that had not ended are made again without the culprit.
    """

    def __init__(self, client: Optional[Client] = None, **options: Any) -> None:
        self._client = client or default_client()
        self._options = options
        # A wrong one is told here, not by every future.
        run_options(**{name: value for name, value in options.items() if name not in ELSEWHERE})
        self._lock = threading.Condition()
        self._waiting: List[_Item] = []
        self._closed = False
        self._interrupted = False
        self._thread: Optional[threading.Thread] = None
        # One for each batch that is carried out, and the runs that they follow.
        self._followers: Set[threading.Thread] = set()
        self._runs: "Set[Run[Any]]" = set()

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
        futures = [self.submit(_calls.call_chunk, _function_of(fn), chunk) for chunk in chunks]

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
            with self._lock:
                self._lock.wait_for(lambda: not self._followers)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Optional[bool]:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            if interrupted:
                self._cancel()
            self.shutdown(wait=True, cancel_futures=interrupted)
        except KeyboardInterrupt:
            self._cancel()
            raise
        return None

    def _cancel(self) -> None:
        """Takes no more calls, and ends the runs that are under way."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._interrupted = True
            runs = list(self._runs)
        for run in runs:
            try:
                run.cancel("interrupted")
            except ForesailError:  # it has ended meanwhile
                pass

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (not self._waiting or len(self._followers) >= RUNS_MAX):
                    self._lock.wait()
                if not self._waiting:
                    return
            time.sleep(GATHER_SECONDS)
            with self._lock:
                batch = self._waiting[:CALLS_PER_RUN_MAX]
                del self._waiting[: len(batch)]
                batch = [item for item in batch if item[0].set_running_or_notify_cancel()]
                if not batch:
                    continue
                follower = threading.Thread(target=self._carry_out, args=(batch,), name="foresail-run", daemon=True)
                self._followers.add(follower)
            follower.start()

    def _carry_out(self, batch: List[_Item]) -> None:
        try:
            while batch:
                values = [_guard(fn, args, kwargs) for _, fn, args, kwargs in batch]
                try:
                    run = self._client.submit(values, **self._options)
                except Exception as error:
                    batch = self._without_unpicklable(batch, error)
                    continue
                with self._lock:
                    self._runs.add(run)
                    is_late = self._interrupted
                if is_late:
                    self._cancel()
                batch = _follow(run, values, batch)
                with self._lock:
                    self._runs.discard(run)
        finally:
            with self._lock:
                self._followers.discard(threading.current_thread())
                self._lock.notify_all()

    def _without_unpicklable(self, batch: List[_Item], error: Exception) -> List[_Item]:
        """The calls that can be sent; the others fail with the reason."""
        from ._graph import Constants, build

        known = self._client._constants
        if isinstance(error, ForesailError) or len(batch) == 1:
            _fail(batch, error)
            return []
        left = []
        for item in batch:
            try:
                build([_guard(*item[1:])], "check", Constants(known.folder, known.is_seen))
                left.append(item)
            except Exception as reason:
                item[0].set_exception(reason)
        if len(left) == len(batch):
            _fail(batch, error)
            return []
        return left


def _follow(run: "Run[Any]", values: List[Value[Any]], batch: List[_Item]) -> List[_Item]:
    """Resolves futures as their calls end; those that must be made again without the one that failed."""
    outputs = [run._workflow.output(value) for value in values]
    waiting: Dict[str, Tuple[Tuple[str, str], _Item]] = {
        output[0]: (output, item) for output, item in zip(outputs, batch)
    }
    try:
        for tasks in run._commits():
            _resolve(run, [waiting.pop(task) for task in tasks if task in waiting])
            # What ends meanwhile is asked for together.
            time.sleep(GATHER_SECONDS)
        run.wait(show=False)
        run._raise()
        _resolve(run, list(waiting.values()))
    except TaskFailed as error:
        culprit = waiting.pop(error.task or "", None)
        left = [item for _, item in waiting.values()]
        if culprit is not None:
            culprit[1][0].set_exception(error)
            return left
        _fail(left, error)
    except BaseException as error:
        _fail([item for _, item in waiting.values()], error)
    return []


def _resolve(run: "Run[Any]", ended: List[Tuple[Tuple[str, str], _Item]]) -> None:
    """Gives futures their results, each for itself: one that cannot be read fails no other."""
    if not ended:
        return
    try:
        reads = run._places([output for output, _ in ended])
    except ResultLost:
        reads = [functools.partial(_read_alone, run, output) for output, _ in ended]
    for read, (_, (future, *_rest)) in zip(reads, ended):
        try:
            is_result, found, text = read()
        except BaseException as error:
            future.set_exception(error)
            continue
        if is_result:
            future.set_result(found)
        else:
            raised, why = exception_of(found)
            if raised is not None:
                raised.__cause__ = RemoteTraceback(text)
            future.set_exception(raised or TaskFailed(f"{text.rstrip()}{why}", {"kind": "task_error", "attempt": 1}))


def _read_alone(run: "Run[Any]", output: Tuple[str, str]) -> Any:
    return run._places([output])[0]()


def _function_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn.function if isinstance(fn, Task) else fn


def _guard(fn: Callable[..., Any], args: Tuple[Any, ...], kwargs: Any) -> Value[Any]:
    function = _function_of(fn)
    settings = fn.settings if isinstance(fn, Task) else TaskSettings()
    inner = args[0] if function is _calls.call_chunk else function
    name = fn.name if isinstance(fn, Task) else name_of(inner)
    return Value(Node(_calls.guarded, (function, args, kwargs), {}, name, settings))


def _fail(batch: List[_Item], error: BaseException) -> None:
    for future, *_ in batch:
        future.set_exception(error)
