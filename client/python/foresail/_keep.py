"""Results that stay in the process that made them, until their worker has read them or needs them no more.

A large result is not written: its worker is told where its parts lie in this process and copies them from there
when it has to, while the next call runs. The next call in this process reads the same memory, as read-only arrays.

That is safe only where nobody else can change the memory. So a result is kept where all its buffers are those of
numpy arrays, `bytes` and `bytearray` that nothing but the result refers to; an array that the function keeps too, in
a global or a cache, a view of an input, memory that C code owns: such a result is written at once, as a copy.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import weakref
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Tuple

if TYPE_CHECKING:
    from foresail import _wire
elif "foresail._wire" in sys.modules:  # as in `_runner`
    _wire = sys.modules["foresail._wire"]
else:
    from foresail import _wire

SPANS_MAX = 512
"""Parts of a result that is kept; one with more is written."""

FREED_BYTES_MAX = 64 << 20
"""Most memory that a process holds after its functions have freed it: what the C library holds at most by itself."""
FREED_BYTES_MIN = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MALLOC_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")

_SPAN = struct.Struct("<QQ")


class _View(ctypes.Structure):
    """`Py_buffer`, of which only the address is read."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def address(part: Any) -> int:
    """Where the bytes of a contiguous buffer begin."""
    view = _View()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(part), ctypes.byref(view), 0)
    try:
        return view.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


def references(view: memoryview) -> int:
    """How many refer to the owner of a buffer, this function included."""
    owner = view.obj
    return sys.getrefcount(owner)


_ALONE = references(memoryview(bytearray(1)))
"""What `references` says of an owner that nothing but its view refers to."""


def is_alone(view: memoryview) -> bool:
    """Whether nothing but this view refers to the memory, so that nobody can change it any more."""
    if type(view.obj) is bytes:
        return True
    if references(view) != _ALONE:
        return False
    owner: Any = view.obj
    if type(owner) is bytearray:
        return True
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(owner, numpy.ndarray) or weakref.getweakrefcount(owner):
        return False
    if owner.base is None:
        return bool(owner.flags.owndata)
    # A view, for instance what numpy makes of an array whose columns lie one after the other.
    whole = owner.base
    return (
        type(whole) is numpy.ndarray
        and whole.base is None
        and bool(whole.flags.owndata)
        and whole.nbytes == owner.nbytes
        and not weakref.getweakrefcount(whole)
        and sys.getrefcount(whole) == _ALONE
    )


class Keeper:
    """The results that are kept, by number."""

    def __init__(self) -> None:
        self.kept: "Dict[int, Tuple[List[Any], int]]" = {}
        self.last = 0
        self.bytes = 0

    def keep(self, parts: "List[Any]", size: int) -> "Optional[Tuple[int, bytes]]":
        """Keeps a result: its number, and address and length of each part; nothing where that is not safe."""
        views = [part for part in parts if type(part) is memoryview]
        if len(parts) > SPANS_MAX or not _wire.is_value(parts[0]) or not all(map(is_alone, views)):
            return None
        spans = b"".join([_SPAN.pack(address(part), memoryview(part).nbytes) for part in parts])
        self.last += 1
        self.kept[self.last] = parts, size
        self.bytes += size
        return self.last, spans

    def value(self, number: int) -> Any:
        """The value of a result that is kept, over the same memory."""
        parts, _ = self.kept[number]
        return _wire.loads_parts(parts)

    def release(self, numbers: "Iterable[int]") -> None:
        """Forgets results; what was made of them goes on using their memory."""
        for number in numbers:
            _, size = self.kept.pop(number, (None, 0))
            self.bytes -= size


def hold_freed(bytes_max: int) -> None:
    """Lets so much memory that functions free be used again by the next ones, 64 MiB at most.

    Otherwise large arrays of every call are new pages, which the kernel has to clear first. The C library comes to the
    same by itself in a process that frees a block of 32 MiB; here it does from the start. Whoever has settings of their
    own keeps them.
    """
    held = min(bytes_max, FREED_BYTES_MAX)
    if held < FREED_BYTES_MIN or any(name in os.environ for name in _MALLOC_VARIABLES):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library than that of GNU
        return
    # Source: mallopt(3); the ratio of both is that of the dynamic threshold.
    mallopt(_M_MMAP_THRESHOLD, held // 2)
    mallopt(_M_TRIM_THRESHOLD, held)


def probe() -> "Dict[str, int]":
    """A place in this process and what lies there, for a worker to see whether it can read it."""
    return {"at": address(_PROBE), "bytes": len(_PROBE)}


_PROBE = b"foresail may read this process"
