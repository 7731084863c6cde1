"""The process of the session: the program `foresail`, asked by JSON-RPC over its pipes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Deque, Dict, List, Optional, Set

from ._errors import BridgeError, of_fault

PROTOCOL = 1
START_SECONDS = 60.0
"""Longest wait for the session to begin."""
STOP_SECONDS = 20.0
# Longest wait for the end of a process whose pipes are closed.
END_SECONDS = 1.0
"""Longest wait for it to end; it is killed then."""
STDERR_LINES = 40

_log = logging.getLogger("foresail")


def find_binary() -> str:
    """The program `foresail`: `FORESAIL_BINARY`, the one installed with this package, or one on the path."""
    named = os.environ.get("FORESAIL_BINARY")
    if named:
        return named
    installed = os.path.join(sysconfig.get_path("scripts"), "foresail")
    if os.access(installed, os.X_OK):
        return installed
    found = shutil.which("foresail")
    if found is None:
        raise BridgeError(
            "the program `foresail` is not installed",
            "install the package with pip, or set FORESAIL_BINARY to its path",
        )
    return found


def _environment(python: str, token: Optional[str]) -> Dict[str, str]:
    """Workers import what this process can import; with another interpreter, what is not installed for this one."""
    environment = dict(os.environ)
    if token is not None:
        # Others can see the arguments of a process.
        environment["FORESAIL_METAD_TOKEN"] = token
    environment["FORESAIL_PYTHON"] = python
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [os.path.abspath(path or os.getcwd()) for path in sys.path if os.path.isdir(path or ".")]
    # Another interpreter has a library and packages of its own; those of this one may be of another version.
    own = set() if _is_this(python) else _installed()
    environment["PYTHONPATH"] = os.pathsep.join(path for path in dict.fromkeys([*paths, here]) if path not in own)
    return environment


def _is_this(python: str) -> bool:
    """Whether it is the interpreter of this program; that of another environment is not."""
    found = shutil.which(python) or python
    return os.path.abspath(found) == os.path.abspath(sys.executable)


def _installed() -> Set[str]:
    """The directories of this interpreter's library and of what is installed for it."""
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [os.path.join(paths["platstdlib"], "lib-dynload"), sysconfig.get_config_var("DESTSHARED") or ""]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    # In a virtual environment the library is that of the interpreter it was made with.
    found += [os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload")]
    return {os.path.abspath(path) for path in found if path}


class Bridge:
    """One session. Safe to use from several threads."""

    def __init__(
        self, arguments: List[str], python: str, token: Optional[str], hear: Callable[[str, Dict[str, Any]], None]
    ) -> None:
        self._hear = hear
        self._lock = threading.Lock()
        self._waiting: Dict[int, "Future[Any]"] = {}
        self._number = 0
        self._said: Deque[str] = deque(maxlen=STDERR_LINES)
        self._ended = False
        self._closed = False
        binary = find_binary()
        command = [binary, "bridge", "--color", "never", *arguments]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(python, token),
                # Ctrl-C is for this process to handle.
                start_new_session=True,
            )
        except OSError as error:
            raise BridgeError(f"`{binary}` cannot be started: {error}", "is FORESAIL_BINARY right?") from error
        # That of the log begins first: the other one waits for it at the end.
        self._readers = [
            threading.Thread(target=self._read_log, name="foresail-log", daemon=True),
            threading.Thread(target=self._read_answers, name="foresail-answers", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.about: Dict[str, Any] = self.request("hello", {"protocol": PROTOCOL}, START_SECONDS)
        except BaseException:
            self.close()
            raise
        self.folder: str = self.about["folder"]

    def send(self, method: str, params: Dict[str, Any]) -> "Future[Any]":
        """Asks; the answer is that of the future."""
        answer: "Future[Any]" = Future()
        with self._lock:
            if self._ended or self._closed:
                raise self._gone()
            self._number += 1
            number = self._number
            self._waiting[number] = answer
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:
                self._waiting.pop(number, None)
                raise self._gone() from error
        return answer

    def request(self, method: str, params: Dict[str, Any], timeout: Optional[float] = None) -> Any:
        """Asks and waits for the answer."""
        return self.send(method, params).result(timeout)

    @property
    def is_open(self) -> bool:
        """Whether the process lives."""
        return not self._ended

    def close(self) -> None:
        """Ends the session, and with it the stack that it started; waits for it."""
        self._closed = True
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join(1.0)

    def forget(self) -> None:
        """Lets go of a process that belongs to the parent of this one."""
        self._ended = True
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    os.close(pipe.fileno())
                except (OSError, ValueError):
                    pass

    def _gone(self) -> BridgeError:
        if self._closed:
            hint = "use it inside its `with` block, and take results there; a new one is made by `foresail.Client(...)`"
            return BridgeError("the client is closed", hint)
        said = "\n".join(self._said) or "it said nothing"
        try:
            # Its pipes close a moment before it has ended.
            code: int | None = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        return BridgeError(f"the session has ended (exit code {code}); it said:\n{said}")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                frame = json.loads(line)
            except ValueError:
                _log.warning("the session wrote something else than an answer: %.200r", line)
                continue
            if "method" in frame:
                self._hear(frame["method"], frame.get("params") or {})
                continue
            with self._lock:
                answer = self._waiting.pop(frame.get("id"), None)
            if answer is None or not answer.set_running_or_notify_cancel():
                continue
            if "error" in frame:
                answer.set_exception(of_fault(frame["error"]))
            else:
                answer.set_result(frame.get("result"))
        # The reason stands at the end of what it said.
        self._readers[0].join(1.0)
        self._process.poll()
        with self._lock:
            self._ended = True
            waiting, self._waiting = list(self._waiting.values()), {}
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(self._gone())
        self._hear("closed", {})

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._said.append(line)
            _log.info("%s", line)


def default_python() -> str:
    """The interpreter of workers: the one that runs this program."""
    return os.environ.get("FORESAIL_PYTHON") or sys.executable or "python3"
