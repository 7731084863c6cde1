"""One engine in a process of its own: lines of JSON ask, lines of JSON answer.

    python engines.py NAME FOLDER

{"row": NAME, "turn": N} is answered with {"seconds": ..., "results": [...]}, or {"refused": why} where the engine
has nothing for it. Two worker processes with one thread each. The time is from the first line that says
what to compute until the results are there, as a user sees it: building the graph, planning, sending and running.
"""

import json
import sys
import time

from rows import BY_NAME, Ref

WORKERS = 2


class Refused(Exception):
    """The engine has nothing for this row."""


class Foresail:
    def __init__(self, folder):
        import foresail
        import foresail.dask

        self.task, self.dask_get = foresail.task, foresail.dask.get
        self.tasks = {}
        self.client = foresail.Client(workers=WORKERS, memory=[1769], data=folder, progress=False)

    def run(self, graph, wanted, row):
        values = []
        for function, args in graph.calls:
            if function not in self.tasks:
                self.tasks[function] = self.task(function)
            values.append(self.tasks[function](*filled(args, values)))
        return self.client.compute([values[ref.number] for ref in wanted], name=row.name)

    def array(self, expression, row):
        import dask

        return dask.compute(expression, scheduler=self.dask_get, client=self.client, name=row.name)[0]

    def close(self):
        self.client.close()


class Dask:
    def __init__(self, folder, saturation=None):
        import dask
        from distributed import Client, LocalCluster

        dask.config.set({"temporary-directory": folder})
        if saturation is not None:
            dask.config.set({"distributed.scheduler.worker-saturation": saturation})
        self.cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None)
        self.client = Client(self.cluster)
        self.delayed = dask.delayed

    def run(self, graph, wanted, row):
        if row.is_map:
            function = graph.calls[0][0]
            columns = list(zip(*[args for _, args in graph.calls]))
            return self.client.gather(self.client.map(function, *columns, pure=False))
        values = []
        for function, args in graph.calls:
            values.append(self.delayed(function, pure=False)(*filled(args, values)))
        futures = self.client.compute([values[ref.number] for ref in wanted], optimize_graph=False)
        return self.client.gather(futures)

    def array(self, expression, row):
        return self.client.compute(expression).result()

    def close(self):
        self.client.close()
        self.cluster.close()


class DaskInf(Dask):
    def __init__(self, folder):
        super().__init__(folder, float("inf"))


class Ray:
    def __init__(self, folder):
        import ray

        self.ray = ray
        quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
        own = {"_temp_dir": folder, "_node_ip_address": "127.0.0.1"}
        ray.init(num_cpus=WORKERS, object_store_memory=2 << 30, **own, **quiet)
        self.remotes = {}

    def run(self, graph, wanted, row):
        values = []
        for function, args in graph.calls:
            if function not in self.remotes:
                self.remotes[function] = self.ray.remote(function)
            values.append(self.remotes[function].remote(*filled(args, values)))
        return self.ray.get([values[ref.number] for ref in wanted])

    def close(self):
        self.ray.shutdown()


class Futures:
    """`ProcessPoolExecutor`: this process submits each call when its arguments are here."""

    def __init__(self, folder):
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(WORKERS)
        list(self.pool.map(int, range(WORKERS)))

    def run(self, graph, wanted, row):
        import queue

        if row.is_map:
            function = graph.calls[0][0]
            return list(self.pool.map(function, *zip(*[args for _, args in graph.calls]), chunksize=1))
        needs = [{arg.number for arg in args if isinstance(arg, Ref)} for _, args in graph.calls]
        readers = [[] for _ in graph.calls]
        for number, parents in enumerate(needs):
            for parent in parents:
                readers[parent].append(number)
        missing, results, done = [len(parents) for parents in needs], {}, queue.SimpleQueue()

        def submit(number):
            function, args = graph.calls[number]
            future = self.pool.submit(function, *filled(args, results))
            future.add_done_callback(lambda future: done.put((number, future)))

        for number, count in enumerate(missing):
            if not count:
                submit(number)
        for _ in graph.calls:
            number, future = done.get()
            results[number] = future.result()
            for reader in readers[number]:
                missing[reader] -= 1
                if not missing[reader]:
                    submit(reader)
        return [results[ref.number] for ref in wanted]

    def close(self):
        self.pool.shutdown()


def call(function, args):
    return function(*args)


class Lithops:
    """Lithops on this machine: a map for each level of the graph, whose results come here in between."""

    def __init__(self, folder):
        import logging

        import lithops

        logging.disable(logging.WARNING)
        settings = {"backend": "localhost", "storage": "localhost", "log_level": "ERROR", "telemetry": False}
        config = {"lithops": settings, "localhost": {"worker_processes": WORKERS, "runtime": sys.executable}}
        self.pool = lithops.FunctionExecutor(config=config)
        self.run_calls([(int, ())])

    def run_calls(self, calls):
        futures = self.pool.map(call, [tuple(entry) for entry in calls])
        found = self.pool.get_result(futures, show_progressbar=False)
        self.pool.clean(clean_cloudobjects=False)
        return found

    def run(self, graph, wanted, row):
        if row.is_timed_inside:
            raise Refused("large results go by files between a worker and its client, not from task to task")
        depths = []
        for _, args in graph.calls:
            depths.append(1 + max((depths[arg.number] for arg in args if isinstance(arg, Ref)), default=-1))
        results = {}
        for depth in range(max(depths) + 1):
            level = [number for number, at in enumerate(depths) if at == depth]
            calls = [(graph.calls[number][0], filled(graph.calls[number][1], results)) for number in level]
            results.update(zip(level, self.run_calls(calls)))
        return [results[ref.number] for ref in wanted]

    def close(self):
        self.pool.clean()


def filled(args, values):
    """Arguments with what stands for results of others replaced."""
    return tuple(values[arg.number] if isinstance(arg, Ref) else arg for arg in args)


ENGINES = {
    "foresail": Foresail,
    "dask": Dask,
    "dask-inf": DaskInf,
    "ray": Ray,
    "lithops": Lithops,
    "futures": Futures,
}


def measured(engine, row, turn):
    """One turn of a row."""
    if row.array is not None and not hasattr(engine, "array"):
        raise Refused("no Dask collections")
    began = time.perf_counter()
    if row.array is not None:
        results = engine.array(row.array(), row)
        seconds = time.perf_counter() - began
        return seconds, results.tolist() if hasattr(results, "tolist") else results
    graph, wanted = row.graph(turn)
    results = engine.run(graph, wanted, row)
    seconds = time.perf_counter() - began
    if row.is_timed_inside:
        seconds, results = results[0]
    return seconds, results


def main():
    name, folder = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr
    engine = ENGINES[name](folder)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                seconds, results = measured(engine, BY_NAME[asked["row"]], asked["turn"])
                answer = {"seconds": seconds, "results": results}
            except Refused as why:
                answer = {"refused": str(why)}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
