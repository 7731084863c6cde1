"""Carries graphs out with Dask distributed: a line of JSON asks, a line of JSON answers.

Two worker processes with one thread each. {"kind": "noop" | "tree" | "chain", "tasks": N, "sleep_ms": MS} is
answered with {"seconds": wall time from the submission to the result, "result": value}.
"""

import json
import operator
import sys
import time


def task(sleep_ms, *values):
    if sleep_ms:
        time.sleep(sleep_ms / 1000)
    return sum(values)


def noop(client, tasks, sleep_ms):
    futures = client.map(task, [sleep_ms] * tasks, range(tasks), pure=False)
    return sum(client.gather(futures))


def tree(client, tasks, sleep_ms):
    import dask

    level = [dask.delayed(task)(sleep_ms, 2 * i + 1, 2 * i + 2) for i in range((tasks + 1) // 2)]
    while len(level) > 1:
        level = [dask.delayed(task)(sleep_ms, *level[i : i + 2]) for i in range(0, len(level), 2)]
    return client.compute(level[0], optimize_graph=False).result()


def chain(client, tasks, sleep_ms):
    import dask

    value = dask.delayed(task, pure=False)(sleep_ms, 1)
    for _ in range(tasks - 1):
        value = dask.delayed(task)(sleep_ms, value)
    return client.compute(value, optimize_graph=False).result()


def main():
    import dask
    from distributed import Client, LocalCluster

    if len(sys.argv) > 1:
        dask.config.set({"distributed.scheduler.worker-saturation": float(sys.argv[1])})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.submit(operator.add, 1, 1).result()
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            carry_out = {"noop": noop, "tree": tree, "chain": chain}[asked["kind"]]
            began = time.perf_counter()
            result = carry_out(client, asked["tasks"], asked["sleep_ms"])
            seconds = time.perf_counter() - began
            print(json.dumps({"seconds": seconds, "result": result}), flush=True)


if __name__ == "__main__":
    main()
