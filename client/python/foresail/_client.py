"""The client: starts or finds a stack, plans, submits, and hands out results."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import types
import urllib.parse
import warnings
import weakref
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import _bridge, _graph
from ._errors import BridgeError, ForesailError, PlanError
from ._graph import Constants, Shape, Workflow
from ._plan import Plan
from ._planner import Planner, program_of
from ._run import Run
from ._settings import Limits, is_whole, menu, refusal, run_options
from ._show import notebook
from ._task import script_name

INLINE_BYTES_MAX = 256 << 10
"""Workflows beyond this go to the session by file."""
CANCEL_SECONDS = 10.0

MEMORY = (885, 1769, 3538)
"""Sizes of workers of a local stack in MB, where nothing else is said: half a processor, one, two."""


class Client:
    """A connection to a stack: one that it starts and ends itself, or one that runs.

    `url`: address of a stack that runs (`foresail up`); its host is found on this machine, or named by
    `host`. Without it a stack of this machine is used: one that runs on the data directory, else one of the
    client's own.
    `workers`: most workers at the same time; the processors of this machine by default.
    `lanes`: tasks that a worker carries out at the same time, each in a process of its own; 1 by default.
    `memory`: sizes of workers in MB that plans choose from.
    `data`: where measurements are kept, so that the next run is planned with what was learned; a directory of
    the user by default.
    `python`: the interpreter of the workers; the one of this program by default.
    `name`: name of the workflow under which measurements are kept; that of the script by default.
    `progress`: whether runs are shown while they are waited for, as they are by default: by a line that is redrawn on a
    terminal, a bar in a notebook, and else a line every two seconds.

    Use it in a `with` block, or call `close()`. The functions of the module use a client of their own that is
    started when it is needed and ended with the program.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        workers: Optional[int] = None,
        lanes: Optional[int] = None,
        memory: Optional[Sequence[int]] = None,
        data: Optional[str] = None,
        python: Optional[str] = None,
        name: Optional[str] = None,
        progress: Optional[bool] = None,
        host: Optional[str] = None,
        token: Optional[str] = None,
        cold_start_ms: Optional[float] = None,
    ) -> None:
        self.name = _graph.workflow_name(name or script_name() or "notebook")
        self._progress = progress
        self._runs: "weakref.WeakValueDictionary[str, Run[Any]]" = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        # The names of planners of one's own, by the program that runs them.
        self._planners: Dict[str, str] = {}
        for setting, value in (("workers", workers), ("lanes", lanes)):
            if value is not None and not is_whole(value, 1):
                raise refusal(setting, value, "a whole number from 1", f"`{setting}=2`")
        arguments: List[str] = []
        if url is not None:
            arguments += _address(url, host, data)
        elif data is not None:
            arguments += ["--data", os.fspath(data)]
        if url is None:
            for size in menu(MEMORY if memory is None else memory):
                arguments += ["--memory", str(size)]
            if workers is not None:
                arguments += ["--concurrency", str(workers)]
            if lanes is not None:
                arguments += ["--lanes", str(lanes)]
            if cold_start_ms is not None:
                arguments += ["--cold-start-ms", str(cold_start_ms)]
        elif any(setting is not None for setting in (workers, lanes, memory, cold_start_ms)):
            raise ForesailError(
                "`workers`, `lanes`, `memory` and `cold_start_ms` are settings of a stack, and the one at `url` runs "
                "already",
                "give them to `foresail up`",
            )
        self._bridge = _bridge.Bridge(arguments, python or _bridge.default_python(), token, self._hear)
        self._constants = Constants(self._bridge.folder, _sees_files(self._bridge.about))
        _clients.add(self)

    @property
    def is_open(self) -> bool:
        """Whether its session lives."""
        return self._bridge.is_open

    @property
    def about(self) -> Dict[str, Any]:
        """What the session told of itself: version, addresses, data directory, workers, memory sizes."""
        return dict(self._bridge.about)

    def compute(self, *values: Any, name: Optional[str] = None, **options: Any) -> Any:
        """Plans and runs everything that `values` need; see `foresail.compute`."""
        return self._finish(self.submit(*values, name=name, **options))

    async def acompute(self, *values: Any, name: Optional[str] = None, **options: Any) -> Any:
        """As `compute`, without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        run = await loop.run_in_executor(None, lambda: self.submit(*values, name=name, **options))
        return await run

    def submit(self, *values: Any, name: Optional[str] = None, **options: Any) -> "Run[Any]":
        """Plans, starts the run and returns its handle."""
        with self._lock:
            asked, workflow, shape = self._asked(values, name, options)
        limits = Limits.of(options)
        if limits:
            # Planned apart, so that what is missed is said before it runs.
            told = self._request_once("plan", asked)
            return self._submit_plan(Plan(self, told, workflow, shape, asked["options"], limits))
        return self._start(asked, workflow, shape)

    def plan(self, *values: Any, name: Optional[str] = None, **options: Any) -> Plan:
        """Plans without running anything."""
        with self._lock:
            asked, workflow, shape = self._asked(values, name, options)
        told = self._request_once("plan", asked)
        return Plan(self, told, workflow, shape, asked["options"], Limits.of(options))

    def predict(
        self,
        task: str,
        input_bytes: int = 0,
        memory_mb: int = 1769,
        sla: Sequence[str] = ("median", "p95"),
        name: Optional[str] = None,
    ) -> Dict[str, Any]:
        """What is known of the execution time of a task: values in ms by service level, and their basis."""
        query = {"kind": "execution_time", "task": task, "input_bytes": input_bytes, "memory_mb": memory_mb}
        workflow = _graph.workflow_name(name) if name else self.name
        answer = self._request("predict", {"workflow": workflow, "sla": list(sla), "queries": [query]})
        found: Dict[str, Any] = answer["predictions"][0]
        return found

    def runs(self) -> List[Dict[str, Any]]:
        """The runs that are remembered, youngest first."""
        found: List[Dict[str, Any]] = self._request("runs", {})
        return found

    def close(self) -> None:
        """Ends the session; a stack that it started ends with it, and runs of that are cancelled."""
        self._bridge.close()
        _clients.discard(self)

    def __enter__(self) -> "Client":
        _entered.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        if self in _entered:
            _entered.remove(self)
        self.close()

    def __repr__(self) -> str:
        if not self.is_open:
            return "<Client: closed>"
        about = self._bridge.about
        return f"<Client: {about['workers']} workers, {about['metad']}>"

    def _request(self, method: str, params: Dict[str, Any]) -> Any:
        return self._bridge.request(method, params)

    def _request_once(self, method: str, asked: Dict[str, Any]) -> Any:
        """Asks with a workflow, whose file is not needed any more then."""
        try:
            return self._request(method, asked)
        except PlanError as error:
            raise self._of_function(error, asked["options"].get("planner", "")) from None
        finally:
            file = asked.get("workflow_file")
            if file is not None and os.path.exists(file):
                os.unlink(file)

    def _asked(self, values: Tuple[Any, ...], name: Optional[str], options: Dict[str, Any]) -> Any:
        if not values:
            raise TypeError("nothing was given to compute")
        shape = Shape(values[0] if len(values) == 1 else list(values))
        if not shape.values:
            raise TypeError("there is no lazy value in what was given; hint: call a function made by @foresail.task")
        planner, retries = options.pop("planner", "auto"), options.pop("retries", None)
        run = run_options(**options)
        if retries is not None and not is_whole(retries, 0):
            raise refusal("retries", retries, "a whole number from 0", "`retries=3`")
        named = _graph.workflow_name(name) if name else self.name
        workflow = _graph.build(shape.values, named, self._constants, retries)
        asked: Dict[str, Any] = {"options": run}
        asked["options"]["planner"] = self._planner(planner)
        asked["options"]["keep_intermediate"] = workflow.keeps
        text = _dumps(workflow.spec)
        if len(text) <= INLINE_BYTES_MAX:
            asked["workflow"] = workflow.spec
        else:
            asked["workflow_file"] = path = os.path.join(self._bridge.folder, f"workflow-{id(workflow)}.json")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return asked, workflow, shape

    def _of_function(self, error: PlanError, program: str) -> PlanError:
        """The fault of a planner of one's own, by its name and without the file that it is run from."""
        name = self._planners.get(program)
        if name is None:
            return error
        said = str(error).partition("\nhint: ")[0].replace(program, name)
        said = re.sub(r'  File "[^"]*planner-[0-9a-f]+\.py", .*\n(?:    .*\n)*', "", said)
        takes = f"`{name}` takes a `foresail.Problem` and returns a placement for each task, or a plan"
        # A task that fits nowhere has a hint of its own.
        return PlanError(said, takes if "foresail plan" in error.hint else error.hint)

    def _planner(self, planner: Any) -> str:
        if isinstance(planner, str):
            return planner
        if isinstance(planner, Planner):
            planner = planner.function
        if not callable(planner):
            raise TypeError(f"`planner` is {planner!r}; it must be a name or a function")
        program = program_of(planner, self._bridge.folder)
        self._planners[program] = getattr(planner, "__name__", type(planner).__name__)
        return program

    def _start(self, asked: Dict[str, Any], workflow: Workflow, shape: Shape) -> "Run[Any]":
        told = self._request_once("submit", asked)
        show = self._is_shown()
        run: "Run[Any]" = Run(self, told, workflow, shape, show)
        self._runs[run.id] = run
        self._request("follow", {"run": run.id, "every_ms": None})
        return run

    def _submit_plan(self, plan: Plan) -> "Run[Any]":
        missed = plan._limits.missed(plan.predicted)
        if missed:
            warnings.warn(missed, stacklevel=_outside())
        asked = {"plan": plan.id, "options": plan._options}
        return self._start(asked, plan._workflow, plan._shape)

    def _finish(self, run: "Run[Any]") -> Any:
        """The result; a run that nobody waits for any more is cancelled."""
        try:
            return run.result()
        except KeyboardInterrupt:
            self._bridge.send("cancel", {"run": run.id, "reason": "interrupted"}).result(CANCEL_SECONDS)
            raise

    def _is_shown(self) -> bool:
        if self._progress is not None:
            return self._progress
        return sys.stderr is not None or notebook() is not None

    def _hear(self, method: str, params: Dict[str, Any]) -> None:
        if method == "closed":
            for run in list(self._runs.values()):
                if not run.done():
                    run._hear(method, params)
            return
        told = self._runs.get(params.get("run", ""))
        if told is not None:
            told._hear(method, params)


