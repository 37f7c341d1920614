"""A step of Adam on one tensor: by the private kernel under torch.optim.Adam, else by that itself.

The kernel takes a tenth of the time that torch.optim.Adam needs to begin a step. It is no public
name of torch, so it is used only while it does what it did: `fused_kernel`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Torch's defaults."""


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on the tensor `theta`, which it moves in place."""

    def __init__(self, theta: torch.Tensor) -> None:
        self.theta = theta
        self._mean, self._square = torch.zeros_like(theta), torch.zeros_like(theta)
        self._steps = torch.zeros((), device=theta.device)
        self._kernel = fused_kernel()
        self._optimizer: torch.optim.Adam | None = None
        if self._kernel is None:
            self._optimizer = torch.optim.Adam([theta], betas=(BETA1, BETA2), eps=EPSILON)

    def step(self, gradient: torch.Tensor, learning_rate: float) -> None:
        """Move theta; `gradient` has its shape, dtype and device."""
        if self._kernel is not None:
            self._steps += 1
            moments = self._mean, self._square
            self._kernel(self.theta, gradient, *moments, self._steps, learning_rate)
            return
        assert self._optimizer is not None
        self.theta.grad = gradient
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()


@cache
def fused_kernel() -> Callable[..., Any] | None:
    """The kernel if this torch has it and two steps of it come out as by hand; else None."""
    theta, mean, square = (torch.full((1,), x, dtype=torch.float64) for x in (1.0, 0.0, 0.0))
    steps, gradient = torch.zeros(()), torch.ones(1, dtype=torch.float64)
    try:
        for _ in range(2):
            steps += 1
            _fused(theta, gradient, mean, square, steps, 0.25)
    except (AttributeError, TypeError, RuntimeError):
        return None
    # of a gradient that is always 1 the corrected moments are 1, so each step is the rate
    return _fused if abs(theta.item() - 0.5) < 1e-6 else None


def _fused(
    theta: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor,
    steps: torch.Tensor, learning_rate: float,
) -> None:  # fmt: skip
    torch._fused_adam_(
        [theta],
        [gradient],
        [mean],
        [square],
        [],
        [steps],
        lr=learning_rate,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=0.0,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )
