"""Plans and pictures of graphs, as they are shown in a terminal and in a notebook."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from ._graph import Constants, _scan_all
from ._show import counted, seconds, usd

if TYPE_CHECKING:
    from ._client import Client
    from ._graph import Shape, Workflow
    from ._run import Run
    from ._settings import Limits
    from ._values import Node, Value

PICTURE_NODES_MAX = 400
"""Calls that a picture shows one by one; a larger graph is shown by the names of its tasks."""
PAGE_HEIGHT = 640


class Plan:
    """A plan: which worker of which size runs each task, and what that is predicted to take and to cost.

    `predicted` and `tasks` are what the planner wrote, in ms, USD, MB and bytes; `basis` says, task by task,
    what its prediction rests on.
    """

    def __init__(
        self,
        client: "Client",
        told: Dict[str, Any],
        workflow: "Workflow",
        shape: "Shape",
        options: Dict[str, Any],
        limits: "Limits",
    ) -> None:
        self._client, self._workflow, self._shape, self._options = client, workflow, shape, options
        self._limits = limits
        self.id: str = told["id"]
        self.data: Dict[str, Any] = told["plan"]
        self.basis: List[str] = told["basis"]

    @property
    def predicted(self) -> Dict[str, Any]:
        """What the whole is predicted to take and to cost: `makespan_ms`, `cost_usd`, ..."""
        found: Dict[str, Any] = self.data["predicted"]
        return found

    @property
    def tasks(self) -> List[Dict[str, Any]]:
        """The tasks with their workers, sizes, predicted start and end."""
        found: List[Dict[str, Any]] = self.data["tasks"]
        return found

    @property
    def workers(self) -> List[Dict[str, Any]]:
        """The workers with their sizes."""
        found: List[Dict[str, Any]] = self.data["workers"]
        return found

    def explain(self, task: Optional[str] = None) -> str:
        """Why the plan is as it is; of one task, what every other size and place would bring."""
        tasks = [task] if task is not None else []
        text: str = self._client._request("explain", {"plan": self.id, "tasks": tasks})["text"]
        return text

    def html(self) -> str:
        """The plan as one page that needs nothing else: workers over time, graph, costs, reasons."""
        file = self._client._request("page", {"plan": self.id})["file"]
        with open(file, encoding="utf-8") as page:
            text = page.read()
        os.unlink(file)
        return text

    def save(self, filename: str) -> None:
        """Writes the page to a file."""
        with open(filename, "w", encoding="utf-8") as page:
            page.write(self.html())

    def submit(self) -> "Run[Any]":
        """Runs exactly this plan."""
        return self._client._submit_plan(self)

    def compute(self) -> Any:
        """Runs exactly this plan and returns the result."""
        return self._client._finish(self.submit())

    def __repr__(self) -> str:
        p = self.predicted
        workers = counted(len(self.workers), "worker") if self.workers else "flexible workers"
        planner = self._client._planners.get(self._options["planner"], self.data["planner"])
        what = f"{counted(len(self.tasks), 'task')} on {workers} by {planner}"
        return f"<Plan of {what}: {seconds(p['makespan_ms'])}, {usd(p['cost_usd'])}>"

    def _repr_html_(self) -> str:
        page = html.escape(self.html(), quote=True)
        style = f"width: 100%; height: {PAGE_HEIGHT}px; border: 1px solid #8884; border-radius: 6px"
        return f'<div>{html.escape(repr(self))}<iframe srcdoc="{page}" style="{style}"></iframe></div>'


class Picture:
    """A graph as SVG; a notebook shows it."""

    def __init__(self, svg: str) -> None:
        self.svg = svg

    @classmethod
    def of(cls, values: Sequence["Value[Any]"]) -> "Picture":
        """The calls that `values` need, level by level."""
        from ._values import Mapped

        roots = [part._node for value in values for part in (value._parts if isinstance(value, Mapped) else [value])]
        calls = _scan_all(roots, _Unwritten(""))
        edges = {node: call.parents() for node, call in calls.items()}
        return cls(_svg(edges) if len(edges) <= PICTURE_NODES_MAX else _svg(_by_name(edges)))

    def save(self, filename: str) -> None:
        """Writes the SVG to a file."""
        with open(filename, "w", encoding="utf-8") as file:
            file.write(self.svg)

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.svg}</div>'


class _Unwritten(Constants):
    """Stands for the files of large arguments where nothing is run."""

    def input(self, value: Any) -> Dict[str, Any]:
        """An input that is only looked at."""
        return {"uri": f"value-{id(value)}"}


class _Name:
    """All calls of one name, where there are too many to show each."""

    def __init__(self, name: str) -> None:
        self.name, self.number = name, 0


def _by_name(edges: "Dict[Node, List[Node]]") -> Dict[Any, List[Any]]:
    groups: Dict[str, _Name] = {}
    merged: Dict[Any, List[Any]] = {}
    for node in sorted(edges, key=lambda node: node.number):
        group = groups.setdefault(node.name, _Name(node.name))
        group.number += 1
        merged.setdefault(group, [])
    for node, parents in edges.items():
        group = groups[node.name]
        for parent in parents:
            other = groups[parent.name]
            if other is not group and other not in merged[group]:
                merged[group].append(other)
    for group in groups.values():
        group.name = f"{group.name} x {group.number}"
    return merged


def _levels(edges: Dict[Any, List[Any]]) -> Dict[Any, int]:
    """How far each node is from the sources; where names form a cycle it is cut."""
    levels: Dict[Any, int] = {}
    for start in edges:
        waiting = [start]
        on_way = set()
        while waiting:
            node = waiting[-1]
            if node in levels:
                waiting.pop()
                continue
            on_way.add(node)
            missing = [parent for parent in edges[node] if parent not in levels and parent not in on_way]
            if missing:
                waiting.extend(missing)
                continue
            levels[node] = 1 + max((levels[parent] for parent in edges[node] if parent in levels), default=-1)
            waiting.pop()
    return levels


def _svg(edges: Dict[Any, List[Any]]) -> str:
    levels = _levels(edges)
    rows: Dict[int, List[Any]] = {}
    for node in sorted(edges, key=lambda node: node.number):
        rows.setdefault(levels[node], []).append(node)
    width = max(len(node.name) for node in edges) * 7 + 16
    across, down = width + 14, 58
    widest = max(len(row) for row in rows.values())
    place = {}
    for level, row in rows.items():
        offset = (widest - len(row)) * across / 2
        for at, node in enumerate(row):
            place[node] = (offset + at * across + 8, level * down + 8)
    lines = []
    for node, parents in edges.items():
        x, y = place[node]
        for parent in dict.fromkeys(parents):
            px, py = place[parent]
            way = f"M{px + width / 2:.0f} {py + 26}L{x + width / 2:.0f} {y}"
            lines.append(f'<path d="{way}" stroke="#8889" fill="none"/>')
    for node, (x, y) in place.items():
        lines.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width}" height="26" rx="5" fill="#2f6feb22" stroke="#2f6feb"/>'
            f'<text x="{x + width / 2:.0f}" y="{y + 17}" text-anchor="middle">{html.escape(node.name)}</text>'
        )
    size = f'width="{widest * across + 8}" height="{len(rows) * down}"'
    font = 'font-family="system-ui, sans-serif" font-size="12" fill="currentColor"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(lines)}</svg>'
