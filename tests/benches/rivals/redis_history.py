"""Predictions the way a metadata server without a model makes them: history in Redis, scanned in Python.

A worker appends one JSON metric per execution to the Redis list of its task. Whoever plans loads every metric
of the workflow, and answers each question by a pass over the metrics of the task: those of the same memory
size where there are enough of them, else all of them brought to that size by the rule time ~ memory^-0.3.
Time is taken as proportional to the input size; the answer is the percentile.

    redis_history.py PORT

It reads one JSON command per line from stdin and answers each with one JSON line:

    {"workflow": "w"}
        loads the history: {"load_s": 0.13, "metrics": 1000}
    {"workflow": "w", "ask_s": 0.5, "task": "t", "memory_mb": [512], "input_bytes": [1000], "percentile": 95}
        predicts for so many seconds; the median time of a prediction: {"us": 149.2, "predictions": 3350}

Needs the package `redis`. Keys: `tasks:WORKFLOW` (set of task names), `metrics:WORKFLOW:TASK` (list).
"""

import json
import math
import statistics
import sys
import time

import redis

SAME_SIZE_MIN = 5
MEMORY_EXPONENT = 0.3


def load(connection, workflow):
    tasks = [name.decode() for name in connection.smembers(f"tasks:{workflow}")]
    pipeline = connection.pipeline(transaction=False)
    for task in tasks:
        pipeline.lrange(f"metrics:{workflow}:{task}", 0, -1)
    return {task: [json.loads(text) for text in texts] for task, texts in zip(tasks, pipeline.execute())}


def percentile(values, percent):
    """Between the closest ranks, as numpy does by default."""
    values.sort()
    place = (len(values) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return values[low] + (values[high] - values[low]) * (place - low)


def predict(metrics, memory_mb, input_bytes, percent):
    same = [m for m in metrics if m["memory_mb"] == memory_mb]
    if len(same) >= SAME_SIZE_MIN:
        rates = [m["exec_ms"] / max(m["input_bytes"], 1) for m in same]
    else:
        scale = {size: (size / memory_mb) ** MEMORY_EXPONENT for size in {m["memory_mb"] for m in metrics}}
        rates = [m["exec_ms"] * scale[m["memory_mb"]] / max(m["input_bytes"], 1) for m in metrics]
    return percentile(rates, percent) * input_bytes if rates else None


def ask(metrics, command):
    sizes = [(memory, size) for memory in command["memory_mb"] for size in command["input_bytes"]]
    times_s = []
    before = began = time.perf_counter()
    while before - began < command["ask_s"]:
        memory_mb, input_bytes = sizes[len(times_s) % len(sizes)]
        answer = predict(metrics, memory_mb, input_bytes, command["percentile"])
        assert answer is not None and answer > 0, "the history knows this task"
        now = time.perf_counter()
        times_s.append(now - before)
        before = now
    return {"us": statistics.median(times_s) * 1e6, "predictions": len(times_s)}


def main():
    connection = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]))
    loaded = {}
    for line in sys.stdin:
        command = json.loads(line)
        if "ask_s" in command:
            answer = ask(loaded[command["workflow"]][command["task"]], command)
        else:
            # A planner starts with nothing: the history of the last plan is not kept.
            loaded.clear()
            began = time.perf_counter()
            history = load(connection, command["workflow"])
            answer = {"load_s": time.perf_counter() - began, "metrics": sum(len(m) for m in history.values())}
            loaded[command["workflow"]] = history
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
