"""Carries graphs out with Ray: a line of JSON asks, a line of JSON answers.

Two workers of one CPU each. {"kind": "noop" | "tree" | "chain", "tasks": N, "sleep_ms": MS} is answered with
{"seconds": wall time from the submission to the result, "result": value}.
"""

import json
import sys
import time

import ray


@ray.remote
def task(sleep_ms, *values):
    if sleep_ms:
        time.sleep(sleep_ms / 1000)
    return sum(values)


def noop(tasks, sleep_ms):
    return sum(ray.get([task.remote(sleep_ms, i) for i in range(tasks)]))


def tree(tasks, sleep_ms):
    level = [task.remote(sleep_ms, 2 * i + 1, 2 * i + 2) for i in range((tasks + 1) // 2)]
    while len(level) > 1:
        level = [task.remote(sleep_ms, *level[i : i + 2]) for i in range(0, len(level), 2)]
    return ray.get(level[0])


def chain(tasks, sleep_ms):
    value = task.remote(sleep_ms, 1)
    for _ in range(tasks - 1):
        value = task.remote(sleep_ms, value)
    return ray.get(value)


def main():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
    ray.get([task.remote(0, 1) for _ in range(4)])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        carry_out = {"noop": noop, "tree": tree, "chain": chain}[asked["kind"]]
        began = time.perf_counter()
        result = carry_out(asked["tasks"], asked["sleep_ms"])
        print(json.dumps({"seconds": time.perf_counter() - began, "result": result}), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
