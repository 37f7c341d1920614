"""The pictures of a sweep as plotly figures, by optuna.visualization where it has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fmexp.experiment.trial import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from fmexp.analysis.report.sweep import Sweep
    from fmexp.record.queries import Records

SHOWN_CURVES = 5
FEWEST = 4
"""Completed trials from which on the influence of parameters can be told."""

MOST_DETAILED = 300
"""Trials in pictures whose size grows fastest with them; the best are chosen."""

MOST_POINTS = 200
"""Points of a curve."""

Figure = dict[str, Any]
"""A plotly figure as JSON knows it: data and layout."""


def library() -> bytes:
    """The JavaScript of plotly."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.encode()


def pictures(records: Records, sweep: Sweep) -> dict[str, Figure]:
    """Title and figure of each picture that the trials allow."""
    if not sweep.best:
        return {}
    from optuna import visualization

    study = sweep.study()
    drawn = {
        "Error over trials": visualization.plot_optimization_history(
            study, target_name=sweep.objective
        ),
        f"Curves of the best {min(SHOWN_CURVES, len(sweep.best))}": _curves(records, sweep),
    }
    varied = _varied(sweep)
    if len(sweep.best) >= FEWEST and varied:
        drawn |= {title: draw(study) for title, draw in _of_parameters(sweep, varied).items()}
    return {title: _plain(title, figure) for title, figure in drawn.items()}


def _of_parameters(sweep: Sweep, varied: list[str]) -> dict[str, Callable[[optuna.Study], Any]]:
    """What shows the influence of parameters."""
    from optuna import visualization

    name = sweep.objective
    found: dict[str, Callable[[optuna.Study], Any]] = {
        "Parameter importance": lambda s: visualization.plot_param_importances(
            s, params=varied, target_name=name
        ),
        "Slices": lambda s: visualization.plot_slice(s, params=varied, target_name=name),
    }
    first = ("model.k", "training.learning_rate")
    pair = sorted(varied, key=lambda key: first.index(key) if key in first else len(first))[:2]
    if len(pair) == 2:
        are_few = len(sweep.best) <= MOST_DETAILED
        of = "" if are_few else f" of the best {MOST_DETAILED}"
        found[f"Contour over {pair[0]} and {pair[1]}{of}"] = lambda s: visualization.plot_contour(
            s if are_few else sweep.study(MOST_DETAILED), params=pair, target_name=name
        )
        found[f"Parallel coordinates{of}"] = lambda s: visualization.plot_parallel_coordinate(
            s if are_few else sweep.study(MOST_DETAILED), params=varied, target_name=name
        )
    return found


def _varied(sweep: Sweep) -> list[str]:
    """Parameters that every completed trial has, with at least two values among them."""
    keys = [d.key for d in sweep.space.dimensions]
    return [
        key
        for key in keys
        if all(key in t.point for t in sweep.best) and len({t.point[key] for t in sweep.best}) > 1
    ]


def _curves(records: Records, sweep: Sweep) -> Any:
    """The validation curves of the best trials."""
    from plotly.graph_objects import Figure as PlotlyFigure

    figure = PlotlyFigure()
    for trial in sweep.best[:SHOWN_CURVES]:
        curve = records.curve(trial.record, f"val/{sweep.loss}")
        curve = curve[:: -(-len(curve) // MOST_POINTS) or 1]
        name = f"{trial.number}: {in_words(trial.point)}"
        figure.add_scatter(x=[e for e, _ in curve], y=[y for _, y in curve], name=name)
    figure.update_layout(xaxis_title="epoch", yaxis_title=f"val/{sweep.loss}", yaxis_type="log")
    return figure


def _plain(title: str, figure: Any) -> Figure:
    """The figure without plotly's template, which is as large as the data, and without a title."""
    found: Figure = json.loads(figure.to_json())
    layout = {k: v for k, v in found["layout"].items() if k not in ("template", "title")}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            axis["automargin"] = True
    margin = {"t": 30, "r": 20, "b": 60, "l": 70}
    height = 520 if title.startswith(("Contour", "Parallel")) else 400
    return {
        "data": _rounded(found["data"]),
        "layout": layout | {"margin": margin, "height": height},
    }


def _rounded(x: Any) -> Any:
    """The same with numbers of six digits, which no eye can tell apart: half the size."""
    if isinstance(x, dict):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_rounded(value) for value in x]
    return float(f"{x:.6g}") if isinstance(x, float) else x
