"""How Python values travel between tasks: one stored object per value, and the arguments of a call.

A stored value is `MAGIC`, the number of out-of-band buffers and a version of Python (u32 each), the length of the
pickle and of each buffer (u64 each), the pickle (protocol 5), then the buffers, each at a multiple of 64 bytes
from the start of the object. The version, major times 256 plus minor, is that of the bytecode in the pickle, 0
where there is none: no other version can read it. All numbers are little-endian. Reading copies nothing: arrays
lie in the bytes, or in the mapping, that was read, and are read-only.

The arguments of a call are a pickle of `(args, kwargs)` in which inputs of the task stand as persistent ids:
`(INPUT, i)` is the value of input `i`, `(GATHERED, [i, ...])` the list of the values of those inputs that
exist, `(CHUNKS, [i, ...])` the list that such inputs are the parts of: the first items of all, the second items
of all, and so on, as the parts `result[i::width]` of a fan-out have them.

Nothing but the standard library is imported, and cloudpickle where it is installed and needed: a worker runs
this file in interpreters that do not have the package.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

WIRE_VERSION = 1
"""Version of everything here and of the frames of `_runner`; both sides must have the same."""

MAGIC = b"FSPY1\0\0\0"
ALIGNMENT = 64
PROTOCOL = 5

INPUT = "foresail.input"
GATHERED = "foresail.gathered"
CHUNKS = "foresail.chunks"

Buffer = Union[bytes, bytearray, memoryview]
PersistentId = Tuple[str, Union[int, List[int]]]

BY_VALUE = b"cloudpickle.cloudpickle"
"""Stands in every pickle that has a function or a class by value, with its bytecode."""
MAIN = b"__main__"
"""Stands in every pickle that names something of the main program."""

_HEAD = struct.Struct("<8sII")
_OWN_VERSION = sys.version_info[0] << 8 | sys.version_info[1]
_PADDING = bytes(ALIGNMENT)
_LENGTHS = [struct.Struct(f"<{n + 1}Q") for n in range(8)]


class Raw:
    """Bytes that a function returns to be stored as they are, for tasks that are not Python."""

    __slots__ = ("data",)

    def __init__(self, data: Union[Buffer, str]) -> None:
        self.data = data.encode() if isinstance(data, str) else data

    def __repr__(self) -> str:
        return f"Raw({len(self.data)} bytes)"


class Unpicklable(Exception):
    """A value that cannot be pickled; the text says which part of it and why."""


class OtherVersion(Exception):
    """A stored value has bytecode of another version of Python, which must not be run."""

    def __init__(self, version: int) -> None:
        self.python = f"{version >> 8}.{version & 0xFF}"
        super().__init__(f"it has bytecode of Python {self.python}")


def _lengths(n: int) -> struct.Struct:
    return _LENGTHS[n] if n < len(_LENGTHS) else struct.Struct(f"<{n + 1}Q")


def dumps(value: Any) -> List[Buffer]:
    """The stored form of `value`, in parts to be written one after the other.

    Raises `Unpicklable`, which names the part of the value that is to blame.
    """
    buffers: List[pickle.PickleBuffer] = []
    try:
        pickled = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    except Exception as error:
        return _dumps_by_value(value, error)
    return _stored(pickled, buffers, 0)


def dumps_elsewhere(value: Any) -> List[Buffer]:
    """As `dumps`, to be read by processes that run another main program: what is of this one's goes by value."""
    buffers: List[pickle.PickleBuffer] = []
    try:
        pickled = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    except Exception as error:
        return _dumps_by_value(value, error)
    return _dumps_by_value(value, None) if MAIN in pickled else _stored(pickled, buffers, 0)


def _stored(pickled: bytes, buffers: "List[pickle.PickleBuffer]", version: int) -> List[Buffer]:
    if not buffers:
        return [_HEAD.pack(MAGIC, 0, version) + _LENGTHS[0].pack(len(pickled)) + pickled]
    raws = [buffer.raw() for buffer in buffers]
    n = len(raws)
    head = _HEAD.pack(MAGIC, n, version) + _lengths(n).pack(len(pickled), *[raw.nbytes for raw in raws])
    parts: List[Buffer] = [head + pickled + _PADDING[: -(len(head) + len(pickled)) % ALIGNMENT]]
    for raw in raws:
        parts.append(raw)
        padding = -raw.nbytes % ALIGNMENT
        if padding:
            parts.append(_PADDING[:padding])
    return parts


