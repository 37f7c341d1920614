"""`fmexp report`: one page with all that a sweep says, which opens in a browser offline."""

from __future__ import annotations

import json
import re
from html import unescape
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from fmexp.analysis import stored_run
from fmexp.analysis.report.advice import advice, on_edge
from fmexp.analysis.report.command import report
from fmexp.analysis.report.interactions import strongest
from fmexp.analysis.report.packed import element
from fmexp.analysis.report.pictures import most_important, pictures
from fmexp.analysis.report.sweep import Sweep, Trial, read
from fmexp.config.schema import Config
from fmexp.data.fields import Categorical, Numeric
from fmexp.data.loading import load
from fmexp.errors import UserError
from fmexp.record.queries import StoredRuns
from fmexp.sweep.space import Dimension, Space
from fmexp.training.fitting import fit
from tests.browser_support import a_sweep, chromium, look  # noqa: F401 -- a fixture
from tests.record_support import uri_of
from tests.sweep_support import left_in

SECTIONS = (
    "Winner", "What to try next", "Error over trials", "Curves of the best 5",
    "Parameter importance", "Slices", "Contour over model.k and training.learning_rate",
    "Parallel coordinates", "Outcomes", "Strongest interactions of the winner",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of two seeds a point, with its report."""
    folder = tmp_path_factory.mktemp("sweep")
    a_sweep(folder, "hydra.sweeper.seeds=2")
    assert report("demo", uri_of(folder), folder) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report-demo.html").read_text(encoding="utf-8")


def rows_after(page: str, title: str) -> list[list[str]]:
    """The cells of the first table under a title."""
    table = page.partition(f"<h2>{title}</h2>")[2].partition("</table>")[0]
    return [
        [unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
        for row in table.split("<tr>")[2:]
    ]


def test_it_opens_offline_with_all_pictures_and_nothing_to_complain(
    folder,
    tmp_path,
    chromium,  # noqa: F811
):
    dom, said = look(chromium, (folder / "report-demo.html").as_uri(), tmp_path)
    assert said == []
    assert 'data-drawn="6"' in dom
    assert dom.count('class="main-svg"') >= 6
    assert all(f"<h2>{title}</h2>" in dom for title in SECTIONS)


def test_it_is_readable_at_420_pixels(page, tmp_path, chromium):  # noqa: F811
    measure = """<script>setInterval(() => {
      const {scrollWidth, clientWidth} = document.documentElement;
      if (document.body.dataset.drawn) document.body.dataset.over = scrollWidth - clientWidth;
    }, 100)</script>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{measure}</body>"))
    narrow = ("--dump-dom", "--window-size=420,3000")
    dom, _ = look(chromium, (tmp_path / "page.html").as_uri(), tmp_path / "profile", *narrow)
    assert 'data-over="0"' in dom
    assert '<meta name="viewport" content="width=device-width' in page


def test_it_names_the_data_and_how_well_one_does_without_a_model(folder, page):
    best = next(iter(left_in(folder).children.values()))
    baseline = float(best.tags["fmexp.baseline"])
    facts = unescape(re.search(r"</h1>\s*<p>(.*?)</p>", page).group(1))
    assert facts == (
        "data <b>planted</b>; target <b>y</b>; rows <b>2,000</b>; "
        f"mse of predicting the mean <b>{baseline:.6g}</b>"
    )


def test_commands_are_set_as_code(page):
    assert re.search(r"<code>fmexp compare --sweep demo</code> says", page)


def test_slices_of_many_keys_wrap_and_no_picture_has_a_width_of_its_own():
    space = Space([Dimension(f"training.{c}", "float", 0.1, 10.0, log=True) for c in "abcdef"])
    stream = np.random.default_rng(0)
    trials = [
        Trial(SimpleNamespace(outcome="completed", tags={}), n,
              {d.key: float(stream.uniform(0.1, 9)) for d in space.dimensions}, float(n))
        for n in range(8)
    ]  # fmt: skip
    sweep = Sweep(SimpleNamespace(tags={}, params={}), space, "best/val_mse", trials, trials, False)
    drawn = pictures(SimpleNamespace(curve=lambda *_: [(1, 2.0), (2, 1.0)]), sweep)
    assert drawn["Slices"]["wrap"] == 6
    assert all("width" not in figure["layout"] for figure in drawn.values())
    axis = drawn["Slices"]["layout"]["xaxis"]
    assert axis["ticktext"] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"][-len(axis["ticktext"]) :]


def test_the_contour_shows_the_two_keys_that_matter_most():
    keys = ("model.k", "training.learning_rate", "training.reg_w", "training.reg_V")
    space = Space([Dimension(key, "float", 0.0, 1.0) for key in keys])
    stream = np.random.default_rng(0)
    points = [{key: float(stream.random()) for key in keys} for _ in range(60)]
    record = SimpleNamespace(outcome="completed", tags={})
    trials = [Trial(record, n, p, p["training.reg_w"] + p["training.reg_V"])
              for n, p in enumerate(points)]  # fmt: skip
    best = sorted(trials, key=lambda trial: trial.value)
    sweep = Sweep(record, space, "best/val_mse", trials, best, maximized=False)
    assert most_important(sweep, list(keys)) == ["training.reg_w", "training.reg_V"]


def test_the_look_at_the_console_is_not_blind(tmp_path, chromium):  # noqa: F811
    (tmp_path / "bad.html").write_text("<script>nobody.knows()</script>")
    _, said = look(chromium, (tmp_path / "bad.html").as_uri(), tmp_path / "profile")
    assert said == ["Uncaught ReferenceError: nobody is not defined"]


def test_it_needs_nothing_from_elsewhere_and_is_below_two_megabytes(page):
    assert len(page.encode()) < 2_000_000
    own = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.DOTALL)
    assert "http" not in own
    assert re.findall(r'(?:src|href)="(?!data:)', own) == []


