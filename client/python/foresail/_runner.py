"""The process that runs the Python functions of one worker, call by call, until its worker is gone.

The worker starts it with a socket as standard input. A frame is its length (u32) and a body; numbers are
little-endian. A call brings the hash of the function, its code where the worker has not sent it before, the
pickled arguments and the inputs: small ones inside the frame, large ones as descriptors that come along and
are mapped read-only. The answer brings the outputs: small ones inside the frame, large ones in files without a
name, in the directory that the call names where that can be, else in memory. Of these, what nobody else can change
stays where it is, as much of it as the call allows: the answer says where its worker can read it, and its worker says
when it needs it no more (see `_keep`). One frame comes and one goes per call.

Standard output and error are one file of the worker's, which it reads and empties after every call. Imports of
the function's code are timed apart from the call: they are part of the start of a worker, not of the task.
"""

from __future__ import annotations

import importlib.util
import io
import json
import mmap
import os
import pickle
import re
import socket
import struct
import sys
import time
import traceback
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from foresail import _channel, _failures, _keep, _wire
elif {"foresail._wire", "foresail._channel", "foresail._failures"} <= sys.modules.keys():
    # The worker brings its own, whether or not the package is installed.
    _channel, _wire = sys.modules["foresail._channel"], sys.modules["foresail._wire"]
    _failures = sys.modules["foresail._failures"]
    _keep = sys.modules.get("foresail._keep")  # not where ctypes is missing
else:
    from foresail import _channel, _failures, _keep, _wire

Failed = _failures.Failed
failure_of, missing_module = _failures.failure_of, _failures.missing_module
interpreter, pickled_exception = _failures.interpreter, _failures.pickled_exception

PYTHON_MIN = (3, 9)
"""Oldest Python whose interpreter runs functions."""
FUNCTIONS_MAX = 256
"""Functions that are kept unpickled."""
APART_BYTES_MIN = 64 << 10
"""Outputs of so many bytes together go into files."""
INLINE_BYTES_MAX = 4 << 10
"""Largest output inside the frame where others go into files."""
OWN_FILE_BYTES_MIN = 256 << 10
"""An output of so many bytes gets a file of its own, which its store may take over as it is."""
PAGE = 4096
FILES_MAX = 128
"""Outputs with files of their own; what comes past them shares one."""
TOGETHER = 0xFFFFFFFF
"""Stands for the number of the file that outputs share until that is known."""

HELLO, OK, FAILED, NEED_CODE = 0, 1, 2, 3
CALL, LOAD, RELEASE = 1, 2, 3
HAS_ARGS, HAS_DECISION = 1, 2
ABSENT, INLINE, MAPPED, JSON_VALUE, KEPT = 0, 1, 2, 3, 4

_CALL = struct.Struct("<BBxxIIIIIQQ32s")
_PLACE = struct.Struct("<BxxxIQQ")
_ANSWER = struct.Struct("<BBxxIQQII")
_NUMBER = struct.Struct("<Q")

_context = b""


def context() -> "Dict[str, Any]":
    """The task that runs: `run`, `task`, `attempt`, and `idempotency_key`, the same for all its attempts."""
    if not _context:
        return {}
    run, task, attempt = _context.decode().split("\0")[:3]
    return {"run": run, "task": task, "attempt": int(attempt), "idempotency_key": f"{run}/{task}"}


def python() -> str:
    """The version of Python that pickled the call; empty where that is not known."""
    return _context.decode().split("\0")[3]


class Functions:
    """The functions that were unpickled, by hash; the one that was not called for longest goes first."""

    def __init__(self) -> None:
        self.known: "OrderedDict[bytes, Callable[..., Any]]" = OrderedDict()

    def find(self, digest: bytes) -> Optional[Callable[..., Any]]:
        """The function of this hash, where it is here."""
        function = self.known.get(digest)
        if function is not None:
            self.known.move_to_end(digest)
        return function

    def load(self, digest: bytes, code: bytes, python: str) -> Callable[..., Any]:
        """Unpickles and keeps a function; `python` is the version that pickled it, where that is known."""
        import hashlib

        found = hashlib.sha256(code).digest()
        if found != digest:
            raise Failed(
                _failures.CODE,
                f"the code of the function has the SHA-256 `{found.hex()}`, the task names `{digest.hex()}`; "
                "hint: the workflow was changed on its way, submit it again",
            )
        check_version(code, python, "the function was")
        try:
            function: Callable[..., Any] = pickle.loads(code)
        except ModuleNotFoundError as error:
            raise Failed(_failures.MISSING_MODULE, missing_module(error, "its code cannot be loaded")) from error
        except MemoryError:
            raise
        except BaseException as error:
            text = "".join(traceback.format_exception_only(type(error), error)).strip()
            raise Failed(
                _failures.CODE,
                f"the function cannot be unpickled by {interpreter()}: {text}; hint: let the workers run "
                "the Python of the client (`--python PATH`, FORESAIL_PYTHON), with the same versions of modules",
                pickled_exception(error)[0],
            ) from error
        if not callable(function):
            raise Failed(_failures.CODE, f"the code of the task is a `{type(function).__qualname__}`, not a function")
        self.known[digest] = function
        if len(self.known) > FUNCTIONS_MAX:
            self.known.popitem(last=False)
        return function