def _sees_files(about: Dict[str, Any]) -> bool:
    """Whether the workers see the files of this machine: those of a stack of the session, and local ones."""
    address = urllib.parse.urlsplit(about["host"]).hostname or ""
    is_here = address == "localhost" or address.startswith("127.") or address == "::1"
    return about["data"] is not None or (is_here and about["platform"] == "local")


def _outside() -> int:
    """How far up the stack the program is that uses the package: where a warning belongs."""
    here, level = os.path.dirname(os.path.abspath(__file__)), 1
    frame: Optional[types.FrameType] = sys._getframe(1)
    while frame is not None and os.path.dirname(os.path.abspath(frame.f_code.co_filename)) == here:
        frame, level = frame.f_back, level + 1
    return level


def _dumps(spec: Dict[str, Any]) -> str:
    import json

    return json.dumps(spec)


def _address(url: str, host: Optional[str], data: Optional[str]) -> List[str]:
    """Arguments that lead to a stack that runs."""
    import json

    if host is not None:
        return ["--metad", url, "--host", host]
    share = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = os.fspath(data) if data else os.environ.get("FORESAIL_DATA") or os.path.join(share, "foresail")
    try:
        with open(os.path.join(folder, "stack.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = {}
    if found.get("metad", "").rstrip("/") != url.rstrip("/"):
        raise ForesailError(
            f"the host of the workers of `{url}` is not known: `{folder}` tells of no such stack",
            "give its address as `host`, or the directory of `foresail up` as `data`; it prints both",
        )
    return ["--data", folder]


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
_entered: List[Client] = []
_default: Optional[Client] = None
_default_lock = threading.Lock()


def default_client() -> Client:
    """The client that is in use: that of the innermost `with` block, or the one of the module."""
    global _default
    if _entered and _entered[-1].is_open:
        return _entered[-1]
    with _default_lock:
        if _default is None or not _default.is_open:
            _default = Client()
        return _default


def compute(*values: Any, client: Optional[Client] = None, **options: Any) -> Any:
    """Plans and runs everything that `values` need, and returns their results.

    Each of `values` is a lazy value, or any structure with lazy values in it; the result has the same
    structure. One is returned as it is, several as a list.

    `planner`: "auto", the name of another one, or a function of your own (see `foresail.planner`).
    `sla`: the statistic of times that is planned with: "mean", "median", "p95", ...
    `deadline`: the cheapest plan that ends in time, in seconds or as text like "20s"; with `confidence=0.95`
    in 95 % of all runs.
    `budget_usd`: the fastest plan that costs no more; with a `deadline` too, the cheapest that ends in time. Where
    what is predicted is over one of them, a warning says so before it runs.
    `objective`: "fastest", "cheapest" or "balance:0.5".
    `replan`: "off", "suggest" or "auto": what happens when the run does not go as planned.
    `retries`: attempts after a failed one, of tasks that do not say otherwise.
    `without`: what shall not be done: "pre-load", "task-dup", "pre-warm" by the planner, "overlap-uploads",
    "run-ahead" by workers.
    `seed`: of everything drawn. `name`: name of the workflow, under which measurements are kept.
    """
    return (client or default_client()).compute(*values, **options)


async def acompute(*values: Any, client: Optional[Client] = None, **options: Any) -> Any:
    """As `compute`, without blocking the event loop."""
    return await (client or default_client()).acompute(*values, **options)


def submit(*values: Any, client: Optional[Client] = None, **options: Any) -> "Run[Any]":
    """Plans, starts the run and returns its handle; options as of `compute`."""
    return (client or default_client()).submit(*values, **options)


def plan(*values: Any, client: Optional[Client] = None, **options: Any) -> Plan:
    """The plan for `values`, without running anything; options as of `compute`."""
    return (client or default_client()).plan(*values, **options)


@atexit.register
def _close_all() -> None:
    for client in list(_clients):
        try:
            client.close()
        except (OSError, BridgeError):
            pass


def _after_fork() -> None:
    """The child of a fork has no session: those of its parent go on for the parent."""
    global _default
    for client in list(_clients):
        client._bridge.forget()
    _clients.clear()
    _entered.clear()
    _default = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
