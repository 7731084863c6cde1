"""Foresail's planners beside HEFT of a public library and beside proven optima.

    python rivals.py FORESAIL          compares: FORESAIL is the binary
    python rivals.py heft | optimum    plans: a problem on stdin, a plan on stdout (what `exec:` starts)

Needs `pip install anrg-saga ortools`. The problem is the classic one: equal processors that are there from
the start, a task at a time on each, an output costs one upload and, on another processor, one download. Every
plan, the rivals' too, is carried out by the same simulation (`foresail lab plans`), so the makespans compare.

- heft: HEFT of SAGA (anrg-saga). Its edges cost upload and download of the bytes that they carry.
- optimum: OR-tools CP-SAT, for small workflows in which every output has one reader. It is proven, or the
  planner fails.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORM = HERE / "classic.toml"
SHAPES = "gemm:4,svd:12,tsqr:32,fork-join:3x20,layered:10x10,tree:128"
# Small workflows with a proven optimum: tasks, and how many of each size.
SMALL_TASKS, SMALL_EACH, SMALL_PROCESSORS = range(6, 13), 6, 3
SOLVER_SECONDS_MAX = 60


def edges(problem):
    """Per task: who it reads from, and the bytes of each; bytes it writes that somebody reads."""
    tasks = problem["workflow"]["tasks"]
    bytes_of = {}
    for task in tasks:
        for output in task.get("outputs") or [{"name": "out"}]:
            bytes_of[task["id"], output["name"]] = output.get("bytes") or 0
    reads = {task["id"]: {} for task in tasks}
    for task in tasks:
        for read in task.get("inputs", []):
            if read.get("kind", "task") == "task" and "task" in read:
                key = read["task"], read.get("output", "out")
                before = reads[task["id"]].get(read["task"], 0)
                reads[task["id"]][read["task"]] = before + bytes_of[key]
        for parent in task.get("after", []):
            reads[task["id"]].setdefault(parent, 0)
    written = {task["id"]: sum(b for (of, _), b in bytes_of.items() if of == task["id"]) for task in tasks}
    return reads, written


def exec_ms(problem):
    return {t["id"]: ms for t, ms in zip(problem["workflow"]["tasks"], problem["predictions"]["exec_ms"][0])}


def heft(problem):
    from saga import Network, TaskGraph
    from saga.schedulers import HeftScheduler

    rate = problem["platform"]["assumed"]["bytes_per_ms"]
    processors = [f"p{p}" for p in range(problem["platform"]["concurrency_max"])]
    links = [(a, b, math.inf if a == b else rate / 2) for a in processors for b in processors if a <= b]
    network = Network.create([(p, 1.0) for p in processors], links)
    reads, _ = edges(problem)
    graph = TaskGraph.create(
        list(exec_ms(problem).items()), [(p, t, float(b)) for t, of in reads.items() for p, b in of.items()]
    )
    began = time.perf_counter()
    schedule = HeftScheduler().schedule(network, graph)
    took_ms = 1000 * (time.perf_counter() - began)
    known = exec_ms(problem)
    # It adds a source and a sink of its own.
    rows = [(task.start, task.name, on) for on, tasks in schedule.items() for task in tasks]
    placed = [row for row in rows if row[1] in known]
    return [(t, on) for _, t, on in sorted(placed)], took_ms, schedule.makespan


def optimum(problem):
    from ortools.sat.python import cp_model

    rate, scale = problem["platform"]["assumed"]["bytes_per_ms"], 100
    reads, written = edges(problem)
    times, count = exec_ms(problem), problem["platform"]["concurrency_max"]
    ticks = lambda ms: round(ms * scale)
    model = cp_model.CpModel()
    horizon = sum(ticks(ms) for ms in times.values()) + 2 * sum(ticks(b / rate) for b in written.values())
    start, end, on = {}, {}, {}
    for t, ms in times.items():
        start[t], end[t] = model.new_int_var(0, horizon, ""), model.new_int_var(0, horizon, "")
        on[t] = [model.new_bool_var("") for _ in range(count)]
        model.add_exactly_one(on[t])
    rows = [[] for _ in range(count)]
    for t, ms in times.items():
        fetched = []
        for parent, size in reads[t].items():
            model.add(start[t] >= end[parent])
            together = [model.new_bool_var("") for _ in range(count)]
            for p in range(count):
                model.add_implication(together[p], on[t][p])
                model.add_implication(together[p], on[parent][p])
            fetched.append(ticks(size / rate) * (1 - sum(together)))
        length = model.new_int_var(0, horizon, "")
        model.add(length == ticks(ms) + ticks(written[t] / rate) + sum(fetched))
        model.add(end[t] == start[t] + length)
        for p in range(count):
            rows[p].append(model.new_optional_interval_var(start[t], length, end[t], on[t][p], ""))
    for row in rows:
        model.add_no_overlap(row)
    last = model.new_int_var(0, horizon, "")
    model.add_max_equality(last, list(end.values()))
    model.minimize(last)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = SOLVER_SECONDS_MAX
    solver.parameters.num_workers = 1
    began = time.perf_counter()
    if solver.solve(model) != cp_model.OPTIMAL:
        raise SystemExit("the optimum was not proven in time")
    took_ms = 1000 * (time.perf_counter() - began)
    processor = lambda t: next(p for p in range(count) if solver.value(on[t][p]))
    order = sorted(times, key=lambda t: (solver.value(start[t]), solver.value(end[t])))
    return [(t, f"p{processor(t)}") for t in order], took_ms, solver.objective_value / scale


def plan(how):
    problem = json.load(sys.stdin)
    placed, took_ms, makespan_ms = how(problem)
    config = problem["predictions"]["configs"][0]
    tasks = [{"task": t, "config": config, "worker": on, "rank": at} for at, (t, on) in enumerate(placed)]
    json.dump({"tasks": tasks}, sys.stdout)
    if "RIVAL_SAYS" in os.environ:
        with open(os.environ["RIVAL_SAYS"], "a") as file:
            print(took_ms, makespan_ms, file=file)


def small(rng, tasks):
    """A random workflow as WfFormat; every edge is a file of its own."""
    parents = {t: sorted(rng.sample(range(t), min(t, rng.choice([1, 1, 2, 3])))) for t in range(1, tasks)}
    parents[0] = []
    name = lambda a, b: f"f{a}-{b}"
    size = lambda: rng.randrange(1, 150) * 1_000_000
    files = [{"id": name(p, t), "sizeInBytes": size()} for t in parents for p in parents[t]]
    children = {t: [c for c in parents if t in parents[c]] for t in parents}
    specified = [
        {
            "name": f"t{t}", "id": f"t{t}",
            "parents": [f"t{p}" for p in parents[t]], "children": [f"t{c}" for c in children[t]],
            "inputFiles": [name(p, t) for p in parents[t]], "outputFiles": [name(t, c) for c in children[t]],
        }
        for t in sorted(parents)
    ]
    times = [{"id": f"t{t}", "runtimeInSeconds": rng.randrange(200, 5000) / 1000} for t in sorted(parents)]
    return {
        "name": "small", "schemaVersion": "1.5",
        "workflow": {"specification": {"tasks": specified, "files": files},
                     "execution": {"makespanInSeconds": 1, "executedAt": "x", "tasks": times}},
    }


def lab(foresail, source, planners, platform, says):
    """Rows by workflow and planner; what the rival says of each, its planning time and makespan in ms."""
    command = [foresail, "lab", "plans", *source, "--planners", ",".join(planners)]
    command += ["--platform", str(platform), "--curve", "one-vcpu", "-o", "json"]
    says.write_text("")
    environment = {**os.environ, "RIVAL_SAYS": str(says)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    # Where a plan is missing the code is 1, and the rows say why.
    if done.returncode > 1:
        raise SystemExit(done.stderr.decode())
    rows = json.loads(done.stdout)["rows"]
    found = {}
    for row in rows:
        if row["failure"]:
            raise SystemExit(f"{row['workflow']}, {row['planner']}: {row['failure']}")
        found.setdefault(row["workflow"], {})[row["planner"]] = row
    return found, [tuple(map(float, line.split())) for line in says.read_text().splitlines()]


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def compare(foresail):
    me = f"{sys.executable} {Path(__file__).resolve()}"
    with tempfile.TemporaryDirectory() as folder:
        says = Path(folder) / "says"
        theirs = f"exec:{me} heft"
        found, said = lab(foresail, ["--shapes", SHAPES], ["heft", "auto", theirs], PLATFORM, says)
        print("| 8 processors | tasks | HEFT here | auto | HEFT of SAGA | planning here | SAGA |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for (name, by), (ms, _) in zip(found.items(), said):
            s = lambda who: f"{by[who]['carried_out']['makespan_ms'] / 1000:.2f} s"
            print(f"| {name} | {by['heft']['tasks']} | {s('heft')} | {s('auto')} | {s(theirs)} |"
                  f" {by['heft']['planning_ms']:.2f} ms | {ms:.1f} ms |")
        took = lambda by, who: by[who]["carried_out"]["makespan_ms"]
        ratio = lambda who: mean([took(by, who) / took(by, theirs) for by in found.values()])
        over = f"heft {ratio('heft'):.3f}, auto {ratio('auto'):.3f}"
        print(f"\nmakespan over that of SAGA, geometric mean: {over}\n")

        rng, source = random.Random(1), Path(folder) / "small"
        source.mkdir()
        for tasks in SMALL_TASKS:
            for at in range(SMALL_EACH):
                (source / f"small-{tasks:02}-{at}.json").write_text(json.dumps(small(rng, tasks)))
        few = Path(folder) / "few.toml"
        fewer = f"concurrency_max = {SMALL_PROCESSORS}"
        few.write_text(PLATFORM.read_text().replace("concurrency_max = 8", fewer))
        best = f"exec:{me} optimum"
        ours = ["simple", "heft", "sweep", "anneal", "auto"]
        found, said = lab(foresail, ["--wfformat", str(source)], [*ours, best], few, says)
        print(f"| {len(found)} workflows of 6 to 12 tasks, {SMALL_PROCESSORS} processors | over the optimum |"
              " at most | optimal |")
        print("| --- | ---: | ---: | ---: |")
        for who in ours:
            # What the solver proves, not what comes out where workers do not wait as its plan does.
            over = [by[who]["carried_out"]["makespan_ms"] / ms for by, (_, ms) in zip(found.values(), said)]
            hits = sum(o <= 1.0005 for o in over)
            print(f"| {who} | {mean(over):.4f} | {max(over):.3f} | {hits} of {len(over)} |")


if __name__ == "__main__":
    rivals = {"heft": heft, "optimum": optimum}
    plan(rivals[sys.argv[1]]) if sys.argv[1] in rivals else compare(sys.argv[1])
