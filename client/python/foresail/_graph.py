"""From lazy values to a workflow: which calls are needed, what they read, what runs only sometimes."""

from __future__ import annotations

import base64
import gc
import hashlib
import io
import os
import pickle
import re
import sys
from collections import deque
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from . import _calls, _optimize, _wire
from ._errors import ForesailError
from ._optimize import Optimization, Optimized, OptimizedTask
from ._settings import clean_name
from ._values import Mapped, Node, Value

LARGE_BYTES = 64 << 10
"""Arguments beyond this go by file, each written once."""
CARRIED_BYTES_MAX = 16 << 20
"""Arguments that a workflow brings itself where workers do not see the files of the session."""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""What pickles here: bytecode is that of one version, and a worker of another one must not run it."""
SCAN_NODES_MAX = 2_000_000
"""Calls of one workflow that are walked over; the workflow itself has a limit of its own."""

_PLAIN = frozenset({int, float, bool, type(None), complex, dict, list, tuple, set, frozenset})
_TEXTS = frozenset({bytes, bytearray, str})


class Constants:
    """Large arguments as files of a folder, by the hash of their content; inline where workers do not see it."""

    def __init__(self, folder: str, is_seen: bool = True) -> None:
        self.folder, self.is_seen = folder, is_seen
        self._carried = 0
        # The value is kept, so that no other one can get its id meanwhile.
        self._known: Dict[int, Tuple[Any, Dict[str, Any]]] = {}

    def input(self, value: Any) -> Dict[str, Any]:
        """The input of a task that reads `value`."""
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        parts = _wire.dumps_elsewhere(value)
        digest = hashlib.sha256()
        size = 0
        for part in parts:
            digest.update(part)
            size += memoryview(part).nbytes
        path = os.path.join(self.folder, f"constant-{digest.hexdigest()}")
        if not os.path.exists(path):
            draft = f"{path}.{os.getpid()}"
            with open(draft, "wb") as file:
                for part in parts:
                    file.write(part)
            os.replace(draft, path)
        found = {"uri": path, "bytes": size}
        self._known[id(value)] = (value, found)
        return found

    def forget(self) -> None:
        """Forgets which values were written; their files stay."""
        self._known.clear()
        self._carried = 0

    def carry(self, size: int) -> None:
        """Counts arguments that the workflow brings itself."""
        self._carried += size
        if not self.is_seen and self._carried > CARRIED_BYTES_MAX:
            raise ForesailError(
                f"the arguments have more than {CARRIED_BYTES_MAX} bytes, and the workers of this stack do not see the "
                "files of this machine, so that the workflow has to bring them",
                "read them inside a task, from a path or a bucket that the workers see, or run this program on the "
                "machine of the workers",
            )


class Call:
    """What one call reads, as it was found by pickling its arguments."""

    __slots__ = ("args", "inputs", "node", "reads")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.args: Optional[bytes] = None
        # Inputs in order: an output of another node with whether it may be missing, or a constant.
        self.inputs: List[Any] = []
        self.reads: Dict[Any, int] = {}

    def read(self, node: Node, output: str, optional: bool) -> int:
        """The number of the input that is this output."""
        key = (node, output, optional)
        number = self.reads.get(key)
        if number is None:
            number = self.reads[key] = len(self.inputs)
            self.inputs.append(key)
        return number

    def constant(self, spec: Dict[str, Any]) -> int:
        """The number of the input that is this file."""
        number = self.reads.get(spec["uri"])
        if number is None:
            number = self.reads[spec["uri"]] = len(self.inputs)
            self.inputs.append(spec)
        return number

    def parents(self) -> List[Node]:
        """The nodes that must have ended before."""
        found = [source[0] for source in self.inputs if type(source) is tuple]
        found += [decider for decider, _, _ in self.node.branches]
        if self.node.part is not None:
            found.append(self.node.part[0])
        return found + self.node.after


class _Find:
    """Finds what stands for an object inside pickled arguments."""

    def __init__(self, call: Call, constants: Constants, large: Sequence[Any] = ()) -> None:
        self.call, self.constants = call, constants
        self.large = {id(value) for value in large}
        self.optional = {id(branch) for _, _, branch in call.node.branches}

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN and not self.large:
            return None
        if kind is Value:
            number = self.call.read(value._node, value._output, id(value) in self.optional)
            return (_wire.INPUT, number)
        if kind is Mapped:
            return (_wire.CHUNKS, [self.call.read(p._node, p._output, True) for p in value._parts])
        if id(value) in self.large:
            return (_wire.INPUT, self.call.constant(self.constants.input(value)))
        if not self.constants.is_seen:
            return None
        size = len(value) if kind in _TEXTS else getattr(value, "nbytes", 0)
        if isinstance(size, int) and size > LARGE_BYTES and not isinstance(value, type):
            return (_wire.INPUT, self.call.constant(self.constants.input(value)))
        return None


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, find: Callable[[Any], Any]) -> None:
        super().__init__(file, protocol=_wire.PROTOCOL)
        self.find = find

    def persistent_id(self, value: Any) -> Any:
        return self.find(value)


def dump(value: Any, find: Callable[[Any], Any]) -> bytes:
    """The pickle of `value` with what `find` says in it; by cloudpickle where plain pickle does not do."""
    file = io.BytesIO()
    try:
        _Pickler(file, find).dump(value)
        pickled = file.getvalue()
        if _wire.MAIN not in pickled:
            return pickled
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        if "is not known yet" in str(error):
            raise
    args, kwargs = value
    try:
        return _wire.dump_args(args, kwargs, find)
    except Exception as error:
        raise _unpicklable(error, value) from error


def _unpicklable(error: Exception, value: Any) -> Exception:
    deep = _wire.too_deep(error)
    if deep:
        return TypeError(f"an argument cannot be sent to a worker: {deep}")
    try:
        said = _wire.blame(value, _cloud_dumps)
    except Exception:
        said = str(error)
    hint = "pass what it is made of (a path, an address) and make it inside the task"
    return TypeError(f"an argument cannot be sent to a worker: {said}; hint: {hint}")


def _cloud_dumps(value: Any, protocol: int) -> bytes:
    return _wire.dump_args((value,), {}, lambda part: (_wire.INPUT, 0) if isinstance(part, Value) else None)


def scan(node: Node, constants: Constants) -> Call:
    """What a call reads."""
    call = Call(node)
    args, kwargs = node.args, node.kwargs
    if not kwargs and not node.branches and all(type(value) is Value for value in args):
        distinct = {(value._node, value._output) for value in args}
        if len(distinct) == len(args):
            # The inputs in their order are the arguments.
            for value in args:
                call.read(value._node, value._output, False)
            return call
    pickled = dump((args, kwargs), _Find(call, constants))
    if len(pickled) > LARGE_BYTES and constants.is_seen:
        large = [value for value in [*args, *kwargs.values()] if _is_large(value)]
        call = Call(node)
        pickled = dump((args, kwargs), _Find(call, constants, large))
    if args or kwargs:
        constants.carry(len(pickled))
        call.args = pickled
    return call


class _Lazy(Exception):
    """There is a lazy value inside."""


def _is_large(value: Any) -> bool:
    def find(part: Any) -> Any:
        if isinstance(part, Value):
            raise _Lazy
        return None

    try:
        return len(dump(((value,), {}), find)) > LARGE_BYTES // 4
    except _Lazy:
        return False


class Workflow:
    """A workflow that can be submitted, and where the results of values are in it."""

    def __init__(self, spec: Dict[str, Any], ids: Dict[Node, str], keeps: bool) -> None:
        self.spec = spec
        self.ids = ids
        # Whether a result is wanted that other tasks read: it must not be deleted with theirs.
        self.keeps = keeps

    def output(self, value: Value[Any]) -> Tuple[str, str]:
        """The task and the output that a value is."""
        return self.ids[value._node], value._output


def build(values: Iterable[Value[Any]], name: str, constants: Constants, retries: Optional[int] = None) -> Workflow:
    """The workflow of everything that `values` need; `retries` are those of tasks without their own."""
    # Thousands of objects are made here and none is garbage before the end: the collector would look through them and
    # whatever else the program has again and again.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        return _build(values, name, constants, retries)
    finally:
        if is_collecting:
            gc.enable()


def _build(values: Iterable[Value[Any]], name: str, constants: Constants, retries: Optional[int]) -> Workflow:
    constants.forget()
    wanted = [part for value in values for part in (value._parts if type(value) is Mapped else [value])]
    calls = _scan_all([value._node for value in wanted], constants)
    order = sorted(calls, key=lambda node: node.number)
    ids = _ids(order)
    conditions = _conditions([value._node for value in wanted], calls)
    read = {(source[0], source[1]) for call in calls.values() for source in call.inputs if type(source) is tuple}
    wants = {(value._node, value._output) for value in wanted}
    code = _Code()
    used = read | wants
    layers = _Layers(calls, wants)
    tasks = []
    for node in order:
        task = _task(calls[node], layers.function(calls[node]), ids, conditions.get(node), used, code)
        task.update(node.settings.spec(retries))
        tasks.append(task)
    constants.forget()
    keeps = not wants.isdisjoint(read)
    spec = {"name": name, "tasks": tasks, "code": code.pickles}
    return Workflow(spec, ids, keeps)


def _scan_all(roots: Iterable[Node], constants: Constants) -> Dict[Node, Call]:
    calls: Dict[Node, Call] = {}
    waiting = deque(roots)
    while waiting:
        node = waiting.popleft()
        if node in calls:
            continue
        if len(calls) >= SCAN_NODES_MAX:
            raise ForesailError(f"the graph has more than {SCAN_NODES_MAX} tasks", "compute it in parts")
        call = calls[node] = scan(node, constants)
        waiting.extend(call.parents())
    return calls


def _ids(order: List[Node]) -> Dict[Node, str]:
    counts: Dict[str, int] = {}
    ids: Dict[Node, str] = {}
    for node in order:
        number = counts.get(node.name, 0)
        counts[node.name] = number + 1
        ids[node] = f"{node.name}-{number}"
    return ids


def _conditions(roots: List[Node], calls: Dict[Node, Call]) -> Dict[Node, Dict[str, Any]]:
    """When each node runs that does not always: those that nothing but a branch needs.

    Of branches inside branches the innermost decides; its own decider is in the outer one.
    """
    found: Dict[Node, Tuple[int, Tuple[Node, str]]] = {}
    for call in calls.values():
        for decider, wanted, branch in call.node.branches:
            without = _reach(roots, calls, (call.node, branch._node))
            alone = _reach([branch._node], calls, None) - without
            for node in alone:
                if node not in found or len(alone) < found[node][0]:
                    found[node] = (len(alone), (decider, wanted))
    return {node: {"decider": decider, "is": wanted} for node, (_, (decider, wanted)) in found.items()}


def _reach(roots: Iterable[Node], calls: Dict[Node, Call], cut: Optional[Tuple[Node, Node]]) -> Set[Node]:
    """Everything that `roots` need, over all edges but one."""
    seen: Set[Node] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for parent in calls[node].parents():
            if cut is None or cut != (node, parent):
                waiting.append(parent)
    return seen


class _Code:
    """The pickled functions of a workflow, each once."""

    def __init__(self) -> None:
        self.pickles: Dict[str, str] = {}
        self._known: Dict[int, Tuple[Any, str]] = {}

    def add(self, function: Callable[..., Any]) -> str:
        """The hash of a function."""
        known = self._known.get(id(function))
        if known is not None:
            return known[1]
        try:
            pickled = _wire.dump_code(function)
        except Exception as error:
            if "is not known yet" in str(error):
                raise
            said = f"the function `{getattr(function, '__qualname__', function)}` cannot be sent to a worker"
            hint = "what it uses from outside (open files, connections, locks) must be made inside it"
            raise TypeError(f"{said}: {error}; hint: {hint}") from error
        digest = _wire.code_hash(pickled)
        self.pickles[digest] = base64.b64encode(pickled).decode()
        self._known[id(function)] = (function, digest)
        return digest


class _Layers:
    """The functions of tasks with the optimisations that the user gave them."""

    def __init__(self, calls: Dict[Node, Call], wants: Set[Any]) -> None:
        self.wants = wants
        self.of: Dict[Node, List[Optimization]] = {}
        self.readers: Dict[Tuple[Node, str], List[Node]] = {}
        self.known: Dict[Any, Optimized] = {}
        for node in calls:
            # What Foresail knows itself stands in the workflow.
            own = [each for each in node.settings.optimizations if each.spec() is None]
            if own:
                facts = OptimizedTask(node.name, (), [False] * node.outputs)
                self.of[node] = [each for each in own if each.wanted(facts)]
        if self.of:
            for node, call in calls.items():
                for source in call.inputs:
                    if type(source) is tuple:
                        self.readers.setdefault(source[:2], []).append(node)

    def function(self, call: Call) -> Callable[..., Any]:
        """What a worker calls for a task."""
        node = call.node
        own = self.of.get(node)
        if not own:
            return node.function
        layers = [(each, self.facts(call, each)) for each in own]
        told = tuple((id(each), facts.inputs_within, facts.outputs_within) for each, facts in layers)
        key = (id(node.function), node.name, node.outputs, told)
        if key not in self.known:
            # Kept, so that the same function is pickled once.
            self.known[key] = Optimized(node.function, layers, node.outputs)
        return self.known[key]

    def facts(self, call: Call, optimization: Optimization) -> OptimizedTask:
        """What the optimisation is told of a task."""
        node = call.node
        outputs = [(node, node.output_name(number)) for number in range(node.outputs)]
        inputs = [
            type(source) is tuple and self.is_within(source[0], source[1], optimization.name) for source in call.inputs
        ]
        return OptimizedTask(node.name, inputs, [self.is_within(*output, optimization.name) for output in outputs])

    def is_within(self, node: Node, output: str, name: str) -> bool:
        """Whether nobody but tasks with this optimisation sees an output."""
        if node.width or node.decides or (node, output) in self.wants:
            return False
        return all(
            any(each.name == name for each in self.of.get(other, ()))
            for other in [node, *self.readers.get((node, output), [])]
        )


def _task(
    call: Call,
    function: Callable[..., Any],
    ids: Dict[Node, str],
    condition: Optional[Dict[str, Any]],
    used: Set[Any],
    code: _Code,
) -> Dict[str, Any]:
    node = call.node
    python: Dict[str, Any] = {"code": code.add(function), "python": PYTHON}
    if call.args is not None:
        python["args"] = base64.b64encode(call.args).decode()
    task: Dict[str, Any] = {"id": ids[node], "name": node.name, "run": {"python": python}}
    if call.inputs:
        task["inputs"] = [_input(source, ids) for source in call.inputs]
    if node.outputs > 1:
        task["outputs"] = [{"name": node.output_name(number)} for number in range(node.outputs)]
    elif node.decides:
        task["outputs"], task["decision"] = [{"name": "decision"}], "decision"
    elif node.width:
        names = ["out"] if (node, "out") in used else []
        names += ["width", *(f"part-{place}" for place in range(node.width))]
        task["outputs"], task["decision"] = [{"name": name} for name in names], "width"
    if node.part is not None:
        source, place = node.part
        task["when"] = {"task": ids[source], "above": place}
    elif condition is not None:
        task["when"] = {"task": ids[condition["decider"]], "is": condition["is"]}
    after = [ids[decider] for decider in {decider: None for decider, _, _ in node.branches}]
    after = [decider for decider in after if decider not in {source.get("task") for source in task.get("inputs", [])}]
    after += [ids[earlier] for earlier in node.after]
    if after:
        task["after"] = after
    return task


def _input(source: Any, ids: Dict[Node, str]) -> Dict[str, Any]:
    if type(source) is dict:
        return source
    node, output, optional = source
    spec: Dict[str, Any] = {"task": ids[node]}
    if output != "out":
        spec["output"] = output
    if optional:
        spec["optional"] = True
    return spec


class Shape:
    """A structure with lazy values anywhere in it, to be put together again from their results."""

    def __init__(self, structure: Any) -> None:
        self.values: List[Value[Any]] = []
        self._single = isinstance(structure, Value)
        self._pickled = b""
        if self._single:
            self.values = [structure]
            return
        known: Dict[int, int] = {}

        def find(part: Any) -> Any:
            if not isinstance(part, Value):
                return None
            if id(part) not in known:
                known[id(part)] = len(self.values)
                self.values.append(part)
            return (_wire.INPUT, known[id(part)])

        self._pickled = dump(((structure,), {}), find)

    def fill(self, results: Sequence[Any]) -> Any:
        """The structure with results in the place of the values."""
        if self._single:
            return results[0]
        (structure,), _ = _wire.load_args(self._pickled, lambda pid: results[pid[1]])
        return structure


def workflow_name(name: str) -> str:
    """A name as a workflow may have it."""
    return clean_name(re.sub(r"\.py$", "", name))


def _register() -> None:
    try:
        import cloudpickle

        cloudpickle.register_pickle_by_value(_calls)
        cloudpickle.register_pickle_by_value(_optimize)
    except (ImportError, AttributeError):
        pass


_register()