def check_version(pickled: bytes, python: str, what: str) -> None:
    """Refuses bytecode of another version, which would end this process, or do something else than it says."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # What is pickled by reference runs in any version, bytecode in its own alone.
    if python and python.split(".")[:2] != own.split(".") and _wire.BY_VALUE in pickled:
        raise _of_other_version(what, python)


def _of_other_version(what: str, python: str) -> Failed:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Failed(
        _failures.CODE,
        f"{what} pickled by Python {python}, the worker runs {interpreter()}; hint: let the "
        f"workers run Python {python} (`--python PATH`, FORESAIL_PYTHON), or the client Python {own}",
    )


class Runner:
    """Carries out calls."""

    def __init__(self, channel: _channel.Channel) -> None:
        self.channel = channel
        self.functions = Functions()
        self.flush_c = _c_flush()
        self.own = os.getpid()
        self.keeper = _keep.Keeper() if _keep is not None else None
        # The most that a call was allowed to keep; 0 where nothing can be kept.
        self.held = 0 if _keep is not None else sys.maxsize
        self.streams = Streams()

    def serve(self) -> NoReturn:
        """Answers frame after frame."""
        while True:
            frame = self.channel.receive()
            try:
                self.answer(frame)
            except BaseException as error:
                failed = failure_of(error)
                del error
                if os.getpid() != self.own:
                    os._exit(1)
                frame.close()
                self.fail(failed)
            self.streams.reset()
            del frame

    def answer(self, frame: _channel.Frame) -> None:
        """Carries out what a frame asks for."""
        global _context
        body = frame.body
        if body[0] == RELEASE:
            if self.keeper is not None:
                self.keeper.release([number for (number,) in _NUMBER.iter_unpack(body[8:])])
            return
        kind, flags, n_inputs, code_len, args_len, names_len, context_len, limit, keep_max, digest = (
            _CALL.unpack_from(body)
        )
        at = _CALL.size
        code = bytes(body[at : at + code_len])
        at += code_len
        args = bytes(body[at : at + args_len])
        at += args_len
        names = bytes(body[at : at + names_len])
        at += names_len
        _context = bytes(body[at : at + context_len])
        at += context_len
        began = time.perf_counter_ns()
        function = self.functions.find(digest)
        init_ns = 0
        if function is None:
            if not code:
                self.channel.send([_ANSWER.pack(NEED_CODE, 0, 0, 0, 0, 0, 0)])
                return
            function = self.functions.load(digest, code, python())
            loaded = time.perf_counter_ns()
            init_ns, began = loaded - began, loaded
        if keep_max > self.held:
            # Not before it is known how much memory the worker has.
            self.held = keep_max
            _keep.hold_freed(keep_max)
        if kind == LOAD:
            self.tell([], [], 0, init_ns, 0)
            return
        arguments: Any = ()
        keywords: "Dict[str, Any]" = {}
        values: "List[Any]" = []
        exists: "List[bool]" = []
        if n_inputs:
            values, exists = self.inputs(frame, at, n_inputs)
            before = getattr(function, "foresail_before", None)
            if before is not None:
                values = before(values)
            if not flags & HAS_ARGS:
                arguments = tuple(values)
        if flags & HAS_ARGS:
            arguments, keywords = _arguments(args, values, exists)
        result = function(*arguments, **keywords)
        if type(result) is _COROUTINE:
            import asyncio

            result = asyncio.run(result)
        if os.getpid() != self.own:
            # The function forked and this is the child, which has nothing to say here.
            self.flush()
            os._exit(0)
        # Inputs that only the call held are unmapped before the result takes memory.
        del arguments, keywords, values
        objects = outputs(result, names, bool(flags & HAS_DECISION))
        del result
        sizes = [sum(map(_channel.size_of, parts)) for parts in objects]
        size = sum(sizes)
        if size > limit:
            raise Failed(
                _failures.TOO_LARGE,
                f"the result has {size} bytes, at most {limit} can be stored; hint: return less, in several "
                "outputs or parts, or write it to a file and return its path",
            )
        self.tell(objects, sizes, began, init_ns, keep_max)

    def inputs(self, frame: _channel.Frame, at: int, n_inputs: int) -> "Tuple[List[Any], List[bool]]":
        """The values of the inputs, and which of them exist."""
        body = frame.body
        values: "List[Any]" = []
        exists: "List[bool]" = []
        table = _PLACE.iter_unpack(body[at : at + n_inputs * _PLACE.size])
        for number, (kind, descriptor, offset, length) in enumerate(table):
            exists.append(kind != ABSENT)
            try:
                if kind == ABSENT:
                    values.append(None)
                elif kind == KEPT and self.keeper is not None:
                    values.append(self.keeper.value(offset))
                elif kind == MAPPED:
                    values.append(_wire.loads(_mapping(frame.descriptors[descriptor], offset, length)))
                elif kind == JSON_VALUE:
                    values.append(json.loads(bytes(body[offset : offset + length])))
                else:
                    values.append(_wire.loads(bytes(body[offset : offset + length])))
            except ModuleNotFoundError as error:
                raise Failed(
                    _failures.MISSING_MODULE, missing_module(error, f"input {number} cannot be read")
                ) from error
            except MemoryError:
                raise
            except _wire.OtherVersion as error:
                raise _of_other_version(f"input {number} has a function or a class that was", error.python) from None
            except Exception as error:
                text = "".join(traceback.format_exception_only(type(error), error)).strip()
                raise Failed(
                    _failures.INPUTS, f"input {number} of {length} bytes cannot be unpickled: {text}"
                ) from error
        frame.close()
        return values, exists

    def tell(
        self, objects: "List[List[Any]]", sizes: "List[int]", began: int, init_ns: int, keep_max: int
    ) -> None:
        """Answers with outputs, of which so many bytes may be kept; the time since `began` is that of the call."""
        table: "List[bytes]" = []
        inline: "List[Any]" = []
        files: "List[int]" = []
        kept = self.keeper.last if self.keeper is not None else 0
        try:
            if sum(sizes) < APART_BYTES_MIN:
                at = 0
                for parts, size in zip(objects, sizes):
                    table.append(_PLACE.pack(INLINE, 0, at, size))
                    inline += parts
                    at += size
            else:
                self.place(objects, sizes, table, inline, files, keep_max)
            self.flush()
            exec_ns = time.perf_counter_ns() - began if began else 0
            head = _ANSWER.pack(OK, 0, len(objects), exec_ns, init_ns, 0, 0)
            self.channel.send([head, *table, *inline], files)
        except BaseException:
            # Nobody was told of what was kept.
            if self.keeper is not None:
                self.keeper.release(range(kept + 1, self.keeper.last + 1))
            raise
        finally:
            for descriptor in files:
                os.close(descriptor)

    def place(
        self,
        objects: "List[List[Any]]",
        sizes: "List[int]",
        table: "List[bytes]",
        inline: "List[Any]",
        files: "List[int]",
        keep_max: int,
    ) -> None:
        """Keeps large outputs, or writes them into files: the largest ones each into its own, the others into one."""
        place = _context.decode().split("\0")[4]
        together: "List[Any]" = []
        end, at = 0, 0
        for parts, size in zip(objects, sizes):
            kept = None
            if OWN_FILE_BYTES_MIN <= size <= keep_max and self.keeper is not None:
                kept = self.keeper.keep(parts, size)
            if kept is not None:
                number, spans = kept
                keep_max -= size
                table.append(_PLACE.pack(KEPT, len(parts), at, size))
                inline += [_NUMBER.pack(number), spans]
                at += _NUMBER.size + len(spans)
            elif size >= OWN_FILE_BYTES_MIN and len(files) < FILES_MAX:
                table.append(_PLACE.pack(MAPPED, len(files), 0, size))
                files.append(_channel.written(place, parts))
            elif size > INLINE_BYTES_MAX:
                together.append(bytes(-end % PAGE))
                end += -end % PAGE
                table.append(_PLACE.pack(MAPPED, TOGETHER, end, size))
                together += parts
                end += size
            else:
                table.append(_PLACE.pack(INLINE, 0, at, size))
                inline += parts
                at += size
        if together:
            # Their file is the last one, whose number shows only now.
            table[:] = [self._numbered(entry, len(files)) for entry in table]
            files.append(_channel.written("", together))

    @staticmethod
    def _numbered(entry: bytes, last: int) -> bytes:
        kind, number, offset, size = _PLACE.unpack(entry)
        return _PLACE.pack(kind, last if number == TOGETHER else number, offset, size)

    def fail(self, failed: Failed) -> None:
        """Answers with a failure."""
        self.flush()
        text = failed.text.encode("utf-8", "backslashreplace")
        head = _ANSWER.pack(FAILED, failed.category, 0, 0, 0, len(text), len(failed.exception))
        self.channel.send([head, text, failed.exception])

    def flush(self) -> None:
        """Brings what was printed, also by C code, to the file of the worker."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # the user may have closed or replaced it
                pass
        self.flush_c()


