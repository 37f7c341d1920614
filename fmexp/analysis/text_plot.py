"""Curves drawn with letters, for a terminal."""

from __future__ import annotations

import math

Curve = list[tuple[int, float]]
"""(step, value), by step."""

_LOG_FROM = 20.0


def draw(curves: dict[str, Curve], width: int = 64, height: int = 12) -> str:
    """All curves in one picture: each as its letter, `*` where several meet.

    The vertical axis is logarithmic when the largest value is more than 20 times the smallest.

    Args:
        curves: by letter; empty ones are left out.
        width: columns of the picture.
        height: rows of it.

    >>> print(draw({"A": [(1, 4.0), (2, 2.0), (3, 1.0)], "B": [(1, 4.0)]}, width=5, height=4))
         4 |*
           |
           |  A
         1 |    A
           +-----
            1   3
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    steps, values = zip(*points, strict=True)
    is_log = min(values) > 0 and max(values) > _LOG_FROM * min(values)
    scale = math.log if is_log else float
    low, high = scale(min(values)), scale(max(values))
    first, last = min(steps), max(steps)
    cells = [[" "] * width for _ in range(height)]
    for letter, curve in curves.items():
        for step, value in curve:
            column = _place(step, first, last, width)
            row = height - 1 - _place(scale(value), low, high, height)
            cells[row][column] = letter if cells[row][column] in (" ", letter) else "*"
    labels = [f"{max(values):.4g}", *[""] * (height - 2), f"{min(values):.4g}"]
    lines = [
        f"{label:>6} |{''.join(cell)}".rstrip() for label, cell in zip(labels, cells, strict=True)
    ]
    axis = f"{first}{last:>{width - len(str(first))}}"
    return "\n".join([*lines, f"{'':6} +{'-' * width}", f"{'':8}{axis}"])


def _place(x: float, low: float, high: float, cells: int) -> int:
    """The cell, from 0, in which x lies."""
    return round((x - low) / (high - low) * (cells - 1)) if high > low else 0
