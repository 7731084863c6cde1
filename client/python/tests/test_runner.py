"""The runner alone, as its worker speaks to it: what it refuses, and what one call leaves for the next."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List, Optional, Tuple

import cloudpickle
import pytest

from foresail import _errors, _failures, _graph, _runner, _wire

START = "from foresail import _runner; _runner.main()"
OTHER = "3.4"


class Process:
    """A runner, and the socket to it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-c", START]
        pipes = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        theirs.close()
        assert self.receive()[0] == _runner.HELLO

    def receive(self) -> Tuple[Any, ...]:
        (length,) = struct.unpack("<I", self._exactly(4))
        body = self._exactly(length)
        return (*_runner._ANSWER.unpack_from(body), body[_runner._ANSWER.size :])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the runner has ended"
            data += more
        return data

    def call(
        self,
        function: Any,
        *args: Any,
        python: str = _graph.PYTHON,
        kwargs: Optional[Dict[str, Any]] = None,
        stored: Optional[bytes] = None,
    ) -> Tuple[int, Any]:
        """The kind of failure, 0 for none, and the text of it or the result; `stored` is the only input."""
        code, pickled = cloudpickle.dumps(function), cloudpickle.dumps((args, kwargs or {}))
        if stored is not None:
            pickled = b""
        context = "\0".join(["run-1", "task-1", "2", python, ""]).encode()
        digest = hashlib.sha256(code).digest()
        sizes = (len(code), len(pickled), 0, len(context))
        flags, n_inputs = (_runner.HAS_ARGS, 0) if stored is None else (0, 1)
        head = _runner._CALL.pack(_runner.CALL, flags, n_inputs, *sizes, 1 << 30, 0, digest)
        body = head + code + pickled + context
        if stored is not None:
            at = len(body) + _runner._PLACE.size
            body += _runner._PLACE.pack(_runner.INLINE, 0, at, len(stored)) + stored
        self.socket.sendall(struct.pack("<I", len(body)) + body)
        status, category, _, _, _, text_len, _, rest = self.receive()
        if status == _runner.FAILED:
            return category, rest[:text_len].decode()
        return 0, _wire.loads(rest[_runner._PLACE.size :])

    def printed(self) -> str:
        """What it has printed, once it has ended."""
        self.socket.close()
        said, _ = self.process.communicate(timeout=60)
        text: str = said.decode()
        return text


@pytest.fixture
def runner() -> Iterator[Process]:
    process = Process()
    yield process
    process.socket.close()
    process.process.communicate(timeout=60)


def by_value(namespace: Dict[str, Any], text: str, name: str) -> Any:
    """Something of a program that nobody can import."""
    exec(text, {"__name__": "__main__", **namespace}, namespace)
    return namespace[name]


def test_bytecode_of_another_version_is_refused_in_functions_and_in_arguments(runner: Process) -> None:
    point = by_value({}, "class Point:\n    x = 1", "Point")
    assert runner.call(lambda: 1) == (0, 1)
    kind, said = runner.call(lambda: 2, python=OTHER)
    assert kind == _failures.CODE
    assert f"the function was pickled by Python {OTHER}" in said
    kind, said = runner.call(repr, point(), python=OTHER)
    assert kind == _failures.CODE
    assert f"the arguments were pickled by Python {OTHER}" in said
    # By reference there is no bytecode.
    assert runner.call(abs, -3, python=OTHER) == (0, 3)


def test_bytecode_of_another_version_is_refused_in_inputs(runner: Process) -> None:
    stored = bytearray(_wire.dumps_bytes(lambda: 1))
    assert runner.call(callable, stored=bytes(stored)) == (0, True)
    stored[12:14] = bytes([4, 3])
    kind, said = runner.call(callable, stored=bytes(stored))
    assert kind == _failures.CODE
    assert f"input 0 has a function or a class that was pickled by Python {OTHER}" in said
    # Whatever Python made a value that is data, and whatever version the client has.
    assert runner.call(len, stored=_wire.dumps_bytes([1, 2]), python=OTHER) == (0, 2)


