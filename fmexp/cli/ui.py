"""MLflow's own UI on the store of the runs, with the addresses that matter."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from fmexp.cli.options import add_store, store_uri
from fmexp.errors import FmexpError, UserError
from fmexp.record.locate import sqlite_path
from fmexp.record.passwords import without_password
from fmexp.record.spool_tracker import drain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_START_SECONDS = 120
_STOP_SECONDS = 5
_BEST = 5

_OF_PARENT = "tags.`mlflow.parentRunId` = '{}'"
_TRAINING = "workflowType=machine_learning"
"""MLflow's UI opens with what is for language models otherwise."""

_NOTE = "mlflow.note.content"
_PRIMARY = "mlflow.experiment.primaryMetric.name"
_GREATER_IS_BETTER = "mlflow.experiment.primaryMetric.greaterIsBetter"
_KIND, _MODELS = "mlflow.experimentKind", "custom_model_development"
NOTE = """\
Factorization Machines by fmexp. A sweep is a run with its trials below it; its description links
the winner. `train/*` and `val/*` are curves over epochs, `best/*` is the model that was kept,
`time/fit_seconds` how long training took, `test/*` what `fmexp score` found.

`fmexp compare A B` says whether one is really better, `fmexp report SWEEP` makes a page of a sweep.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The store, and where to listen."""
    add_store(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")


def main(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    return serve(store_uri(arguments), arguments.host, arguments.port, Path.cwd())


def serve(uri: str, host: str, port: int, folder: Path) -> int:
    """Serve the UI until Ctrl-C or SIGTERM.

    Args:
        uri: absolute tracking URI; of a server, whose own UI is only pointed to.
        host: address to listen on.
        port: TCP port.
        folder: where the spool lies; what killed commands left there is sent first.

    Returns:
        0, also after Ctrl-C: that is how one leaves it.

    Raises:
        UserError: there is no store yet, or the port is taken.
        FmexpError: the server did not start, or died.
    """
    if uri.startswith(("http://", "https://")):
        print(f"{without_password(uri)} is a server with a UI of its own: open it there")
        return 0
    database = sqlite_path(uri)
    if database and not database.exists():
        raise UserError(f"there is no store {database} yet; `fmexp run` makes it")
    _check_port(host, port)
    drain(folder, uri)
    print(f"starting MLflow's UI on {without_password(uri)}: some seconds ...", flush=True)
    with (
        contextlib.suppress(_Stop),
        _stopped_by_signals(),
        tempfile.TemporaryFile() as log,
        _server(uri, host, port, folder, log) as server,
    ):
        _wait_until_up(server, host, port, log)
        prepare(host, port)
        for what, address in addresses(host, port):
            print(f"  {what:<24} {address}")
        print("Ctrl-C stops it", flush=True)
        server.wait()
        raise FmexpError(f"MLflow's server ended by itself: {_tail(log)}")
    print("stopped")
    return 0


def prepare(host: str, port: int) -> None:
    """Say on each experiment of ours what it holds, and which metric its charts begin with.

    What somebody wrote there stays.
    """
    for experiment in _ask(host, port, "experiments/search"):
        there = {tag["key"] for tag in experiment.get("tags", [])}
        ours = _runs(host, port, [experiment["experiment_id"]], "tags.`fmexp.version` LIKE '%'", 1)
        metrics = {m["key"] for run in ours for m in run["data"].get("metrics", [])}
        if not ours or _PRIMARY in there or _NOTE in there:
            continue
        known = ("best/val_logloss", "best/val_mse", "objective")
        best = next((name for name in known if name in metrics), "best/val_mse")
        note = NOTE if best != "objective" else f"Trials of {experiment['name']}, by fmexp's sweep."
        tags = {_NOTE: note, _PRIMARY: best, _GREATER_IS_BETTER: "False", _KIND: _MODELS}
        for key, value in tags.items():
            tag = {"experiment_id": experiment["experiment_id"], "key": key, "value": value}
            _ask(host, port, "experiments/set-experiment-tag", tag)


def addresses(host: str, port: int) -> list[tuple[str, str]]:
    """What is worth opening on a running server: (what it is, address), the best first."""
    base = f"http://{_reachable(host)}:{port}/#"
    everything = ("all experiments", f"{base}/experiments?{_TRAINING}")
    experiments = [e["experiment_id"] for e in _ask(host, port, "experiments/search")]
    child = _runs(host, port, experiments, "tags.`mlflow.parentRunId` LIKE '%'", 1)
    newest = child or _runs(host, port, experiments, "", 1)
    if not newest:
        return [everything]
    experiment = newest[0]["info"]["experiment_id"]
    runs = f"{base}/experiments/{experiment}/runs"
    charts = f"{runs}?compareRunsMode=CHART&{_TRAINING}"
    if not child:
        run = f"{runs}/{newest[0]['info']['run_id']}?{_TRAINING}"
        return [("the newest run", run), ("all runs side by side", charts), everything]
    parent = _tags(child[0])["mlflow.parentRunId"]
    metric, rises, run_ids = _best_children(host, port, experiment, parent)
    best = quote(json.dumps(run_ids))
    # without an order of its own the page would fold all trials into their sweep
    order = f"orderByKey={quote(f'metrics.`{metric}`')}&orderByAsc={str(not rises).lower()}"
    trials = f"{charts}&searchFilter={quote(_OF_PARENT.format(parent))}&{order}"
    compared = f"{base}/compare-runs?runs={best}&experiments={quote(json.dumps([experiment]))}"
    return [
        ("the newest sweep", f"{runs}/{parent}?{_TRAINING}"),
        ("its trials' curves", trials),
        (f"its best {_BEST} compared", f"{compared}&{_TRAINING}"),
        ("all runs side by side", charts),
        everything,
    ]


def _best_children(
    host: str, port: int, experiment: str, parent: str
) -> tuple[str, bool, list[str]]:
    """By what the sweep's trials are ordered, whether it rises, and the run ids of the best by it.

    A validation loss, or what another application's function returned.
    """
    of_parent = _OF_PARENT.format(parent)
    sweeps = f"tags.`fmexp.direction` = 'maximize' and attributes.run_id = '{parent}'"
    rises = bool(_runs(host, port, [experiment], sweeps, 1))
    for metric, order in (
        ("best/val_mse", "ASC"), ("best/val_logloss", "ASC"),
        ("objective", "DESC" if rises else "ASC"),
    ):  # fmt: skip
        some = f"{of_parent} and metrics.`{metric}` < 1e300 and tags.`fmexp.outcome` = 'completed'"
        best = _runs(host, port, [experiment], some, _BEST, f"metrics.`{metric}` {order}")
        if best:
            return metric, order == "DESC", [run["info"]["run_id"] for run in best]
    some_trials = _runs(host, port, [experiment], of_parent, _BEST)
    return "best/val_mse", False, [run["info"]["run_id"] for run in some_trials]


def _runs(
    host: str, port: int, experiments: list[str], some: str, n: int,
    order: str = "attributes.start_time DESC",
) -> list[dict[str, Any]]:  # fmt: skip
    body = {"experiment_ids": experiments, "filter": some, "max_results": n, "order_by": [order]}
    return _ask(host, port, "runs/search", body)


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def _ask(
    host: str, port: int, what: str, body: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The list in the answer of MLflow's REST API."""
    with contextlib.closing(http.client.HTTPConnection(_reachable(host), port, timeout=60)) as to:
        headers = {"Content-Type": "application/json"}
        to.request("POST", f"/api/2.0/mlflow/{what}", json.dumps(body or {"max_results": 1000}),
                   headers)  # fmt: skip
        answer = json.load(to.getresponse())
    entries: list[dict[str, Any]] = answer.get(what.split("/")[0], [])
    return entries


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {host} --port {port} cannot be listened on ({error}); "
            f"choose another, as in `fmexp ui --port {port % 60000 + 1}`"
        ) from None


@contextlib.contextmanager
def _server(
    uri: str, host: str, port: int, folder: Path, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server with all its children, which end with the block."""
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password
        "PYTHONSAFEPATH": "1",  # its children import nothing from the folder either,
        "UVICORN_APP_DIR": str(Path(os.__file__).parent),  # and uvicorn does not put it in front
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for GenAI jobs
    }
    where = ["--host", host, "--port", str(port)]
    server = subprocess.Popen(  # noqa: S603 -- this interpreter
        [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1", *where],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield server
    finally:
        _end_group(server)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End a process with all its children: asked first, killed after a while."""
    for sent, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        until = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, sent)
            while time.monotonic() < until:
                server.poll()
                os.killpg(server.pid, 0)  # raises when nobody is left
                time.sleep(0.05)
    server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], host: str, port: int, log: IO[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection(_reachable(host), port, timeout=5)) as to,
        ):
            to.request("GET", "/health")
            if to.getresponse().status == http.client.OK:
                return
        time.sleep(0.1)
    raise FmexpError(f"MLflow's server did not start: {_tail(log)}")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)  # noqa: S104


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-5:])


class _Stop(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal."""


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within the block those signals raise _Stop."""

    def stop(*_: object) -> None:
        for ignored in before:  # one is enough: a second must not cut the clean-up short
            signal.signal(ignored, signal.SIG_IGN)
        raise _Stop

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