def test_all_outcomes_stand_there_with_their_reasons(folder, page):
    found = {}
    for outcome, n, *_ in rows_after(page, "Outcomes"):
        found[outcome] = found.get(outcome, 0) + int(n)
    assert found == left_in(folder).outcomes
    assert set(found) == {"completed", "pruned", "diverged", "failed"}
    reasons = {row[0]: row[2] for row in rows_after(page, "Outcomes")}
    assert reasons["failed"] == "RuntimeError: k = 5 does <b>not</b> work"
    assert "is too large for this data" in reasons["diverged"]
    assert reasons["pruned"].startswith("pruned after epoch")
    assert "<b>not</b>" not in page


def test_the_winner_is_the_studys_and_its_models_seeds_agree_as_shown(folder, page):
    left = left_in(folder)
    best = min((t for t in left.counted if t.value is not None), key=lambda t: t.value)
    run = left.children[best.number]
    assert f"trial {best.number}, run <code>{run.run_id}</code>" in page
    assert f"best/val_mse {best.value:.6g}</b>" in page
    with StoredRuns(uri_of(folder)) as records:
        record = records.find(run.run_id)
        config: Config = stored_run.read_config(records, record)
        data = load(config.data, config.split, config.task)
    fits = {}
    for seed in (0, 1):
        config.seed = seed
        fits[seed] = fit(config, data).parameters.V
    i, j, *shown = rows_after(page, "Strongest interactions of the winner")[0]
    at = [data.encoder.feature_names.index(name) for name in (i, j)]
    weights = [float(V[at[0]] @ V[at[1]]) for V in fits.values()]
    assert shown[0] in {f"{weight:+.4g}" for weight in weights}
    assert shown[1].startswith(f"{np.mean(weights):+.4g} ± ")
    assert shown[2] == f"{1 + (weights[0] * weights[1] > 0)} of 2"


def test_the_page_is_an_artifact_of_the_parent(folder, page):
    (kept,) = left_in(folder).parent.artifacts.glob("report.html")
    assert kept.read_text(encoding="utf-8") == page


def test_the_study_is_read_back_from_the_record_alone(folder):
    left = left_in(folder)
    (folder / "optuna.journal").rename(folder / "moved.journal")
    try:
        with StoredRuns(uri_of(folder)) as records:
            sweep = read(records, "demo")
    finally:
        (folder / "moved.journal").rename(folder / "optuna.journal")
    expected = {t.number: (t.params, t.value) for t in left.counted}
    assert {t.number: (t.point, t.value) for t in sweep.trials} == expected
    known = {t.number: t.value for t in sweep.study().trials if t.value is not None}
    assert known == {t.number: t.value for t in left.counted if t.value is not None}
    states = [t.state for t in sweep.study().trials]
    pruned, complete = optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE
    assert states.count(pruned) == left.outcomes["pruned"]
    assert states.count(complete) == left.outcomes["completed"]


