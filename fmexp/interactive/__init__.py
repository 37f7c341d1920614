"""Runs and sweeps from Python and notebooks, in the command line's words."""
