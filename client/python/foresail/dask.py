"""Dask graphs on Foresail: `dask.compute(x, scheduler=foresail.dask.get)`.

Works for delayed, array, dataframe and bag. Tasks are named by the prefix of their key, so that what is measured
is found again the next time. Of `dask.annotate`, `retries` and the `memory` of `resources` (in bytes,
or as text like "2GB") are honoured; the others say where Dask's own scheduler shall run something, and have no meaning
here.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Dict, Hashable, Iterable, List, Mapping, Optional, Tuple

from . import _calls
from ._client import Client, default_client
from ._settings import TaskSettings, clean_name
from ._values import Value, call

try:
    from dask import _task_spec as _spec
except ImportError:  # Dask before 2024.9 has tuples alone
    _spec = None  # type: ignore[assignment,unused-ignore]

__all__ = ["get"]

_OPTIONS = frozenset(
    [
        *("planner", "sla", "deadline", "confidence", "budget_usd", "objective"),
        *("replan", "retries", "without", "seed", "name"),
    ]
)
_HONOURED = frozenset({"retries", "resources"})

Annotations = Mapping[str, Mapping[Any, Any]]


def get(dsk: Any, keys: Any, client: Optional[Client] = None, **options: Any) -> Any:
    """The values of `keys` of a Dask graph; a scheduler for `dask.compute` and `dask.config.set`.

    Options of `foresail.compute` may be given, to `dask.compute(x, scheduler=..., deadline="20s")` for
    instance; those of other schedulers (`num_workers`, `pool`, ...) change nothing.
    """
    annotations = _annotations(dsk)
    flat = list(_flat(keys))
    found = _Graph(_plain(dsk), annotations).values(flat)
    lazy = [key for key in dict.fromkeys(flat) if isinstance(found[key], Value)]
    if lazy:
        known = {name: value for name, value in options.items() if name in _OPTIONS}
        results = (client or default_client()).compute([found[key] for key in lazy], **known)
        found.update(zip(lazy, results))
    return _nested(keys, found)


def _plain(dsk: Any) -> Dict[Any, Any]:
    """The graph as a dict, without layers."""
    return dict(dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk)


def _flat(keys: Any) -> Iterable[Hashable]:
    if isinstance(keys, list):
        for key in keys:
            yield from _flat(key)
    else:
        yield keys


def _nested(keys: Any, found: Mapping[Hashable, Any]) -> Any:
    return tuple(_nested(key, found) for key in keys) if isinstance(keys, list) else found[keys]


class _Graph:
    """A Dask graph on its way to lazy values."""

    def __init__(self, graph: Dict[Any, Any], annotations: Annotations) -> None:
        self.graph: Dict[Any, Any] = _spec.convert_legacy_graph(graph) if _spec is not None else graph
        self.settings = _Settings(annotations)
        self.done: Dict[Any, Any] = {}
        self.names: Dict[str, str] = {}

    def values(self, keys: List[Hashable]) -> Dict[Any, Any]:
        """The lazy values of `keys`; the value itself where the graph has it."""
        waiting: List[Any] = list(reversed(keys))
        while waiting:
            key = waiting[-1]
            if key in self.done:
                waiting.pop()
                continue
            missing = [other for other in self.dependencies(key) if other not in self.done]
            if missing:
                waiting.extend(reversed(missing))
                continue
            self.done[waiting.pop()] = self.value(key)
        return {key: self.done[key] for key in keys}

    def dependencies(self, key: Any) -> List[Any]:
        node = self.graph[key]
        if _spec is not None:
            # The order of a set changes from process to process.
            return sorted(node.dependencies, key=repr)
        from dask.core import get_dependencies

        return sorted(get_dependencies(self.graph, key), key=repr)

    def value(self, key: Any) -> Any:
        node = self.graph[key]
        if _spec is None:
            return self.value_of_tuple(key, node)
        if isinstance(node, _spec.Alias):
            return self.done[node.target]
        if isinstance(node, _spec.DataNode):
            return node.value
        values = {other: self.done[other] for other in self.dependencies(key)}
        return call(_calls.run_node, (node, values), name=self.name(key), settings=self.settings.of(key))

    def value_of_tuple(self, key: Any, node: Any) -> Any:
        if not (isinstance(node, (tuple, list)) or self.is_key(node)):
            return node
        values = {other: self.done[other] for other in self.dependencies(key)}
        return call(_calls.run_tuple, (node, values), name=self.name(key), settings=self.settings.of(key))

    def is_key(self, node: Any) -> bool:
        try:
            return node in self.done
        except TypeError:  # an array, for instance
            return False

    def name(self, key: Any) -> str:
        """The name under which a task is measured: the same in every run."""
        first = key[0] if isinstance(key, tuple) and key else key
        text = first if isinstance(first, str) else type(first).__name__
        name = self.names.get(text)
        if name is None:
            from dask.utils import key_split

            name = self.names[text] = clean_name(f"dask.{key_split(text)}")
        return name


class _Settings:
    """What was annotated, as settings of tasks."""

    def __init__(self, annotations: Annotations) -> None:
        ignored = sorted(set(annotations) - _HONOURED)
        needed = [name for amounts in annotations.get("resources", {}).values() for name in amounts or {}]
        ignored += sorted({f"resources[{name!r}]" for name in needed if name.lower() != "memory"})
        if ignored:
            what = ", ".join(f"`{name}`" for name in ignored)
            warnings.warn(f"the annotations {what} have no meaning for Foresail and were left out", stacklevel=5)
        self.retries = annotations.get("retries", {})
        self.resources = annotations.get("resources", {})
        self.known: Dict[Tuple[Any, Any], TaskSettings] = {}

    def of(self, key: Any) -> Optional[TaskSettings]:
        retries = self.retries.get(key)
        needed = {name.lower(): amount for name, amount in (self.resources.get(key) or {}).items()}
        memory = needed.get("memory")
        if retries is None and memory is None:
            return None
        found = self.known.get((retries, memory))
        if found is None:
            from dask.utils import parse_bytes

            megabytes: Any = "auto" if memory is None else max(1, math.ceil(parse_bytes(memory) / (1 << 20)))
            found = self.known[(retries, memory)] = TaskSettings(megabytes, retries)
        return found


def _annotations(dsk: Any) -> Annotations:
    """What was annotated, by kind and key."""
    if hasattr(dsk, "__dask_annotations__"):
        found: Annotations = dsk.__dask_annotations__() or {}
        return found
    by_kind: Dict[str, Dict[Any, Any]] = {}
    for layer in getattr(dsk, "layers", {}).values():
        for kind, value in (getattr(layer, "annotations", None) or {}).items():
            keys = by_kind.setdefault(kind, {})
            for key in layer:
                keys[key] = value(key) if callable(value) else value
    return by_kind
