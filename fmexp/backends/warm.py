"""Compile the kernels that a first run is likely to need, into Numba's cache: `make install`.

    python -m fmexp.backends.warm

Each takes about a second to compile and milliseconds to load. Others are compiled when needed.
"""

from __future__ import annotations

import numpy as np

from fmexp import fm
from fmexp.backends import sgd_kernels
from fmexp.backends.compiled import NONE
from fmexp.backends.gibbs_chain import Chain
from fmexp.backends.gibbs_columns import columns_of
from fmexp.backends.scoring import Scorer
from fmexp.backends.sgd import DenseLayout, SparseLayout
from fmexp.data.features import CSR
from fmexp.data.related import Block, Related

FACTORS: dict[fm.Task, tuple[int, ...]] = {"regression": (4, 8, 16, 32), "classification": (8,)}
"""Up to how many factors, for each task."""


def warm(factors: dict[fm.Task, tuple[int, ...]] = FACTORS) -> None:
    """Train and score two rows of each kind, with the number types of the defaults."""
    dtype = np.dtype(np.float64)
    X, target, bias = np.eye(2), np.zeros(2), np.zeros(1)
    indptr, indices = np.arange(3), np.arange(2, dtype=np.int32)
    kinds = (X, CSR(indptr, indices, np.ones(2), 2), CSR(indptr, indices, None, 2))
    sgd_kernels.shuffle()(np.arange(2), np.ones(4, np.uint64))
    for task, sizes in factors.items():
        sgd_kernels.total_loss(task == "classification")(target, target, NONE)
        for k in sizes:
            parameters = fm.Parameters(0.0, np.zeros(2), np.zeros((2, k)))
            for rows in kinds:
                layout = (SparseLayout if isinstance(rows, CSR) else DenseLayout)(
                    parameters, dtype, task == "classification"
                )
                arrays = layout.training_arrays(rows)
                heard, step = (target, 1.0, 1.0), (0.0, 1.0, 0.0, 0.0, 0.0)
                layout.train(arrays, heard, np.arange(2), bias, step)
                layout.score(arrays, bias, np.empty(2))
    for rows in kinds:
        for task in factors:
            parameters = fm.Parameters(0.0, np.zeros(2), np.zeros((2, 8)))
            groups, columns = np.zeros(2, np.int64), columns_of(rows, 2)
            Chain(columns, target, task, parameters, groups, (1.0, 1.0), seed=0).sweep()
        own, block = CSR(indptr, indices, None, 4), Block(2, rows, indices)
        wide = fm.Parameters(0.0, np.zeros(4), np.zeros((4, 8)))
        Chain(columns_of(own, 4), target, "regression", wide, np.zeros(4, np.int64), (1.0, 1.0),
              seed=0, relations=(block,)).sweep()  # fmt: skip
        Scorer(Related(own, (block,)), wide)(wide)


if __name__ == "__main__":
    warm()
