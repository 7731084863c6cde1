"""`@foresail.task`: functions whose calls are lazy."""

from __future__ import annotations

import functools
import os
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Generic,
    Iterable,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
    overload,
)

from ._optimize import Optimization
from ._settings import Duration, Memory, TaskSettings, clean_name, is_whole, refusal
from ._values import WIDTH, Mapped, Node, Value, Values, fan_out

if sys.version_info >= (3, 10):
    from typing import ParamSpec

    P = ParamSpec("P")
elif TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
else:
    P = TypeVar("P")

R = TypeVar("R")
T = TypeVar("T")


class Task(Generic[P, R]):
    """A function whose calls are lazy: they return a `Value`, and workers make them when it is computed.

    `task.function` is the function itself; inside a worker a task is just its function.
    """

    def __init__(
        self,
        function: Callable[P, R],
        name: Optional[str] = None,
        settings: Optional[TaskSettings] = None,
        outputs: int = 1,
    ) -> None:
        if not callable(function):
            raise TypeError(f"`{function!r}` is not a function; hint: write @foresail.task over `def`")
        if not is_whole(outputs, 1):
            raise refusal("outputs", outputs, "a whole number from 1", "`outputs=2`")
        self.function = function
        self.name = clean_name(name) if name is not None else name_of(function)
        self.settings = settings or TaskSettings()
        self.outputs = outputs
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value[R]:
        node = Node(self.function, args, kwargs, self.name, self.settings, self.outputs)
        if self.outputs == 1:
            return Value(node)
        several: Any = tuple(Value(node, node.output_name(number)) for number in range(self.outputs))
        found: Value[R] = several
        return found

    @overload
    def map(self, values: Value[Any], *, width: int = WIDTH) -> Mapped[R]: ...

    @overload
    def map(self, values: Iterable[Any], *more: Iterable[Any]) -> Values[R]: ...

    def map(self, values: Any, *more: Iterable[Any], width: int = WIDTH) -> Union[Values[R], Mapped[R]]:
        """One call for each item, as the built-in `map` has it.

        Of a list that is known now: a list of lazy values. Of a lazy list, whose length is known only when the
        run has made it: a lazy list, made by at most `width` tasks, each for its share of the items; places
        that the list does not reach are not run.
        """
        if isinstance(values, Value):
            if more:
                raise TypeError("only one lazy list can be mapped; hint: zip them in a task before")
            one: Any = self.function
            return fan_out(one, values, width, self.name, self.settings)
        call: Any = self
        calls: Any = [call(*items) for items in zip(values, *more)]
        found: Values[R] = calls
        return found

    def options(
        self,
        *,
        name: Optional[str] = None,
        memory: Optional[Memory] = None,
        retries: Optional[int] = None,
        timeout: Optional[Duration] = None,
        optimizations: Optional[Sequence[Optimization]] = None,
    ) -> "Task[P, R]":
        """The same task with other settings."""
        old = self.settings
        settings = TaskSettings(
            old.memory if memory is None else memory,
            old.retries if retries is None else retries,
            old.timeout if timeout is None else timeout,
            old.optimizations if optimizations is None else tuple(optimizations),
        )
        return Task(self.function, name or self.name, settings, self.outputs)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __reduce__(self) -> Tuple[Any, ...]:
        # In a worker a task is its function; partial is known everywhere.
        return functools.partial, (self.function,)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


def name_of(function: Callable[..., Any]) -> str:
    """The name under which measurements of a function are kept: its module and its name."""
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None) or "task"
    if module == "__main__":
        module = script_name() or "main"
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return clean_name(f"{module}.{name}")


def script_name() -> str:
    """The name of the program that runs, without its extension; nothing in an interactive session."""
    path: Optional[str] = getattr(sys.modules.get("__main__"), "__file__", None)
    if not path or path.startswith("<"):
        return ""
    return os.path.splitext(os.path.basename(path))[0]


@overload
def task(function: Callable[P, R]) -> Task[P, R]: ...


@overload
def task(
    *,
    name: Optional[str] = None,
    memory: Memory = "auto",
    retries: Optional[int] = None,
    timeout: Optional[Duration] = None,
    optimizations: Sequence[Optimization] = (),
    outputs: int = 1,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Optional[Callable[..., Any]] = None,
    *,
    name: Optional[str] = None,
    memory: Memory = "auto",
    retries: Optional[int] = None,
    timeout: Optional[Duration] = None,
    optimizations: Sequence[Optimization] = (),
    outputs: int = 1,
) -> Any:
    """Makes a function a task.

    `memory`: the least a worker must have in MB, or "auto": the planner chooses by what was measured.
    `retries`: attempts after a failed one; by default what broke (a worker that died, memory that ran out) is
    tried again, and an exception of the function or a time-out is not.
    `timeout`: longest time of one attempt, in seconds or as text like "20s".
    `optimizations`: what is done for the task beside running it, for instance `[foresail.PreLoad()]`.
    `outputs`: a function that returns a tuple of that many values; the call returns as many lazy values.
    `name`: the name under which its measurements are kept; module and name of the function by default.
    """
    settings = TaskSettings(memory, retries, timeout, tuple(optimizations))
    if function is not None:
        return Task(function, name, settings, outputs)
    return lambda function: Task(function, name, settings, outputs)
