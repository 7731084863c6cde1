"""What is shown of a run while it goes on: one line that is redrawn, plain lines, or a bar in a notebook."""

from __future__ import annotations

import html
import math
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

if TYPE_CHECKING:
    from ._run import Progress

FIRST_SECONDS = 0.4
"""Runs that are shorter are not shown."""
LIVE_SECONDS = 0.2
"""Time between two looks at a run that is redrawn."""
PLAIN_SECONDS = 2.0
"""Time between two looks at a run that is told in plain lines; shorter ones are not told."""
PAUSE_SECONDS_MAX = 3_600.0
COLUMNS_MIN = 20
BAR_LEN = 20


def seconds(ms: float) -> str:
    """A time in words."""
    if ms < 1_000:
        return f"{ms:.0f} ms" if ms >= 1 else f"{ms:.2g} ms"
    if ms < 120_000:
        return f"{ms / 1_000:.1f} s"
    return f"{ms / 60_000:.1f} min"


def counted(count: int, what: str) -> str:
    """A number of things: `1 task`, `2 tasks`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def usd(amount: float) -> str:
    """Money in words, with three digits that say something."""
    return f"${amount:.3g}" if amount < 0.01 else f"${amount:.4f}"


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    raise AssertionError("the last unit takes all")


def _parts(progress: "Progress") -> str:
    text = f"{progress.done}/{progress.tasks} done, {progress.running} running"
    for count, what in (
        (progress.skipped, "skipped"),
        (progress.failed_attempts, "failed"),
        (progress.replanned, "re-planned"),
    ):
        if count:
            text += f", {count} {what}"
    return text


def line(progress: "Progress") -> str:
    """A run in one line."""
    filled = BAR_LEN * progress.done // max(1, progress.tasks)
    bar = "#" * filled + "." * (BAR_LEN - filled)
    ends = f"ETA {seconds(progress.left_ms)}" if progress.status == "running" else progress.status
    return f"[{bar}] {_parts(progress)}  {seconds(progress.elapsed_ms)}, {ends}  {usd(progress.cost_usd)}"


def bar(progress: "Progress") -> str:
    """A run as a bar in a notebook."""
    percent = 100.0 * progress.done / max(1, progress.tasks)
    ends = f"ETA {seconds(progress.left_ms)}" if progress.status == "running" else html.escape(progress.status)
    color = "#d1242f" if progress.status == "failed" else "#2f6feb"
    return (
        '<div style="font: 13px system-ui, sans-serif; max-width: 40em">'
        '<div style="background: #8883; border-radius: 4px; height: 10px">'
        f'<div style="background: {color}; border-radius: 4px; height: 10px; width: {percent:.1f}%"></div></div>'
        f"{_parts(progress)} &middot; {seconds(progress.elapsed_ms)}, {ends} &middot; "
        f"{usd(progress.cost_usd)} of {usd(progress.predicted_usd)}</div>"
    )


def run(name: str, progress: "Progress", predicted: Dict[str, Any]) -> str:
    """A run in a notebook."""
    told = f"predicted {seconds(predicted['makespan_ms'])}, {usd(predicted['cost_usd'])}"
    return f"<div><code>{html.escape(name)}</code> &middot; {told}{bar(progress)}</div>"


def notebook() -> Optional[Any]:
    """The display function of a notebook, where this is one."""
    if "IPython" not in sys.modules:
        return None
    try:
        from IPython import get_ipython  # type: ignore[import-not-found,unused-ignore]
        from IPython.display import display  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    shell = get_ipython()
    return display if shell is not None and shell.__class__.__name__ == "ZMQInteractiveShell" else None


class _Html:
    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text


class Display:
    """Shows one run on stderr or in the notebook, from the thread that waits for it."""

    def __init__(self, show: bool, look: "Callable[[], Optional[Progress]]") -> None:
        self._began = time.monotonic()
        self._look = look
        self._notebook = notebook() if show else None
        self._shown: Any = None
        self._is_live = show and sys.stderr is not None and sys.stderr.isatty()
        self._text = ""
        # When it is looked at next: a wait that nobody watches needs no looks.
        self._every = LIVE_SECONDS if self._notebook is not None or self._is_live else PLAIN_SECONDS
        first = FIRST_SECONDS if self._every == LIVE_SECONDS else PLAIN_SECONDS
        self._next = self._began + first if show else math.inf

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(max(0.0, self._next - time.monotonic()), PAUSE_SECONDS_MAX)

    def update(self) -> None:
        """Looks how far the run is, where it is time to, and shows that."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        progress = self._look()
        if progress is not None:
            self._draw(progress)

    def end(self, is_over: bool) -> None:
        """Shows how the run ended, where it was shown, and leaves a terminal as it was."""
        if self._is_live and self._notebook is None:
            if self._text:
                self._write("\r\x1b[2K")
        elif is_over and self._text:
            progress = self._look()
            if progress is not None:
                self._draw(progress)

    def _draw(self, progress: "Progress") -> None:
        text = bar(progress) if self._notebook is not None else line(progress)
        if self._is_live and self._notebook is None:
            # A longer line would break, and could not be redrawn.
            text = text[: _columns() - 1]
        if text == self._text:
            return
        self._text = text
        if self._notebook is None:
            self._write(f"\r\x1b[2K{text}" if self._is_live else f"{text}\n")
        elif self._shown is None:
            self._shown = self._notebook(_Html(text), display_id=True)
        else:
            self._shown.update(_Html(text))

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it any more
            self._next = math.inf


def _columns() -> int:
    """Columns of the terminal that stderr is."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(columns or shutil.get_terminal_size().columns, COLUMNS_MIN)
