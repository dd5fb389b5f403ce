"""Where the work is done: in this process, in a pool of processes or on a cluster, by the same function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, TypeVar

from fedai.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
ENGINES = ("processes", "ray", "dask")
AHEAD = 4  # tasks in flight for each worker: memory stays flat whatever the folder's size
MEMORY_LIMIT_BYTES = 12 << 30


class Lost(Exception):
    """The process that worked on an item died."""


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: str = "processes",
    processes: int = 1,
) -> Iterator[tuple[Item, Result | Lost]]:
    """(item, function(item)) for all items, in the order in which they are done.

    One that ends its process gives Lost, and the others go on. With one process and no cluster the function
    runs right here.
    """
    if engine == "processes" and processes == 1:
        for item in items:
            yield item, function(item)
        return
    lost: list[Item] = []
    rest = iter(items)
    for item in rest:  # once, and again with a new pool for the rest whenever one has broken
        yield from _results(function, chain([item], rest), engine, processes, lost)
    yield from _one_by_one(function, lost)


def _results(
    function: Callable[[Item], Result], items: Iterator[Item], engine: str, processes: int, lost: list[Item]
) -> Iterator[tuple[Item, Result | Lost]]:
    """Stops early when the pool breaks; what was in flight then is `lost` and is tried again alone."""
    with _executor(engine, processes) as executor:
        running: dict[Future[Result], Item] = {}
        for item in islice(items, AHEAD * processes):
            running[executor.submit(function, item)] = item
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(item)
                    lost += running.values()
                    return
                yield item, future.result()
                for following in islice(items, 1):
                    running[executor.submit(function, following)] = following


def _one_by_one(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result | Lost]]:
    """Once more, one at a time, to know which of the lost ended its process; the next has a new one then."""
    rest = iter(items)
    for item in rest:
        with _executor("processes", 1) as executor:
            for current in chain([item], rest):
                try:
                    yield current, executor.submit(function, current).result()
                except BrokenProcessPool:
                    yield current, Lost()
                    break


@contextmanager
def _executor(engine: str, processes: int) -> Iterator[Executor]:
    if engine == "processes":
        context, parent = get_context("spawn"), (os.getpid(),)
        with ProcessPoolExecutor(processes, context, initializer=_quietly, initargs=parent) as pool:
            yield pool
    elif engine == "dask":
        with _dask(processes) as client:
            yield client.get_executor()
    elif engine == "ray":
        with _RayExecutor() as cluster:
            yield cluster
    else:
        raise ConfigError(f"there is no engine {engine!r}", hint=f"one of {', '.join(ENGINES)}")


def _quietly(parent: int) -> None:
    """A worker: Ctrl-C is its parent's business, one thread, a bound on memory; it ends with its parent."""
    import resource
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A pool's workers hold its pipes open for each other, so nothing else would tell them."""
    import time

    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _dask(processes: int) -> Any:
    """A client of the cluster that DASK_SCHEDULER_ADDRESS names, or of one on this machine."""
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("dask is not installed", hint="pip install 'fedai-radiology[dask]'") from None
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    return (
        Client(address)
        if address
        else Client(n_workers=processes, threads_per_worker=1, dashboard_address=None)
    )


class _RayExecutor(Executor):
    """Ray's tasks as futures; the cluster is the one that RAY_ADDRESS names, or this machine."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
        try:
            import ray
        except ImportError:
            raise ConfigError("ray is not installed", hint="pip install 'fedai-radiology[ray]'") from None
        ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
        self._ray = ray

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the function's result on some worker."""
        future: Future[Any] = self._ray.remote(_call).remote(function, *args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._ray.shutdown()


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Ray takes functions only, not what else can be called."""
    return function(*args, **kwargs)