def test_an_interpreter_that_is_too_old_is_refused() -> None:
    assert _runner.other_version() == ""
    said = _runner.other_version((3, 7, 16))
    assert f"workers need Python 3.9 or later, `{sys.executable}` is 3.7.16" in said
    assert "hint: name another one (`foresail.Client(python=PATH)`, FORESAIL_PYTHON)" in _errors.in_python(said)


# As the worker and the ledger of the run say it.
TOO_LARGE = (
    "the function used more memory than its worker has, and was ended for it\n"
    "attempt 1 of task `t`: it ran on 885 MB, and the platform has no larger size; hint: offer a larger size "
    "(`foresail run --memory 442,1769,4096`, or a platform whose menu has one), split the task"
)

NOT_AGAIN = "attempt 1 of task `t`: its retry settings name the failure `timeout`, so that it is not retried"


@pytest.mark.parametrize(
    ("kind", "message", "expect"),
    [
        ("out_of_memory", TOO_LARGE, ["offer a larger size (`foresail.Client(memory=[1024, 4096])`"]),
        ("out_of_memory", "memory ran out", ["give it more with `@foresail.task(memory=MB)`"]),
        ("timeout", "the attempt took longer than its limit", ["`@foresail.task(timeout=...)`"]),
        ("timeout", NOT_AGAIN, ["only with `@foresail.task(retries=n)`", "`@foresail.task(timeout=...)`"]),
    ],
)
def test_a_failure_has_one_hint_in_the_words_of_the_package(kind: str, message: str, expect: List[str]) -> None:
    failure = {"kind": kind, "message": message, "attempt": 1, "task": "t"}
    said = str(_errors.of_failure("r", "failed", failure))
    assert said.count("hint: ") == 1
    assert "foresail run" not in said
    for part in expect:
        assert part in said


def test_an_array_that_cannot_be_changed_is_explained() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.frombuffer(bytes(8))
    with pytest.raises(ValueError, match="read-only") as raised:
        array[0] = 1
    for error, is_told in ((raised.value, True), (ValueError("no"), False)):
        pickled = base64.b64encode(_failures.pickled_exception(error)[0]).decode()
        failure = {"kind": "task_error", "message": "m", "attempt": 1, "task": "t", "exception": pickled}
        found = _errors.of_failure("r", "failed", failure)
        assert type(found) is ValueError
        assert ("hint: arrays that a task receives are read-only" in str(found.__cause__)) == is_told


def test_bytecode_is_found_behind_much_else() -> None:
    many = cloudpickle.dumps(({"text": "x" * 10_000}, lambda: 1))
    with pytest.raises(_failures.Failed, match=OTHER):
        _runner.check_version(many, OTHER, "the function was")


class Wants(Exception):
    """Hands on less than it wants."""

    def __init__(self, message: str, place: int, handle: Any = None) -> None:
        super().__init__(message)
        self.place, self.handle = place, handle


class Refuses(Exception):
    def __new__(cls, *args: Any, secret: int) -> Refuses:
        return super().__new__(cls, *args)

    def __init__(self, *args: Any, secret: int) -> None:
        super().__init__(*args)


@pytest.mark.parametrize(
    ("error", "args", "state"),
    [
        (Wants("no", 3), ("no",), {"place": 3, "handle": None}),
        (Wants("no", 3, threading.Lock()), ("no",), {"place": 3}),
        (ValueError("x" * 100_000), None, {}),
        (KeyError(threading.Lock()), None, {}),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), ("utf-8", b"\xff", 0, 1, "why"), {}),
    ],
)
def test_an_exception_is_sent_with_what_of_it_can_be(error: Exception, args: Any, state: Dict[str, Any]) -> None:
    pickled, why = _failures.pickled_exception(error)
    found, _ = _errors.exception_of(pickled)
    assert (type(found), why) == (type(error), "")
    assert len(pickled) <= _failures.EXCEPTION_BYTES_MAX
    assert vars(found) == state
    if args is not None:
        assert found is not None
        assert found.args == args


def test_what_cannot_be_sent_or_read_is_told() -> None:
    pickled, why = _failures.pickled_exception(Refuses("x", secret=1))
    assert pickled == b""
    assert "secret" in why
    found, why = _errors.exception_of(b"cno_such_module\nE\n.")
    assert found is None
    assert "no_such_module" in why
