"""What to try next after a sweep: its best may lie on an edge, its trials may have diverged."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmexp.analysis.report.sweep import Sweep
    from fmexp.sweep.space import Dimension

NEAR = 0.05
"""A number this near to an end, as a share of the range, lies on the edge."""

_MANY = 0.2

_NOTHING = (
    "No trial completed. The outcomes say why; try a single run first, with a smaller "
    "training.learning_rate: `fmexp run training.learning_rate=0.001`"
)


def advice(sweep: Sweep) -> list[str]:
    """Sentences, the most useful first, commands in backticks; never none."""
    if not sweep.best:
        return [_NOTHING if sweep.is_ours else "No trial completed. The outcomes say why."]
    winner = sweep.best[0]
    sentences = [on_edge(d, winner.point[d.key]) for d in sweep.space.dimensions
             if d.key in winner.point]  # fmt: skip
    outcomes = Counter(t.record.outcome for t in sweep.trials)
    if sweep.is_ours and outcomes["diverged"] > _MANY * len(sweep.trials):
        sentences.append(
            f"{outcomes['diverged']} of {len(sweep.trials)} trials diverged: lower the upper end "
            "of training.learning_rate, and the trials go where they can win."
        )
    epochs = winner.record.params.get("training.epochs", "")
    if epochs and winner.record.metrics.get("best/epoch") == float(epochs):
        sentences.append(
            f"The winner was still getting better in its last epoch: training.epochs={epochs} is "
            f"too few; try `training.epochs={2 * int(epochs)}`."
        )
    if not sweep.is_ours:
        return [s for s in sentences if s] or ["The space's edges are far from the best trial."]
    sentences.append(
        f"Is the winner really better than the next? `fmexp compare --sweep {sweep.name}` says "
        "whether chance would do the same."
    )
    sentences.append(
        f"When the choice is made: `fmexp score {winner.record.run_id[:8]}` gives its error on the "
        "test part, which no trial has seen. Once."
    )
    return [sentence for sentence in sentences if sentence]


def on_edge(d: Dimension, best: Any) -> str:
    """What to do where the best value is the first or last of its dimension; else "".

    >>> from fmexp.sweep.space import Dimension
    >>> rate = Dimension("training.learning_rate", "float", 0.001, 0.1, log=True)
    >>> on_edge(rate, 0.03)
    ''
    >>> on_edge(rate, 0.095)[:77]
    'training.learning_rate: the best value 0.095 lies on the upper edge of 0.001 '
    """
    if d.kind == "choice":
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in d.choices)
        if not numbers or len(d.choices) < 2:
            return ""
        low, high, at = min(d.choices), max(d.choices), best  # type: ignore[type-var]
    else:
        low, high, at = d.low, d.high, best
    scale = math.log if d.log else float
    span = scale(high) - scale(low)  # type: ignore[arg-type]
    near = NEAR * span if d.kind == "float" else 0.0
    if span == 0:
        return ""
    if scale(at) - scale(low) <= near:  # type: ignore[arg-type]
        return _widen(d, best, "lower", f"lower values than {low}")
    if scale(high) - scale(at) <= near:  # type: ignore[arg-type]
        return _widen(d, best, "upper", f"higher values than {high}")
    return ""


def _widen(d: Dimension, best: Any, side: str, what: str) -> str:
    shown = f"{best:.4g}" if isinstance(best, float) else best
    return (
        f"{d.key}: the best value {shown} lies on the {side} edge of {d}: "
        f"the optimum may lie outside; widen the space to {what}."
    )
