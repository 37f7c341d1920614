"""Hydra's flags, as its documentation lists them; the parser that it makes of them is private."""

from __future__ import annotations

import argparse


def parser() -> argparse.ArgumentParser:
    """All flags of any Hydra application, and the overrides (`key=value`)."""
    found = argparse.ArgumentParser(prog="fmexp run", add_help=False)
    found.add_argument("overrides", nargs="*")
    for names in (
        ("--help", "-h"),
        ("--hydra-help",),
        ("--version",),
        ("--resolve",),
        ("--run", "-r"),
        ("--multirun", "-m"),
        ("--shell-completion", "-sc"),
    ):
        found.add_argument(*names, action="store_true")
    for names in (
        ("--package", "-p"),
        ("--config-path", "-cp"),
        ("--config-name", "-cn"),
        ("--config-dir", "-cd"),
        ("--experimental-rerun",),
    ):
        found.add_argument(*names)
    found.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    found.add_argument("--info", "-i", nargs="?", const="all")  # Hydra knows which there are
    return found
