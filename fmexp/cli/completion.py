"""What a shell offers after TAB: commands, files, and for `fmexp run` what Hydra knows."""

from __future__ import annotations

import contextlib
import os
from glob import escape, glob
from pathlib import Path


def complete(overrides: list[str], commands: list[str]) -> int:
    """Answer `--shell-completion`: install=SHELL, uninstall=SHELL or query=SHELL; the exit code.

    Hydra's scripts call `fmexp -sc query=SHELL` with the line in COMP_LINE, which begins with the
    program's name and here has the command's after it.
    """
    from fmexp.config.compose import ask_hydra

    line = os.environ.get("COMP_LINE", "")
    asks = any(override.startswith("query=") for override in overrides)
    program, _, rest = line.partition(" ")
    command, space, words = rest.lstrip().partition(" ")
    if asks and not (command == "run" and space):
        offers = _files(words) if space else [name for name in commands if name.startswith(command)]
        print("\n".join(offers))
        return 0
    os.environ["COMP_LINE"] = f"{program} {words}"
    with contextlib.ExitStack() as stack:
        if asks:  # half a line is often wrong; TAB must not say so
            silence = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stderr(silence))
        ask_hydra(["--shell-completion", *overrides], "fmexp")
    return 0


def _files(words: str) -> list[str]:
    """Files that the last word begins."""
    return sorted(glob(f"{escape(words.rpartition(' ')[2])}*"))  # noqa: PTH207 -- as it was typed
