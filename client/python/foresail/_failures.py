"""What goes wrong in a runner, in words: for the worker to tell, with the exception for the client to raise."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foresail import _wire
elif "foresail._wire" in sys.modules:  # as in `_runner`
    _wire = sys.modules["foresail._wire"]
else:
    from foresail import _wire

TEXT_BYTES_MAX = 7 << 10
EXCEPTION_BYTES_MAX = 24 << 10
"""Largest pickled exception: 32 KiB as base64."""

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


def pickled_exception(error: BaseException) -> bytes:
    """The exception for the client to raise; nothing where it does not pickle, comes back or is too large."""
    try:
        pickled = pickle.dumps(error, _wire.PROTOCOL)
    except Exception:
        try:
            import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]

            pickled = cloudpickle.dumps(error, protocol=_wire.PROTOCOL)
        except Exception:
            return b""
    if len(pickled) > EXCEPTION_BYTES_MAX:
        return b""
    try:
        back = pickle.loads(pickled)
    except Exception:
        return b""
    return pickled if isinstance(back, BaseException) else b""


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
    first = summary[-1] if summary else type(error).__name__
    if isinstance(error, MemoryError):
        return Failed(MEMORY, f"the function ran out of memory\n{text}", pickled_exception(error))
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
        said = "" if error.code is None or isinstance(error.code, int) else f" and said `{error.code}`"
        hint = "hint: return a value, or raise an exception that says what is wrong"
        told = f"the function called `sys.exit` with code {code}{said}; {hint}\n{text}"
        # The code goes along for `retry.not_on_exit`.
        return Failed(EXIT, told, struct.pack("<I", code & 0xFFFFFFFF))
    if isinstance(error, ModuleNotFoundError):
        told = missing_module(error, f"the function failed with `{first}`")
        return Failed(MISSING_MODULE, f"{told}\n{text}", pickled_exception(error))
    return Failed(USER, f"the function raised {first}\n{text}", pickled_exception(error))
