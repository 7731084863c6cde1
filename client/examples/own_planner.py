#!/usr/bin/env python3
"""A planner of one's own in any language: a problem on stdin, a plan on stdout.

    foresail plan montage --planner 'exec:python3 client/examples/own_planner.py'

It follows chains: a task goes to the worker of the first parent that nothing follows yet, and to a new worker
where every parent has a follower. Every worker has the size on which the most urgent tasks gain enough: the
smallest one that is at most a tenth slower than the fastest. Foresail checks the plan and times it itself; what
is written here needs neither times nor cost. An argument is the most that a size may be slower, e.g. 0.3.
"""

import json
import sys

slower = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
problem = json.load(sys.stdin)
table = problem["predictions"]
tasks = problem["workflow"]["tasks"]

# Time of the whole work at every size: a row per size, a column per task.
totals = [sum(row) for row in table["exec_ms"]]
needed_mb = max(task.get("memory_mb_min", 0) for task in tasks)
sizes = [
    config
    for config, total in zip(table["configs"], totals)
    if total <= (1 + slower) * min(totals) and config["memory_mb"] >= needed_mb
]
size = sizes[0] if sizes else table["configs"][-1]


def parents(task):
    read = [source["task"] for source in task.get("inputs", []) if "task" in source]
    return read + task.get("after", [])


# Tasks may stand in any order: a task is placed once all its parents are.
plan, worker, followed, waiting = [], {}, set(), list(tasks)
while waiting:
    later = []
    for task in waiting:
        if any(parent not in worker for parent in parents(task)):
            later.append(task)
            continue
        free = next((parent for parent in parents(task) if parent not in followed), None)
        followed.add(free)
        worker[task["id"]] = worker.get(free, f"chain-{len(plan)}")
        why = f"follows {free}" if free else "begins a chain"
        plan.append({"task": task["id"], "worker": worker[task["id"]], "config": size, "why": why})
    waiting = later

json.dump({"tasks": plan, "explanation": [f"{len(set(worker.values()))} chains."]}, sys.stdout)