class Streams:
    """Standard output and error as they were at the start: a function may close or replace them."""

    def __init__(self) -> None:
        self.names = ("stdout", "stderr")
        self.streams = [getattr(sys, name) for name in self.names]
        self.spares = [os.dup(number) for number in (1, 2)]

    def reset(self) -> None:
        """Brings them back where a call has changed them."""
        for at, name in enumerate(self.names):
            number, spare, stream = at + 1, self.spares[at], self.streams[at]
            try:
                # Of what tells whether it is open this takes least time.
                os.get_inheritable(number)
            except OSError:
                os.dup2(spare, number)
            if stream.closed:
                stream = self.streams[at] = _text_of(number)
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)


def _text_of(number: int) -> io.TextIOWrapper:
    # What was printed before a crash must not be lost in a buffer.
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


async def _nothing() -> None:
    pass


def _coroutine_type() -> type:
    coroutine = _nothing()
    coroutine.close()
    return type(coroutine)


_COROUTINE: Any = _coroutine_type()


def _arguments(args: bytes, values: "List[Any]", exists: "List[bool]") -> "Tuple[Any, Any]":
    # A class of the main program as an argument brings its bytecode, whatever the function is.
    check_version(args, python(), "the arguments were")
    try:
        if b"foresail." not in args:
            return pickle.loads(args)  # type: ignore[no-any-return]
        return _wire.load_args(args, lambda pid: _wire.find_in(values, exists, pid))
    except ModuleNotFoundError as error:
        raise Failed(_failures.MISSING_MODULE, missing_module(error, "the arguments cannot be read")) from error
    except MemoryError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
        raise Failed(_failures.INPUTS, f"the arguments cannot be unpickled by {interpreter()}: {text}") from error


