"""Train Factorization Machines, track every attempt, search their hyperparameters."""

__version__ = "0.1.0"
