"""What a sweep costs on PostgreSQL: workers that hold a trial for a second and train nothing.

    python benchmarks/scale.py

A PostgreSQL server is started here. Workers are threads of four processes, each with a study, a
lease and a view of its own, as in separate processes; they share their process's connections.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
from machine import describe_machine
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))
from fmexp.record.tracker import NULL_TRACKER, Outcome
from fmexp.sweep.failover.leases import Lease
from fmexp.sweep.options import RandomOptions
from fmexp.sweep.samplers import make_sampler
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import SweepPlan, SweepStudy
from fmexp.sweep.task import Evaluation
from fmexp.sweep.worker import Limits, Worker
from tests.servers_support import Postgres, free_port

SPACE = Space([Dimension("x", "float", 0.0, 1.0), Dimension("y", "float", 0.0, 1.0)])
HELD_SECONDS, TRIALS_EACH, PROCESSES = 1.0, 10, 4


class Hold:
    """A task that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def evaluate(self, point, reporter):  # noqa: ARG002
        """Sleep, and say where it was."""
        time.sleep(self.seconds)
        return Evaluation(Outcome.COMPLETED, point["x"])


def make(url: str, name: str):
    storage = open_storage(url, Path.cwd(), patience=60.0)
    SweepStudy.make(storage, name, SPACE, SweepPlan("loss", "minimize", "k", 10, {}), [], {})
    return storage


def work(storage, name: str, n_trials: int, seconds: float) -> None:
    """Be a worker."""
    study = SweepStudy(storage, name)
    study.optuna.sampler = make_sampler(RandomOptions("random", 1), SPACE)
    with Lease(study) as lease:
        Worker(study, Hold(seconds), NULL_TRACKER, lease, Limits(n_trials), lambda: "").run()


def be_process(url: str, name: str, workers: int, n_trials: int, seconds: float) -> None:
    """Workers as threads, from the line on stdin on; prints statements and CPU seconds."""
    statements = [0]

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_):
        statements[0] += 1

    storage = open_storage(url, Path.cwd(), patience=60.0, opening=60.0)
    print("ready", flush=True)
    sys.stdin.readline()
    before, cpu = statements[0], time.process_time()
    threads = [
        threading.Thread(target=work, args=(storage, name, n_trials, seconds))
        for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([statements[0] - before, time.process_time() - cpu]), flush=True)


def fleet(url: str, name: str, workers: int, n_trials: int, seconds: float):
    """Wall seconds, statements and CPU seconds of all clients."""
    processes = min(PROCESSES, workers)
    shares = [workers // processes + (i < workers % processes) for i in range(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, url, name, str(share), str(n_trials), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for share in shares
    ]  # fmt: skip
    for process in started:
        process.stdout.readline()
    began = time.monotonic()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for process in started]
    wall = time.monotonic() - began
    for process in started:
        process.communicate()
    return wall, sum(a[0] for a in answers), sum(a[1] for a in answers)


def server_cpu(server: Postgres) -> float:
    """CPU seconds of the server and its sessions, ended ones too."""
    hertz, total = os.sysconf("SC_CLK_TCK"), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == server.pid:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == server.pid:
            total += sum(map(int, fields[11:13]))
    return total / hertz


class CountingProxy:
    """Passes bytes between clients and a port, and counts them."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._port))
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other thread has closed it
            while data := a.recv(1 << 16):
                self.bytes += len(data)
                b.sendall(data)
        b.close()


PROXY = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


def through_proxy(server: Postgres) -> None:
    """Optuna's proxy beside the database itself."""
    print("\nworkers  efficiency: directly, by Optuna's proxy  client ms of CPU  proxy ms, a trial")
    for workers in (16, 64):
        n_trials, took = workers * TRIALS_EACH, []
        for name in ("direct", "proxied"):
            url, port = server.database(f"{name}{workers}"), str(free_port())
            make(url, "s")
            behind = url.replace("postgresql:", "postgresql+psycopg:")
            proxy = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROXY, behind, port])
            where = url if name == "direct" else f"grpc://127.0.0.1:{port}"
            wall, _, client = fleet(where, "s", workers, n_trials, HELD_SECONDS)
            fields = Path(f"/proc/{proxy.pid}/stat").read_text().rpartition(")")[2].split()
            cpu = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            proxy.kill()
            proxy.wait()
            took.append((TRIALS_EACH * HELD_SECONDS / wall, client / n_trials, cpu / n_trials))
        (direct, cost, started), (proxied, thin, spent) = took
        print(f"{workers:7}  {direct:.2f}, {proxied:.2f}  {1000 * cost:.1f}, {1000 * thin:.1f}"
              f"  {1000 * (spent - started):.1f}", flush=True)  # fmt: skip


