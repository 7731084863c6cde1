"""The table: medians of the turns, what each is beside Foresail, and the goals."""

import statistics

from rows import BY_NAME

TITLES = {
    "foresail": "Foresail",
    "dask": "Dask",
    "dask-inf": "Dask, inf",
    "ray": "Ray",
    "lithops": "Lithops",
    "futures": "`concurrent.futures`",
}


def middle(seconds):
    return statistics.median(seconds) if seconds else None


def shown(seconds):
    """A time in ms, or in seconds from ten on, with three figures."""
    ms = 1000 * seconds
    return f"{ms:.2g} ms" if ms < 10 else f"{ms:.0f} ms" if ms < 10_000 else f"{seconds:.1f} s"


def goals(row, times):
    """What is wanted of a row: text, measured value, whether it is reached."""
    own, row_of = times.get("foresail"), BY_NAME[row]
    if own is None:
        return
    against = {name: times.get(name) for name in ("dask", "dask-inf", "ray")}
    if row == "noop":
        for name in ("dask-inf", "ray"):
            if against[name]:
                yield f"3 times the tasks/s of {TITLES[name]}", f"{against[name] / own:.2f}", against[name] >= 3 * own
    elif row_of.ideal_s:
        wanted = 0.95 if row == "tree-10ms" else 0.98
        yield (
            f"{wanted} of the ideal {row_of.ideal_s:.2f} s",
            f"{row_of.ideal_s / own:.3f}",
            (row_of.ideal_s >= wanted * own),
        )
    elif row.split("-")[-1] in ("gemm", "svd", "tsqr"):
        for name in ("dask", "dask-inf"):
            if against[name]:
                yield f"0.75 of the time of {TITLES[name]}", f"{own / against[name]:.2f}", own <= 0.75 * against[name]
    elif row == "hand-over":
        yield "20 ms", f"{1000 * own:.1f} ms", own <= 0.02


def markdown(engines, measured):
    """The tables as text; `measured` has, per row and engine, `seconds` or `said`."""
    lines = [
        "| | " + " | ".join(TITLES[name] for name in engines) + " |",
        "|---|" + "---:|" * len(engines),
    ]
    aims = []
    for row, by_engine in measured.items():
        times = {name: middle(found.get("seconds", [])) for name, found in by_engine.items()}
        own, cells = times.get("foresail"), []
        for name in engines:
            if times.get(name) is None:
                cells.append(by_engine.get(name, {}).get("said", ""))
            else:
                ratio = f" ({times[name] / own:.2f})" if own and name != "foresail" else ""
                cells.append(shown(times[name]) + ratio)
        lines.append(f"| {BY_NAME[row].what} | " + " | ".join(cells) + " |")
        aims += [(BY_NAME[row].what, *aim) for aim in goals(row, times)]
    if aims:
        lines += ["", "| goal | | measured | |", "|---|---|---:|---|"]
        lines += [f"| {what} | {aim} | {value} | {'yes' if is_met else 'no'} |" for what, aim, value, is_met in aims]
    return "\n".join(lines)
