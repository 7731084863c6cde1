"""Optimisations of one's own: what is done with the inputs of a task before it runs, and with its outputs after.

The classes here travel by value: a worker's Python need not have this package.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple


class OptimizedTask:
    """The task that an optimisation is asked about.

    `name`: the name under which it is measured. `inputs_within` and `outputs_within` tell per input and output
    whether the task that writes it and all that read it have the same optimisation, and it is no result: only
    such values may be replaced by others, for nobody else sees them.
    """

    def __init__(self, name: str, inputs_within: Sequence[bool], outputs_within: Sequence[bool]) -> None:
        self.name = name
        self.inputs_within, self.outputs_within = tuple(inputs_within), tuple(outputs_within)

    def __repr__(self) -> str:
        return f"<OptimizedTask {self.name}: {self.inputs_within} -> {self.outputs_within}>"


class Optimization:
    """What is done for a task beside running it. Derive a class from this one for one of your own.

    `wanted` is asked in the program that computes, for every task that names the optimisation; `before` and
    `after` are called by the worker, around the function. A result must not change: what `after` makes of an
    output, `before` has to undo in the tasks that read it, and only where the value stays within such tasks.
    Tasks have the same optimisation where its `name` is the same; it is that of the class by default.
    """

    @property
    def name(self) -> str:
        """What tells it apart from others."""
        return type(self).__qualname__

    def wanted(self, task: OptimizedTask) -> bool:
        """Whether it pays for this task: the planning half. What `inputs_within` says is not known yet."""
        return True

    def before(self, task: OptimizedTask, inputs: List[Any]) -> List[Any]:
        """What the function reads, given its inputs; `None` stands for one that does not exist."""
        return inputs

    def after(self, task: OptimizedTask, outputs: List[Any]) -> List[Any]:
        """What is stored, given the outputs of the function."""
        return outputs

    def spec(self) -> Optional[Dict[str, Any]]:
        """As the workflow has it; nothing for one that travels with the function."""
        return None


class Optimized:
    """A function with what is done around it; the first layer is the innermost."""

    def __init__(
        self, function: Callable[..., Any], layers: Sequence[Tuple[Optimization, OptimizedTask]], outputs: int
    ) -> None:
        self.function, self.layers, self.outputs = function, list(layers), outputs

    def foresail_before(self, inputs: List[Any]) -> List[Any]:
        """What the function reads; the runner asks before it puts the arguments together."""
        for optimization, task in reversed(self.layers):
            inputs = _as_many(optimization, "before", optimization.before(task, inputs), len(inputs))
        return inputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        if hasattr(result, "__await__"):
            import asyncio

            result = asyncio.run(result)
        if self.outputs > 1 and (not isinstance(result, (tuple, list)) or len(result) != self.outputs):
            return result  # the runner finds the words
        found = list(result) if self.outputs > 1 else [result]
        for optimization, task in self.layers:
            found = _as_many(optimization, "after", optimization.after(task, found), len(found))
        return tuple(found) if self.outputs > 1 else found[0]


def _as_many(optimization: Optimization, half: str, found: Any, expected: int) -> List[Any]:
    count = len(found) if isinstance(found, (list, tuple)) else None
    if count != expected:
        said = f"{count} values" if count is not None else f"a `{type(found).__qualname__}`"
        raise TypeError(f"`{optimization.name}.{half}` returned {said} instead of a list of {expected}")
    return list(found)