def efficiency(server: Postgres) -> None:
    print(
        f"\nworkers of {HELD_SECONDS:g} s trials, {TRIALS_EACH} each, the server on the same cores"
    )
    print("workers  trials  seconds  efficiency  statements  client ms  server ms of CPU, a trial")
    for workers in (1, 4, 16, 64):
        url, n_trials = server.database(f"workers{workers}"), workers * TRIALS_EACH
        make(url, "s")
        cpu = server_cpu(server)
        wall, statements, client = fleet(url, "s", workers, n_trials, HELD_SECONDS)
        share = n_trials * HELD_SECONDS / (workers * wall)
        print(
            f"{workers:7}  {n_trials:6}  {wall:7.1f}  {share:10.2f}  {statements / n_trials:10.1f}"
            f"  {1000 * client / n_trials:9.1f}"
            f"  {1000 * (server_cpu(server) - cpu) / n_trials:9.1f}", flush=True,
        )  # fmt: skip


def throughput(server: Postgres) -> None:
    """Trials that take no time, and the bytes of one worker's."""
    url = server.database("fast")
    make(url, "s")
    wall, _, _ = fleet(url, "s", 8, 400, 0.0)
    print(f"\n8 workers of trials that take no time: {400 / wall:.0f} trials/s", flush=True)
    url = server.database("counted")
    make(url, "s")
    proxy = CountingProxy(server.port)
    fleet(url.replace(f":{server.port}/", f":{proxy.port}/"), "s", 1, 100, 0.0)
    print(f"bytes to and from the server, one worker: {proxy.bytes / 100 / 1000:.1f} kB a trial")


def growth(where: str, url: str, sizes: tuple[int, ...]) -> None:
    """CPU milliseconds of a trial in a study of so many, the random sampler's draw included."""
    storage = make(url, "grown")
    distributions = {d.key: d.distribution for d in SPACE.dimensions}
    ended = optuna.create_trial(
        state=TrialState.COMPLETE, value=1.0, user_attrs={"worker": "w"},
        params={"x": 0.5, "y": 0.5}, distributions=distributions,
    )  # fmt: skip
    study, took = SweepStudy(storage, "grown"), {}
    for size in sizes:
        for number in range(len(study.trials()), size):
            ended.params = {"x": number / 1e6, "y": 0.5}
            study.optuna.add_trial(ended)
        work(storage, "grown", size + 1, 0.0)  # reads all trials once, as a worker's start does
        cpu = time.process_time()
        work(storage, "grown", size + 2, 0.0)
        start = time.process_time() - cpu
        cpu = time.process_time()
        work(storage, "grown", size + 202, 0.0)
        took[size] = 1000 * (time.process_time() - cpu - start) / 199
    listed = ", ".join(f"{size:,}: {ms:.2f}" for size, ms in took.items())
    print(f"{where}: ms of CPU a trial by size of the study: {listed}; growth "
          f"{took[sizes[-1]] / took[sizes[0]]:.2f}", flush=True)  # fmt: skip


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if len(sys.argv) > 1:
        url, name, workers, n_trials, seconds = sys.argv[1:]
        be_process(url, name, int(workers), int(n_trials), float(seconds))
        return
    print(describe_machine("optuna", "SQLAlchemy", "psycopg"))
    server = Postgres("fsync=on", "max_connections=200")
    server.start()
    try:
        efficiency(server)
        through_proxy(server)
        throughput(server)
        print()
        growth("PostgreSQL", server.database("growth"), (100, 1000, 10_000))
    finally:
        server.close()
    journal = Path(f"/tmp/fmexp-growth-{os.getpid()}.journal")
    growth("journal", f"journal://{journal}", (100, 1000, 10_000))
    journal.unlink()


if __name__ == "__main__":
    main()
