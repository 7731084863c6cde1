"""What goes wrong in a runner, in words: for the worker to tell, with the exception for the client to raise."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import traceback
from typing import TYPE_CHECKING, Any, Dict, Tuple, Type

if TYPE_CHECKING:
    from foresail import _wire
elif "foresail._wire" in sys.modules:  # as in `_runner`
    _wire = sys.modules["foresail._wire"]
else:
    from foresail import _wire

TEXT_BYTES_MAX = 7 << 10
EXCEPTION_BYTES_MAX = 24 << 10
"""Largest pickled exception: 32 KiB as base64."""
PART_LEN_MAX = 2 << 10
"""Longest text of an exception that is too large as it is."""
PART_BYTES_MAX = 6 << 10
"""Largest argument or attribute of one."""

# What kind of failure an answer tells.
USER, CODE, MISSING_MODULE, MEMORY, EXIT, RESULT, TOO_LARGE, OUTPUTS, INPUTS = range(1, 10)


class Failed(Exception):
    """A failure that is told in words."""

    def __init__(self, category: int, text: str, exception: bytes = b"") -> None:
        super().__init__(text)
        self.category, self.text, self.exception = category, text, exception


def interpreter() -> str:
    """This interpreter, in words."""
    return f"Python {sys.version.split()[0]} (`{sys.executable}`)"


def missing_module(error: ModuleNotFoundError, what: str) -> str:
    """What to do about a module that is not installed here."""
    name = (error.name or str(error)).split(".")[0]
    return (
        f"{what}: the module `{name}` is not installed for {interpreter()} of the worker; "
        f"hint: `{sys.executable} -m pip install {name}`, or name an interpreter that has it with `--python PATH`"
        " or FORESAIL_PYTHON; a module of your own must be importable from the directory of the workers or "
        "from PYTHONPATH"
    )


def rebuilt(kind: "Type[BaseException]", args: "Tuple[Any, ...]", state: "Dict[str, Any]") -> BaseException:
    """An exception without a call of its `__init__`, which may want other arguments than it hands on."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class _Rebuilt:
    """Pickles as an exception that `rebuilt` makes of what of it pickles, long texts without their middle."""

    def __init__(self, error: BaseException) -> None:
        args = tuple(part if _comes_back(part) else f"{part!r:.200}" for part in map(_cut, error.args))
        state = {name: _cut(part) for name, part in getattr(error, "__dict__", {}).items()}
        self.made_of = (type(error), args, {name: part for name, part in state.items() if _comes_back(part)})

    def __reduce__(self) -> "Tuple[Any, ...]":
        return rebuilt, self.made_of


def _cut(part: Any) -> Any:
    if isinstance(part, (str, bytes)) and len(part) > PART_LEN_MAX:
        middle: Any = " [...] " if isinstance(part, str) else b" [...] "
        return part[: PART_LEN_MAX // 2] + middle + part[-PART_LEN_MAX // 2 :]
    return part


def _comes_back(part: Any) -> bool:
    try:
        pickled = _dumps(part)
        pickle.loads(pickled)
    except Exception:
        return False
    return len(pickled) <= PART_BYTES_MAX


def _dumps(value: Any) -> bytes:
    try:
        return pickle.dumps(value, _wire.PROTOCOL)
    except Exception:
        import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]

        pickled: bytes = cloudpickle.dumps(value, protocol=_wire.PROTOCOL)
        return pickled


def pickled_exception(error: BaseException) -> "Tuple[bytes, str]":
    """The exception for the client to raise; where it cannot be sent nothing, and why."""
    why = ""
    for form in (lambda: error, lambda: _Rebuilt(error)):
        try:
            pickled = _dumps(form())
            if len(pickled) > EXCEPTION_BYTES_MAX:
                raise ValueError(f"pickled it has {len(pickled)} bytes, of which {EXCEPTION_BYTES_MAX} can be sent")
            # Of an exception that is another one at its arrival nothing would be gained.
            if type(pickle.loads(pickled)) is type(error):
                return pickled, ""
            why = why or "it is another exception when it is unpickled"
        except Exception as refused:
            why = why or f"{type(refused).__name__}: {refused}"
    return b"", f"\nthe exception itself cannot be sent: {why:.300}"


def traceback_of(error: BaseException) -> str:
    """The traceback without the frames of the runner's own files; a long one without its middle."""
    own = error.__traceback__
    while own is not None and os.path.dirname(own.tb_frame.f_code.co_filename) == os.path.dirname(__file__):
        own = own.tb_next
    lines = traceback.format_exception(type(error), error, own)
    text = "".join(lines).rstrip()
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) > TEXT_BYTES_MAX:
        head, tail = encoded[: TEXT_BYTES_MAX // 4], encoded[-TEXT_BYTES_MAX * 3 // 4 :]
        text = head.decode(errors="ignore") + "\n  [...]\n" + tail.decode(errors="ignore")
    return text


def failure_of(error: BaseException) -> Failed:
    """What an exception of the user's function means."""
    if isinstance(error, Failed):
        return error
    text = traceback_of(error)
    summary = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    first = _cut(summary[-1]) if summary else type(error).__name__
    pickled, why = pickled_exception(error)
    if isinstance(error, MemoryError):
        return Failed(MEMORY, f"the function ran out of memory\n{text}", pickled)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
        said = "" if error.code is None or isinstance(error.code, int) else f" and said `{error.code}`"
        hint = "hint: return a value, or raise an exception that says what is wrong"
        told = f"the function called `sys.exit` with code {code}{said}; {hint}\n{text}"
        # The code goes along for `retry.not_on_exit`.
        return Failed(EXIT, told, struct.pack("<I", code & 0xFFFFFFFF))
    if isinstance(error, ModuleNotFoundError):
        told = missing_module(error, f"the function failed with `{first}`")
        return Failed(MISSING_MODULE, f"{told}\n{text}", pickled)
    return Failed(USER, f"the function raised {first}\n{text}{why}", pickled)