def dumps_bytes(value: Any) -> bytes:
    """The stored form of `value` in one piece."""
    return b"".join(dumps(value))


def is_value(data: Buffer) -> bool:
    """Whether these bytes are the stored form of a value."""
    return len(data) >= 24 and bytes(data[:8]) == MAGIC


def loads(data: Buffer, writable: bool = False) -> Any:
    """The value of its stored form, whose memory it goes on using; what has no `MAGIC` is `bytes`.

    Raises `OtherVersion` where it has bytecode that is not for this interpreter. Arrays can be written to where
    `writable` says so and the memory allows it.
    """
    if not is_value(data):
        return bytes(data)
    view = memoryview(data) if writable else memoryview(data).toreadonly()
    if view.ndim != 1 or view.itemsize != 1:
        view = view.cast("B")
    pickled, sizes = _pickled(view)
    if not sizes:
        return pickle.loads(pickled)
    at = 16 + 8 * (len(sizes) + 1) + len(pickled)
    buffers = []
    for size in sizes:
        at += -at % ALIGNMENT
        if at + size > len(view):
            raise ValueError(f"the stored value is cut short: {len(view)} bytes")
        buffers.append(view[at : at + size])
        at += size
    return pickle.loads(pickled, buffers=buffers)


def loads_parts(parts: Sequence[Buffer]) -> Any:
    """The value of its stored form in the parts that `dumps` gave, whose memory it goes on using, read-only."""
    pickled, _ = _pickled(memoryview(parts[0]))
    # What lies between the buffers to align them is `bytes`.
    return pickle.loads(pickled, buffers=[part.toreadonly() for part in parts if type(part) is memoryview])


def _pickled(view: memoryview) -> "Tuple[memoryview, Tuple[int, ...]]":
    """The pickle at the beginning of a stored value, and the sizes of the buffers behind it."""
    _, n, version = _HEAD.unpack_from(view)
    if version not in (0, _OWN_VERSION):
        raise OtherVersion(version)
    lengths = _lengths(n)
    if lengths.size + 16 > len(view):
        raise ValueError(f"the stored value is cut short: {len(view)} bytes for {n} buffers")
    pickle_bytes, *sizes = lengths.unpack_from(view, 16)
    at = 16 + lengths.size
    pickled = view[at : at + pickle_bytes]
    if len(pickled) < pickle_bytes:
        raise ValueError(f"the stored value is cut short: {len(view)} bytes")
    return pickled, tuple(sizes)


def dump_code(function: Callable[..., Any]) -> bytes:
    """The pickle of a function, by value where it is not importable elsewhere; needs cloudpickle."""
    import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]

    code: bytes = cloudpickle.dumps(function, protocol=PROTOCOL)
    return code


def code_hash(code: bytes) -> str:
    """The name of pickled code: its SHA-256 in hexadecimal."""
    import hashlib

    return hashlib.sha256(code).hexdigest()


def dump_args(
    args: Sequence[Any], kwargs: "dict[str, Any]", persistent_id: Callable[[Any], Optional[PersistentId]]
) -> bytes:
    """The pickle of the arguments of a call; `persistent_id` gives the id of what is an input, else `None`.

    With cloudpickle what only this process knows (lambdas, classes of `__main__`) travels by value.
    """
    base: Any
    try:
        import cloudpickle

        base = cloudpickle.Pickler
    except ImportError:
        base = pickle.Pickler

    class Pickler(base):  # type: ignore[misc,unused-ignore]
        def persistent_id(self, value: Any) -> Optional[PersistentId]:
            return persistent_id(value)

    file = io.BytesIO()
    Pickler(file, protocol=PROTOCOL).dump((tuple(args), dict(kwargs)))
    return file.getvalue()


