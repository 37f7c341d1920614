"""The sweep: a space of configurations searched by Optuna."""
