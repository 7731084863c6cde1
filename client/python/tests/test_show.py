"""What is shown of a run: redrawn on a terminal, a bar in a notebook, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import time
from typing import Any, List

import pytest

import foresail
from foresail import _show
from foresail._run import Progress


def progress(done: int, status: str = "running") -> Progress:
    return Progress(status, 10, done, 1, 0, 0, 2, 2_500.0, 1_000.0, 1e-5, 3_000.0, 2e-5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no file")


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, looks: List[Progress], is_over: bool = True) -> str:
    """What is written when a run is looked at as often as that, with the last look at its end."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr", stream)
    left = list(looks)
    display = _show.Display(True, lambda: left.pop(0) if left else None)
    while len(left) > 1:
        now[0] += display.pause
        display.update()
    display.end(is_over)
    return stream.getvalue()


def test_plain_lines_are_told_when_something_changed_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [progress(1), progress(1), progress(4), progress(10, "completed")]
    lines = shown(monkeypatch, io.StringIO(), looks).splitlines()
    assert [line.split("] ")[1][:4] for line in lines] == ["1/10", "4/10", "10/1"]
    assert "completed" in lines[-1]


def test_a_wait_that_gave_up_tells_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, io.StringIO(), [progress(1), progress(2)], is_over=False).splitlines()
    assert len(lines) == 1


def test_a_brief_run_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), [progress(10, "completed")]) == ""
    assert shown(monkeypatch, Terminal(), [progress(10, "completed")]) == ""


def test_a_line_on_a_terminal_is_never_longer_than_it_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "32")
    text = shown(monkeypatch, Terminal(), [progress(1), progress(1), progress(2), progress(10, "completed")])
    first, second, last = text.split("\r\x1b[2K")[1:]
    assert (len(first), len(second), last) == (31, 31, "")
    assert first != second


def test_the_bar_of_a_notebook_tells_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: List[str] = []

    class Handle:
        def update(self, content: Any) -> None:
            bars.append(content._repr_html_())

    def display(content: Any, display_id: bool) -> Handle:
        bars.append(content._repr_html_())
        return Handle()

    monkeypatch.setattr(_show, "notebook", lambda: display)
    assert shown(monkeypatch, io.StringIO(), [progress(1), progress(2), progress(10, "completed")]) == ""
    assert ["1/10" in bars[0], "2/10" in bars[1], "completed" in bars[2]] == [True] * 3
    assert "width: 100.0%" in bars[2]


def test_a_run_whose_output_is_piped_is_shown(client: foresail.Client, capfd: pytest.CaptureFixture[str]) -> None:
    run = foresail.task(time.sleep)(2.3).submit()
    assert run.wait(60, show=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "0/1 done, 1 running" in lines[0]
    assert "1/1 done, 0 running" in lines[1]
    assert "completed" in lines[1]
    assert not os.isatty(2)
