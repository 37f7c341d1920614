"""The study and the record both on a real PostgreSQL server, with commands racing for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers_support import Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """host:port of a server of our own."""
    server = Postgres("fsync=on")
    server.start()
    for database in ("study", "record", "raced"):
        server.database(database)
    yield f"127.0.0.1:{server.port}"
    server.close()


def test_racing_commands_do_one_sweep_exactly_and_record_it(fmexp, server):
    import psycopg

    record = f"postgresql+psycopg://me@{server}/record"
    sweep = (
        "run", "-m", "data=planted", "training.epochs=5", "hydra.sweeper.n_trials=12",
        f"hydra.sweeper.storage=postgresql://me@{server}/study", f"tracking.uri={record}",
    )  # fmt: skip
    commands = [fmexp.start(*sweep) for _ in range(3)]
    outputs = ["\n".join(command.communicate(timeout=240)) for command in commands]
    assert [command.returncode for command in commands] == [0] * 3, "\n\n".join(outputs)
    assert all("12 of 12 trials: 12 completed" in output for output in outputs)

    with psycopg.connect(f"postgresql://me@{server}/study") as study:
        points = study.execute(
            "select string_agg(param_name || param_value, ' ' order by param_name) from trials "
            "join trial_params using (trial_id) where state = 'COMPLETE' group by trial_id"
        ).fetchall()
    assert len(points) == len(set(points)) == 12
    with psycopg.connect(f"postgresql://me@{server}/record") as recorded:
        statuses = recorded.execute("select status from runs").fetchall()
        curves = recorded.execute(
            "select array_agg(step order by step), min(value), "
            "(select value from latest_metrics b where b.run_uuid = m.run_uuid "
            "and key = 'best/val_mse') from metrics m where key = 'val/mse' group by run_uuid"
        ).fetchall()
    assert statuses == [("FINISHED",)] * 13
    assert [steps for steps, _, _ in curves] == [[1, 2, 3, 4, 5]] * 12
    assert all(lowest == best for _, lowest, best in curves)


def test_what_two_write_at_once_is_written_and_nothing_is_refused(server, tmp_path):
    from fmexp.record.mlflow_store import Store
    from fmexp.record.tracker import RunStart

    stores = [Store(f"postgresql+psycopg://me@{server}/raced", "test", tmp_path) for _ in "12"]
    params = {f"name{i}": "1" for i in range(5)}
    points = [(name, 0, 5, 1.0) for name in params]
    with ThreadPoolExecutor(2) as pool:
        for attempt in range(100):
            run_id, _ = stores[0].create(f"key{attempt}", RunStart("run", {}, {}), {}, 1, None)
            both = [run_id] * 2
            list(pool.map(Store.log, stores, both, [params] * 2, [points] * 2))
            data = {"name": f"data{attempt}", "digest": "d"}
            list(pool.map(Store.log_dataset, stores, both, [data] * 2))
    run = stores[0]._client.get_run(run_id)
    assert (run.data.params, run.data.metrics) == (params, dict.fromkeys(params, 1.0))
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["data99"]
