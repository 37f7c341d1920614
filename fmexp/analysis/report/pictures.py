"""The pictures of a sweep as plotly figures, by optuna.visualization where it has them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from fmexp.sweep.space import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from fmexp.analysis.report.sweep import Sweep
    from fmexp.record.queries import StoredRuns

SHOWN_CURVES = 5
FEWEST = 4
"""Completed trials from which on the influence of parameters can be told."""

MOST_DETAILED = 300
"""Trials in pictures whose size grows fastest with them; the best are chosen."""

MOST_POINTS = 200
"""Points of a curve."""

Figure = dict[str, Any]
"""A plotly figure as JSON knows it: data and layout; the page lays out its `wrap` subplots, and
scrolls where it has less than its `least` width in pixels."""


def library() -> bytes:
    """The JavaScript of plotly."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.encode()


def pictures(records: StoredRuns, sweep: Sweep) -> dict[str, Figure]:
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
    least = {title: 95 * (1 + len(varied)) for title in drawn if title.startswith("Parallel")}
    return {
        title: _plain(title, figure) | {"least": least.get(title, 0)}
        for title, figure in drawn.items()
    }


def _of_parameters(sweep: Sweep, varied: list[str]) -> dict[str, Callable[[optuna.Study], Any]]:
    """What shows the influence of parameters."""
    from optuna import visualization

    name = sweep.objective
    drawings: dict[str, Callable[[optuna.Study], Any]] = {
        "Parameter importance": lambda s: visualization.plot_param_importances(
            s, params=varied, target_name=name
        ),
        "Slices": lambda s: visualization.plot_slice(s, params=varied, target_name=name),
    }
    pair = most_important(sweep, varied)
    if len(pair) == 2:
        are_few = len(sweep.best) <= MOST_DETAILED
        of = "" if are_few else f" of the best {MOST_DETAILED}"
        drawings[f"Contour over {pair[0]} and {pair[1]}{of}"] = lambda s: (
            visualization.plot_contour(
                s if are_few else sweep.study(MOST_DETAILED), params=pair, target_name=name
            )
        )
        drawings[f"Parallel coordinates{of}"] = lambda s: visualization.plot_parallel_coordinate(
            s if are_few else sweep.study(MOST_DETAILED), params=varied, target_name=name
        )
    return drawings


def most_important(sweep: Sweep, varied: list[str]) -> list[str]:
    """The two parameters that the objective depends on most, in the order of the space."""
    from optuna.importance import get_param_importances

    if len(varied) < 2:
        return []
    weights = get_param_importances(sweep.study(), params=varied)
    most = sorted(varied, key=lambda key: -weights[key])[:2]
    return [key for key in varied if key in most]


def _varied(sweep: Sweep) -> list[str]:
    """Parameters that every completed trial has, with at least two values among them."""
    keys = [d.key for d in sweep.space.dimensions]
    return [
        key
        for key in keys
        if all(key in t.point for t in sweep.best) and len({t.point[key] for t in sweep.best}) > 1
    ]


def _curves(records: StoredRuns, sweep: Sweep) -> Any:
    """The validation curves of the best trials."""
    from plotly.graph_objects import Figure as PlotlyFigure

    figure = PlotlyFigure()
    for trial in sweep.best[:SHOWN_CURVES]:
        curve = records.curve(trial.record, sweep.curve)
        curve = curve[:: -(-len(curve) // MOST_POINTS) or 1]
        xs, ys = [epoch for epoch, _ in curve], [loss for _, loss in curve]
        hover = f"{trial.number}: {in_words(trial.point)}<br>epoch %{{x}}: %{{y}}<extra></extra>"
        figure.add_scatter(x=xs, y=ys, name=f"trial {trial.number}", hovertemplate=hover)
    scale = "log" if sweep.is_ours else "linear"
    figure.update_layout(xaxis_title="epoch", yaxis_title=sweep.curve, yaxis_type=scale)
    return figure


def _plain(title: str, figure: Any) -> Figure:
    """The figure without plotly's template, which is as large as the data, and without a title."""
    plain: Figure = json.loads(figure.to_json())
    data = _rounded(plain["data"])
    dropped = ("template", "title", "width")
    layout = {k: v for k, v in plain["layout"].items() if k not in dropped}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            axis["automargin"] = True
            if axis.get("type") == "log":
                axis |= _log_ticks(_values_on(name, data))
    layout |= {
        "margin": {"t": 30, "r": 20, "b": 60, "l": 60},
        "height": 520 if title.startswith(("Contour", "Parallel")) else 400,
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    }
    for trace in data:
        for part in (trace, trace.get("line", {}), trace.get("marker", {})):
            if "colorbar" in part:
                part["colorbar"] |= {"thickness": 12}
        if title == "Slices":
            trace["marker"]["showscale"] = False
    wrap = sum(name.startswith("xaxis") for name in layout) if title == "Slices" else 0
    return {"data": data, "layout": layout, "wrap": wrap}


def _values_on(axis: str, data: list[dict[str, Any]]) -> list[float]:
    """All positive numbers that are drawn along an axis, such as xaxis2."""
    letter, number = axis[0], axis[5:]
    values = [trace.get(letter) for trace in data
              if (trace.get(f"{letter}axis") or letter)[1:] == number]  # fmt: skip
    numbers = [x for each in values if isinstance(each, list) for x in each]
    return [float(x) for x in numbers if isinstance(x, int | float) and x > 0]


def _log_ticks(values: list[float]) -> dict[str, Any]:
    """Where a logarithmic axis is labelled: 1, 2 and 5 times powers of ten, or these alone.

    plotly itself would label 0.02 as "2".

    >>> _log_ticks([0.003, 0.04])["ticktext"]
    ['0.002', '0.005', '0.01', '0.02', '0.05']
    >>> _log_ticks([0.003, 400.0])["ticktext"]
    ['0.001', '0.01', '0.1', '1', '10', '100', '1000']
    """
    if not values:
        return {}
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    digits = (1, 2, 5) if max(values) / min(values) < 100 else (1,)
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
    below = [tick for tick in ticks if tick <= min(values)][-1:]
    above = [tick for tick in ticks if tick >= max(values)][:1]
    ticks = [*below, *(t for t in ticks if min(values) < t < max(values)), *above]
    ticks = [float(f"{tick:.6g}") for tick in dict.fromkeys(ticks)]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _rounded(x: Any) -> Any:
    """The same with numbers of six digits, which no eye can tell apart: half the size."""
    if isinstance(x, dict):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_rounded(value) for value in x]
    return float(f"{x:.6g}") if isinstance(x, float) else x