class _ArgsUnpickler(pickle.Unpickler):
    """Unpickler of arguments; `find` gives what stands for a persistent id."""

    find: Callable[[Any], Any]

    def persistent_load(self, pid: Any) -> Any:
        return self.find(pid)


def load_args(data: Buffer, find: Callable[[Any], Any]) -> "Tuple[tuple[Any, ...], dict[str, Any]]":
    """The arguments of a call; `find` gives the value of a persistent id."""
    unpickler = _ArgsUnpickler(io.BytesIO(data))
    unpickler.find = find
    args, kwargs = unpickler.load()
    return args, kwargs


def find_in(values: Sequence[Any], exists: Sequence[bool], pid: Any) -> Any:
    """What a persistent id stands for, given the values of the inputs and which of them exist."""
    kind, at = pid
    if kind == INPUT:
        return values[at]
    if kind == GATHERED:
        return [values[i] for i in at if exists[i]]
    if kind == CHUNKS:
        return interleave([values[i] for i in at if exists[i]])
    raise pickle.UnpicklingError(f"`{kind}` is no kind of input; are package and worker of one version?")


def interleave(parts: "Sequence[Sequence[Any]]") -> "List[Any]":
    """The list whose parts `list[i::len(parts)]` are these, in order."""
    longest = max(map(len, parts), default=0)
    return [part[at] for at in range(longest) for part in parts if at < len(part)]


def _dumps_by_value(value: Any, error: Optional[Exception]) -> List[Buffer]:
    """What plain pickle refuses, lambdas and classes of `__main__` for instance, by cloudpickle."""
    buffers: List[pickle.PickleBuffer] = []
    if isinstance(error, MemoryError):
        raise error
    try:
        import cloudpickle
    except ImportError:
        hint = "cloudpickle, which pickles more, is not installed in this interpreter"
        raise Unpicklable(f"{blame(value, pickle.dumps)}; {hint}") from error
    try:
        pickled: bytes = cloudpickle.dumps(value, protocol=PROTOCOL, buffer_callback=buffers.append)
    except MemoryError:
        raise
    except Exception as second:
        raise Unpicklable(too_deep(second) or blame(value, cloudpickle.dumps)) from second
    return _stored(pickled, buffers, _OWN_VERSION if BY_VALUE in pickled else 0)


def too_deep(error: BaseException) -> str:
    """What to say where pickling ended at the limit of recursion; empty where it ended otherwise."""
    if not isinstance(error, RecursionError) and "recursion" not in str(error):
        return ""
    limit = sys.getrecursionlimit()
    return (
        f"it is nested deeper than it can be pickled with a recursion limit of {limit}; hint: make it flat, a list "
        "instead of a chain of objects, or call `sys.setrecursionlimit` here and in the task"
    )


def blame(value: Any, dump: Callable[..., bytes], depth_max: int = 8) -> str:
    """Which part of `value` cannot be pickled, and why, in words: the innermost that can be found."""
    path, reason = "the value", ""
    for _ in range(depth_max):
        reason = _refusal(value, dump) or reason
        found = next(((name, part) for name, part in _parts(value) if _refusal(part, dump)), None)
        if found is None:
            break
        name, value = found
        path += name
    of = f"`{type(value).__module__}.{type(value).__qualname__}`"
    return f"{path} is a {of}, which cannot be pickled ({reason})"


def _refusal(value: Any, dump: Callable[..., bytes]) -> str:
    try:
        dump(value, protocol=PROTOCOL)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _parts(value: Any) -> "List[Tuple[str, Any]]":
    """The parts of a value, at most some hundred, each with how it is reached."""
    parts_max = 256
    if isinstance(value, dict):
        return [(f"[{key!r:.60}]", part) for key, part in list(value.items())[:parts_max]]
    if isinstance(value, (list, tuple)):
        return [(f"[{at}]", part) for at, part in enumerate(value[:parts_max])]
    if isinstance(value, (set, frozenset)):
        return [("{...}", part) for part in list(value)[:parts_max]]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(value, type):
        return [(f".{name}", part) for name, part in list(attributes.items())[:parts_max]]
    return []
