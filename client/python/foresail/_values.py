"""Lazy values: the results of calls that have not been made yet, and the graph that they are nodes of."""

from __future__ import annotations

import itertools
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generator,
    Generic,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    SupportsIndex,
    Tuple,
    TypeVar,
    Union,
    overload,
)

from . import _calls
from ._settings import TaskSettings, is_whole, refusal

if TYPE_CHECKING:
    from ._plan import Picture, Plan
    from ._run import Run

    # A lazy value may stand wherever a value is expected: for type checkers it is of any type.
    Anything = Any
else:
    Anything = object

R = TypeVar("R")
T = TypeVar("T")

WIDTH = 8
"""Places of a fan-out whose width is known only at run time, where nothing else is said."""

_numbers = itertools.count()


class Node:
    """One call: a task of the workflow."""

    __slots__ = (
        "after",
        "args",
        "branches",
        "decides",
        "function",
        "kwargs",
        "name",
        "number",
        "outputs",
        "part",
        "settings",
        "width",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        name: str,
        settings: TaskSettings,
        outputs: int = 1,
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.name, self.settings = name, settings
        # In the order of their making, so that the same program gives the same ids.
        self.number = next(_numbers)
        self.outputs = outputs
        # Parts that its list is cut into for a fan-out; 0: it is not.
        self.width = 0
        # Whether its result decides which branch is taken.
        self.decides = False
        # The place of a fan-out that it stands for, and the node whose list is cut.
        self.part: Optional[Tuple["Node", int]] = None
        # Branches that it chooses from: the node that decides, what it must decide, the branch.
        self.branches: List[Tuple["Node", str, "Value[Any]"]] = []
        # Nodes that must have ended before.
        self.after: List["Node"] = []

    def output_name(self, number: int) -> str:
        """Name of one of its outputs."""
        return "out" if self.outputs == 1 else f"out-{number}"


class Value(Generic[R], Anything):  # type: ignore[misc,unused-ignore]
    """The result of a call that has not been made yet.

    Pass it to other tasks as an argument, by itself or anywhere inside lists, tuples, dicts and dataclasses.
    `compute()` plans and runs everything that it needs and returns the result; `plan()` shows the plan
    without running it; `submit()` returns a handle at once; `await value` does what `compute()` does.
    """

    __slots__ = ("_node", "_output")
    _node: Node
    _output: str

    def __init__(self, node: Node, output: str = "out") -> None:
        self._node, self._output = node, output

    def compute(self, **options: Any) -> R:
        """Plans and runs everything that this value needs, and returns it; options as of `compute`."""
        from ._client import compute

        result: R = compute(self, **options)
        return result

    def plan(self, **options: Any) -> "Plan":
        """The plan for this value, without running anything; options as of `compute`."""
        from ._client import plan

        return plan(self, **options)

    def submit(self, **options: Any) -> "Run[R]":
        """Starts the run and returns its handle; options as of `compute`."""
        from ._client import submit

        run: "Run[R]" = submit(self, **options)
        return run

    async def acompute(self, **options: Any) -> R:
        """As `compute`, without blocking the event loop."""
        from ._client import acompute

        result: R = await acompute(self, **options)
        return result

    def __await__(self) -> Generator[Any, None, R]:
        return self.acompute().__await__()

    def visualize(self, filename: Optional[str] = None) -> "Picture":
        """A picture of the graph; written as SVG where a file name is given."""
        from ._plan import Picture

        picture = Picture.of([self])
        if filename is not None:
            picture.save(filename)
        return picture

    def __getitem__(self, key: Any) -> "Value[Any]":
        return call(_calls.get_item, (self, key), name="foresail.get_item")

    def __bool__(self) -> bool:
        hint = "use foresail.when(value, then, otherwise), or value.compute() first"
        raise TypeError(f"{self!r} is not known yet, so that nothing can be decided by it; hint: {hint}")

    def __iter__(self) -> Any:
        hint = "use task.map(value), @foresail.task(outputs=n) for a fixed number, or value.compute() first"
        raise TypeError(f"{self!r} is not known yet and cannot be iterated over; hint: {hint}")

    def __len__(self) -> int:
        raise TypeError(f"{self!r} is not known yet and has no length; hint: value.compute() first")

    def __getattr__(self, name: str) -> Any:
        # Asked for only where there is no such attribute. What begins so programs look for, which read no words.
        if name.startswith("_"):
            raise AttributeError(name)
        hint = "do it inside a task, or value.compute() first"
        raise AttributeError(f"{self!r} is not known yet and has no `{name}`; hint: {hint}")

    def __reduce__(self) -> Any:
        hint = "pass it as an argument instead of using it from a closure or a global variable"
        raise TypeError(f"{self!r} is not known yet and cannot be pickled; hint: {hint}")

    def __repr__(self) -> str:
        output = "" if self._output == "out" else f"/{self._output}"
        return f"<Value of {self._node.name}{output}>"

    def _repr_html_(self) -> str:
        return self.visualize()._repr_html_()


def _refuse_operators() -> None:
    def refuse(self: Value[Any], *_: Any) -> Any:
        hint = "do it inside a task, or value.compute() first"
        raise TypeError(f"{self!r} is not known yet and nothing can be calculated with it; hint: {hint}")

    both = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
    names = [*both, *(f"r{name}" for name in both), "lt", "le", "gt", "ge", "neg", "abs", "float", "int"]
    for name in names:
        setattr(Value, f"__{name}__", refuse)


_refuse_operators()


class Mapped(Value[List[R]]):
    """The list of the results of a fan-out whose width is known only at run time."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Value[List[R]]]) -> None:
        self._parts = list(parts)
        super().__init__(self._parts[0]._node)

    def __repr__(self) -> str:
        return f"<Value of {self._node.name} for each of a list>"


if TYPE_CHECKING:

    class Values(List[Any], Generic[R]):
        """A list of lazy values, which may stand wherever a list of their results is expected."""

        @overload
        def __getitem__(self, at: SupportsIndex) -> Value[R]: ...

        @overload
        def __getitem__(self, at: slice) -> "Values[R]": ...

        def __getitem__(self, at: Any) -> Any: ...

        def __iter__(self) -> Iterator[Value[R]]: ...

else:
    # A plain list, which any worker can unpickle.
    Values = List


def call(
    function: Callable[..., Any],
    args: Tuple[Any, ...],
    kwargs: Optional[Dict[str, Any]] = None,
    name: str = "",
    settings: Optional[TaskSettings] = None,
) -> Value[Any]:
    """The lazy result of a call."""
    return Value(Node(function, args, kwargs or {}, name, settings or TaskSettings()))


def fan_out(
    function: Callable[[Any], R], values: Value[Any], width: int, name: str, settings: TaskSettings
) -> Mapped[R]:
    """The lazy results of a function for each item of a lazy list, in `width` tasks at most."""
    import functools

    if not is_whole(width, 1):
        raise refusal("width", width, "a whole number from 1", "`width=8`")
    parts: List[Value[List[R]]] = []
    if isinstance(values, Mapped):
        sources = list(values._parts)
    else:
        node = values._node
        if node.outputs != 1 or node.part is not None or node.decides or node.width not in (0, width):
            # Its list is cut by a task of its own.
            node = call(_calls.identity, (values,), name="foresail.parts")._node
        node.width = width
        sources = [Value(node, f"part-{place}") for place in range(width)]
    over_part = functools.partial(_calls.map_part, function)
    for place, source in enumerate(sources):
        part = Node(over_part, (source,), {}, name, settings)
        if not isinstance(values, Mapped):
            part.part = (source._node, place)
        parts.append(Value(part))
    return Mapped(parts)


@overload
def when(condition: Any, then: Value[T], otherwise: Value[T]) -> Value[T]: ...


@overload
def when(condition: Any, then: T, otherwise: T) -> Value[T]: ...


def when(condition: Any, then: Any, otherwise: Any) -> Value[Any]:
    """`then` where the lazy `condition` turns out true, else `otherwise`; what only the other needs is not run.

    Both may be lazy values, plain values, or structures of both.
    """
    test = Node(_calls.truth, (condition,), {}, "foresail.test", TaskSettings())
    test.decides = True
    branches: List[Value[Any]] = [
        value if type(value) is Value else call(_calls.identity, (value,), name="foresail.branch")
        for value in (then, otherwise)
    ]
    node = Node(_calls.either, (Value(test, "decision"), *branches), {}, "foresail.either", TaskSettings())
    node.branches = [(test, "true", branches[0]), (test, "false", branches[1])]
    return Value(node)


def gather(values: Union[Iterable[Any], Value[List[T]]]) -> "Value[List[Any]]":
    """One lazy list of many lazy values; of a mapped list, all its results."""
    if isinstance(values, Mapped):
        return values
    if isinstance(values, Value):
        return values
    return call(_calls.identity, (list(values),), name="foresail.gather")
