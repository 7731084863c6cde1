"""What workers call beside the user's functions.

The functions here travel by value: a worker's Python need not have this package.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List


def identity(value: Any) -> Any:
    """The value itself."""
    return value


def get_item(value: Any, key: Any) -> Any:
    """`value[key]`."""
    return value[key]


def truth(value: Any) -> bool:
    """Whether `value` counts as true."""
    return bool(value)


def either(decision: bytes, then: Any, otherwise: Any) -> Any:
    """The value of the branch that was taken."""
    return then if decision == b"true" else otherwise


def map_part(function: Callable[[Any], Any], part: List[Any]) -> List[Any]:
    """The results of a function for a part of a list."""
    return [function(item) for item in part]


def run_node(node: Any, values: Dict[Any, Any]) -> Any:
    """The result of a task of a Dask graph."""
    return node(values)


def run_tuple(task: Any, values: Dict[Any, Any]) -> Any:
    """The result of a task of a Dask graph of the older form: tuples that begin with a function."""
    if isinstance(task, list):
        return [run_tuple(item, values) for item in task]
    if isinstance(task, tuple) and task and callable(task[0]):
        return task[0](*[run_tuple(item, values) for item in task[1:]])
    try:
        return values.get(task, task)
    except TypeError:
        return task


def call_chunk(function: Callable[..., Any], items: List[Any]) -> List[Any]:
    """The results of a function for tuples of arguments."""
    return [function(*item) for item in items]


def guarded(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The result of a function, or its exception pickled, so that other tasks of the run go on."""
    import sys
    import traceback

    try:
        return True, function(*args, **kwargs), ""
    except BaseException as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        # The runner has it, whether or not the package is installed there.
        pickled, why = sys.modules["foresail._failures"].pickled_exception(error)
        return False, pickled, text + why