def _mapping(descriptor: int, offset: int, length: int) -> memoryview:
    """The bytes of an input, mapped; its pages are those that its writer filled."""
    lead = offset % mmap.ALLOCATIONGRANULARITY
    mapping = mmap.mmap(descriptor, lead + length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset - lead)
    return memoryview(mapping)[lead : lead + length]


def outputs(result: Any, names: bytes, has_decision: bool) -> "List[List[Any]]":
    """The stored forms of the outputs, in order, each in parts; no names mean the only output `out`."""
    if not names:
        return [stored(result, "the result")]
    wanted = names.decode().split("\0")
    if has_decision:
        return decided(result, wanted[0], wanted[1:])
    if isinstance(result, dict) and len(wanted) > 1:
        missing = [name for name in wanted if name not in result]
        if missing:
            has = ", ".join(f"`{key}`" for key in result)
            raise Failed(
                _failures.OUTPUTS, f"the function returned no output `{missing[0]}`, only {has or 'an empty dict'}"
            )
        return [stored(result[name], f"output `{name}`") for name in wanted]
    if len(wanted) == 1:
        return [stored(result, f"output `{wanted[0]}`")]
    if not isinstance(result, (tuple, list)) or len(result) != len(wanted):
        what = f"a `{type(result).__qualname__}`"
        if isinstance(result, (tuple, list)):
            what = f"{len(result)} values"
        raise Failed(
            _failures.OUTPUTS,
            f"the function returned {what}, the task has {len(wanted)} outputs; hint: return a tuple of so many "
            "values, or a dict by the names of the outputs",
        )
    return [stored(value, f"output `{name}`") for name, value in zip(wanted, result)]


