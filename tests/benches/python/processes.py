"""Engines as processes: started, asked, and ended with everything that they started."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS = 120
STOP_SECONDS = 10
PR_SET_CHILD_SUBREAPER = 36
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that keep numpy to one thread, for everybody: each worker has one processor."""


class Failed(Exception):
    """An engine broke or took too long."""


def adopt_orphans():
    """Makes what the descendants leave behind children of this process, so that it can be ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root):
    """The processes below one, children before their own."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end(pids):
    """Kills these processes and waits for those that are children of this one."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for pid in pids:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue


def end_everything():
    """Ends all descendants, also those that appear while it looks."""
    for _ in range(10):
        found = descendants(os.getpid())
        if not found:
            return
        end(found)
        time.sleep(0.05)


class Engine:
    """An engine that runs until it is closed."""

    def __init__(self, name, folder, log):
        self.name = name
        os.makedirs(folder)
        # The engine has a folder of its own, where relative paths lead nowhere.
        paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE), *paths]))
        if os.sep in environment.get("FORESAIL_BINARY", ""):
            environment["FORESAIL_BINARY"] = os.path.abspath(environment["FORESAIL_BINARY"])
        environment.update(dict.fromkeys(ONE_THREAD, "1"))
        # What is written beside the folder of an engine goes there too.
        environment.update(TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
        command = [sys.executable, str(HERE / "engines.py"), name, folder]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        self.answer(START_SECONDS)

    def ask(self, row, turn, limit_s):
        """The answer to one turn of a row."""
        try:
            self.process.stdin.write(json.dumps({"row": row, "turn": turn}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed("ended by itself") from error
        return self.answer(limit_s)

    def answer(self, limit_s):
        line, until = b"", time.monotonic() + limit_s
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"> {limit_s:g} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 20)
            if not piece:
                raise Failed("ended by itself")
            line += piece
        return json.loads(line)

    def close(self):
        """Lets it end in order; kills what is left of it."""
        below = descendants(self.process.pid)
        try:
            self.process.stdin.close()
            self.process.wait(STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass
        end([*descendants(self.process.pid), *below, self.process.pid])
        self.process.stdout.close()