def test_a_single_run_has_no_report(fmexp):
    fmexp("run", "training.epochs=1")
    assert "is a single run, no sweep" in fmexp("report", "latest", code=2)


def test_a_sweep_without_a_completed_trial_says_so(fmexp):
    a_sweep(fmexp.folder, "hydra.sweeper.n_trials=2", "training.epochs=7", code=1)
    with pytest.raises(UserError, match="cannot be written"):
        report("demo", uri_of(fmexp.folder), fmexp.folder, fmexp.folder / "no" / "place.html")
    fmexp("report", "demo", "--out", "page.html")
    page = (fmexp.folder / "page.html").read_text(encoding="utf-8")
    assert "None: no trial completed" in page
    assert "try a single run first" in page


@pytest.mark.parametrize(
    ("dimension", "tried"),
    [
        (Dimension("k", "choice", choices=(2, 4)), [2, 4, 8]),
        (Dimension("k", "int", 2, 6, 2), [2, 6, 9]),
        (Dimension("k", "float", 0.1, 1.0, log=True), [0.1, 1.0, 0.01]),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_a_value_that_was_tried_outside_the_space_is_drawn(dimension, tried):
    record = SimpleNamespace(outcome="completed")
    trials = [Trial(record, n, {"k": x}, float(n)) for n, x in enumerate(tried)]
    sweep = Sweep(record, Space([dimension]), "best/val_mse", trials, trials, maximized=False)
    assert [t.params["k"] for t in sweep.study().trials] == tried


RATE = Dimension("training.learning_rate", "float", 0.001, 1.0, log=True)
K = Dimension("model.k", "int", 2, 64, 1, log=True)
CHOICE = Dimension("model.k", "choice", choices=(2, 8, 4))
NAMES = Dimension("backend", "choice", choices=("a", "b"))


@pytest.mark.parametrize(
    ("dimension", "best", "said"),
    [
        (RATE, 0.0013, "lower edge .* lower values than 0.001"),
        (RATE, 0.8, "upper edge .* higher values than 1.0"),
        (RATE, 0.5, "^$"),
        (K, 64, "upper edge"),
        (K, 63, "^$"),
        (CHOICE, 8, "upper edge of 2 | 8 | 4"),
        (CHOICE, 4, "^$"),
        (NAMES, "b", "^$"),
    ],
)
def test_a_best_value_on_the_edge_says_so(dimension, best, said):
    assert re.search(said, on_edge(dimension, best))


def test_a_winner_that_was_still_improving_wants_more_epochs():
    record = SimpleNamespace(
        params={"training.epochs": "20"}, metrics={"best/epoch": 20.0}, outcome="completed",
        run_id="0" * 32,
    )  # fmt: skip
    trial = SimpleNamespace(record=record, point={})
    sweep = SimpleNamespace(
        best=[trial], trials=[trial], name="s", space=SimpleNamespace(dimensions=[]), is_ours=True
    )
    assert "try `training.epochs=40`" in advice(sweep)[0]


def test_two_categories_of_one_column_are_no_interaction():
    encoder = SimpleNamespace(
        numeric=(Numeric("x"),), categorical=(Categorical("c", ("a", "b")),), block=None,
        n_features=3, feature_names=["x", "c=a", "c=b"],
    )  # fmt: skip
    V = np.array([[1.0, 0.0], [1.0, 9.0], [-2.0, 9.0]])
    found = strongest(SimpleNamespace(encoder=encoder, parameters=SimpleNamespace(V=V)), [])
    assert [(x.first, x.second, x.weight) for x in found] == [("x", "c=b", -2.0), ("x", "c=a", 1.0)]


def test_what_is_packed_never_ends_its_script_early():
    stream = np.random.default_rng(0)
    text = element("x", stream.bytes(100_000) + json.dumps("</script>").encode())
    assert text.count("<") == 2