def decided(result: Any, decision: str, wanted: "Sequence[str]") -> "List[List[Any]]":
    """The outputs of a task that decides: its result, what it decided, the parts of a fan-out."""
    width = sum(1 for name in wanted if name != decision and re.fullmatch(r"part-[0-9]+", name))
    if width and not isinstance(result, list):
        try:
            result = list(result)
        except TypeError:
            raise Failed(
                _failures.OUTPUTS,
                f"the function returned a `{type(result).__qualname__}`, over which nothing can fan out; hint: "
                "return a list",
            ) from None
    objects = []
    for name in wanted:
        if name == decision:
            objects.append([json.dumps(_decision(result)).encode()])
        elif name == "out":
            objects.append(stored(result, "the result"))
        elif width and name.startswith("part-"):
            objects.append(stored(result[int(name[5:]) :: width], f"output `{name}`"))
        else:
            raise Failed(
                _failures.OUTPUTS, f"a task that decides has no output `{name}`; hint: only `out` and `part-N`"
            )
    return objects


def _decision(result: Any) -> Any:
    if isinstance(result, (list, tuple, dict, set, frozenset)):
        return len(result)
    if isinstance(result, (bool, int, str)):
        return result
    item = getattr(result, "item", None)  # a scalar of numpy
    if callable(item) and getattr(result, "ndim", None) == 0:
        return _decision(item())
    raise Failed(
        _failures.OUTPUTS,
        f"the function returned a `{type(result).__qualname__}`, which decides nothing; hint: return a whole "
        "number, a text, a boolean or a list",
    )


def stored(value: Any, what: str) -> "List[Any]":
    """The stored form of one output, in parts."""
    if type(value) is _wire.Raw:
        data = value.data
        return [data if type(data) is bytes else memoryview(data).cast("B")]
    try:
        return _wire.dumps(value)
    except _wire.Unpicklable as error:
        hint = "hint: return data (numbers, texts, arrays, containers of them), not handles of this process"
        raise Failed(_failures.RESULT, f"{what} of the function cannot be stored: {error}; {hint}") from None


def _c_flush() -> Callable[[], Any]:
    """Flushes the streams of C, where ctypes is there."""
    try:
        import ctypes

        flush = ctypes.CDLL(None).fflush
        return lambda: flush(None)
    except Exception:
        return lambda: None


def other_version(python: "Tuple[int, ...]" = sys.version_info[:3]) -> str:
    """What is wrong with this interpreter, or the package `foresail` that it has; empty where nothing is."""
    if python[:2] < PYTHON_MIN:
        return (
            f"workers need Python 3.9 or later, `{sys.executable}` is {'.'.join(map(str, python))}; hint: name "
            "another one (`--python PATH`, FORESAIL_PYTHON)"
        )
    try:
        spec = importlib.util.find_spec("foresail")
    except (ImportError, ValueError):
        return ""
    for place in (spec.submodule_search_locations or []) if spec else []:
        try:
            with open(os.path.join(place, "_wire.py"), encoding="utf-8") as file:
                found = re.search(r"^WIRE_VERSION = (\d+)$", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found and int(found.group(1)) != _wire.WIRE_VERSION:
            return (
                f"the package `foresail` in `{place}` speaks version {found.group(1)} of the format, the worker "
                f"version {_wire.WIRE_VERSION}; hint: install the package of the same release as the worker for "
                f"{interpreter()}"
            )
    return ""


def stand_in() -> None:
    """Lets code that names the package load where that is not installed: it has what a running task needs."""
    try:
        if importlib.util.find_spec("foresail") is not None:
            return
    except (ImportError, ValueError):
        pass
    import types

    package = types.ModuleType("foresail", "The part of Foresail that workers bring along.")
    package.__path__ = []
    known = {"Raw": _wire.Raw, "context": context, "_wire": _wire, "_runner": sys.modules.get(__name__)}
    package.__dict__.update(known)
    sys.modules["foresail"] = package


def main() -> NoReturn:
    """Takes the socket from standard input and serves."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    channel = _channel.Channel(sock)
    fault = other_version()
    if fault:
        text = fault.encode()
        channel.send([_ANSWER.pack(FAILED, _failures.CODE, 0, 0, 0, len(text), 0), text])
        os._exit(0)
    stand_in()
    for stream in (sys.stdout, sys.stderr):
        # What was printed before a crash must not be lost in a buffer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        import faulthandler

        faulthandler.enable()
    except Exception:
        pass
    hello: "Dict[str, Any]" = {
        "wire": _wire.WIRE_VERSION,
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
    }
    if _keep is not None:
        hello["probe"] = _keep.probe()
    text = json.dumps(hello).encode()
    runner = Runner(channel)
    channel.send([_ANSWER.pack(HELLO, 0, 0, 0, 0, len(text), 0), text])
    runner.serve()
