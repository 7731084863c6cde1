"""The session: it ends with the program however that ends, and its faults are told."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Callable, List

import pytest

import foresail
from foresail import _bridge

PROGRAM = """
import sys, time
import foresail

@foresail.task(name="naps")
def naps(seconds):
    import time
    time.sleep(seconds)
    return seconds

if __name__ == "__main__":
    client = foresail.Client(data=sys.argv[1], workers=1)
    run = naps(float(sys.argv[2])).submit(client=client)
    print(client.about["process"], flush=True)
    {end}
"""


def processes(text: str) -> List[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found


def eventually(what: str, is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def start(tmp_path: Path, end: str, seconds: str) -> "subprocess.Popen[str]":
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(end=end))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(script), str(tmp_path / "data"), seconds]
    # Who runs the tests in the background of a shell ignores Ctrl-C, and so would the program.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        signal.signal(signal.SIGINT, ignored)


def nothing_is_left(tmp_path: Path) -> None:
    eventually("every process ends", lambda: not processes(str(tmp_path)))
    assert not list(tmp_path.glob("foresail-session-*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_program_that_is_ended_from_outside(tmp_path: Path, number: signal.Signals) -> None:
    program = start(tmp_path, "run.result()", "600")
    assert program.stdout is not None
    assert int(program.stdout.readline()) > 0
    program.send_signal(number)
    program.communicate(timeout=60)
    nothing_is_left(tmp_path)


def test_nothing_is_left_of_a_program_that_forgets_to_close(tmp_path: Path) -> None:
    program = start(tmp_path, "print(run.result())", "0.1")
    said, errors = program.communicate(timeout=60)
    assert (program.returncode, said.split()[1:]) == (0, ["0.1"]), errors
    nothing_is_left(tmp_path)


def test_the_default_client_starts_when_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import foresail\nf = foresail.task(abs)\n"
        "assert f(-1).compute() == 1\nassert f(-2).compute() == 2\nprint(foresail.default_client())"
    )
    environment = {**os.environ, "FORESAIL_DATA": str(tmp_path / "d"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=90)
    assert done.stdout.startswith("<Client: "), done.stderr
    nothing_is_left(tmp_path)


def test_a_large_argument_of_classes_of_the_program_arrives(tmp_path: Path) -> None:
    script = tmp_path / "points.py"
    script.write_text(
        "import foresail\n"
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "@foresail.task\ndef total(points): return sum(point.x for point in points)\n"
        "if __name__ == '__main__':\n"
        "    points = [Point(x) for x in range(20_000)]\n"
        "    print(total(points[:10]).compute(), total(points).compute())\n"
    )
    environment = {**os.environ, "FORESAIL_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=90)
    assert done.stdout == "45 199990000\n", done.stderr


def test_a_session_that_was_killed_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What was killed cannot delete its folder.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = foresail.Client(data=str(tmp_path / "data"), workers=1)
    sleeps = foresail.task(time.sleep)
    run = client.submit(sleeps(600))
    os.kill(client.about["process"], signal.SIGKILL)
    with pytest.raises(foresail.BridgeError):
        run.result(60)
    with pytest.raises(foresail.BridgeError, match="ended"):
        client.compute(sleeps(1))
    client.close()
    eventually("the workers end", lambda: not processes(str(tmp_path / "data")))


def test_a_program_that_is_none_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESAIL_BINARY", "/no/such/foresail")
    with pytest.raises(foresail.BridgeError, match="/no/such/foresail"):
        foresail.Client()
    monkeypatch.setenv("FORESAIL_BINARY", "false")
    with pytest.raises(foresail.BridgeError, match="exit code 1"):
        foresail.Client()


def test_a_running_stack_is_used_and_goes_on(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    command = [_bridge.find_binary(), "up", "--listen", "127.0.0.1:0", "--data", data, "--python", sys.executable]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command += ["-o", "ndjson"]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        assert up.stdout is not None
        import json

        addresses = json.loads(up.stdout.readline())
        with foresail.Client(addresses["metad"], data=data) as client:
            assert client.compute(foresail.task(bytes)(100_000)) == bytes(100_000)
            assert client.about["data"] is None
        with foresail.Client(addresses["metad"], host=addresses["host"]) as client:
            assert client.compute(foresail.task(bytes)(100)) == bytes(100)
            # Workers of this machine read large arguments from files; results of theirs are not seen.
            assert client.compute(foresail.task(len)(bytes(1_000_000))) == 1_000_000
            with pytest.raises(foresail.ResultLost, match=r"data=.*--store metad"):
                client.compute(foresail.task(bytes)(100_000))
        assert up.poll() is None
    finally:
        up.terminate()
        up.wait(60)
    with pytest.raises(foresail.ForesailError, match="host"):
        foresail.Client("http://127.0.0.1:9", data=data)


def test_another_interpreter_keeps_its_own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probes.py").write_text("def paths():\n    import sys\n    return sys.path\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = _bridge._environment(sys.executable, None)["PYTHONPATH"].split(os.pathsep)
    assert {str(tmp_path), *filter(os.path.isdir, sys.path)} <= set(kept)
    venv.create(tmp_path / "venv")
    other = str(tmp_path / "venv" / "bin" / "python")
    passed = _bridge._environment(other, None)["PYTHONPATH"].split(os.pathsep)
    assert str(tmp_path) in passed
    assert os.path.dirname(os.__file__) not in passed
    assert not [path for path in passed if path.endswith(("lib-dynload", "site-packages", "dist-packages"))]
    # What the other one imports is its own.
    with foresail.Client(data=str(tmp_path / "data"), workers=1, python=other) as client:
        paths = client.compute(foresail.task(importlib.import_module("probes").paths)())
    assert sysconfig.get_paths()["purelib"] not in paths
    assert str(tmp_path / "venv") in "".join(paths)


def test_a_forked_child_has_no_session_of_its_parent(client: foresail.Client) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if not client.is_open else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.compute(foresail.task(abs)(-5)) == 5
