"""Carries out commands with HyperQueue: a line of JSON asks, a line of JSON answers.

One worker of two cores, as HyperQueue has one worker per machine. {"tasks": N} runs N times the program `true`,
a process each, and is answered with {"seconds": wall time from the submission to the last end}. What the tasks
print goes nowhere.
"""

import json
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def carry_out(client, tasks):
    job = Job()
    for _ in range(tasks):
        job.program(["true"], stdout=None, stderr=None)
    began = time.perf_counter()
    submitted = client.submit(job)
    client.connection.wait_for_jobs((submitted.id,), lambda jobs: None)
    seconds = time.perf_counter() - began
    client.forget(submitted)
    return seconds


def main():
    with tempfile.TemporaryDirectory() as scratch, LocalCluster(scratch, WorkerConfig(cores=2)) as cluster:
        client = cluster.client()
        carry_out(client, 10)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps({"seconds": carry_out(client, json.loads(line)["tasks"])}), flush=True)


if __name__ == "__main__":
    main()
