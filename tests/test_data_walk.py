"""Data go down once: following one CSV file, no stage is entered more than three times."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.data_support import PARTS, lines, load_csv

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

VALUES = {"cells", "files", "table", "features"}
"""Modules of values and of bytes on disk: every stage uses their functions."""


def module_of(frame: FrameType | None) -> str:
    name = frame.f_globals.get("__name__", "") if frame else ""
    return name.removeprefix("fmexp.data.") if name.startswith("fmexp.data.") else ""


def entered(load: Any) -> dict[str, set[str]]:
    """The functions of each module of fmexp.data that other modules of it call."""
    found: dict[str, set[str]] = defaultdict(set)

    def note(frame: FrameType, event: str, _: object) -> None:
        module, name = module_of(frame), frame.f_code.co_name
        if event == "call" and module and name in frame.f_globals:  # no method, no inner function
            caller = frame.f_back
            while caller is not None and not module_of(caller):
                caller = caller.f_back
            if caller is not None and module_of(caller) != module:
                found[module].add(name)

    sys.setprofile(note)
    try:
        load()
    finally:
        sys.setprofile(None)
    return found


def test_no_stage_is_entered_more_than_three_times(tmp_path: Path) -> None:
    rows = [f"u{i % 9},{i % 13}.5,{i % 11}" for i in range(200)]
    (tmp_path / "t.csv").write_bytes(lines("user,a,y", *rows))
    found = entered(lambda: load_csv(tmp_path / "t.csv", PARTS))
    assert {"sources", "csv", "schema", "split", "learn", "encoded_split"} <= found.keys()
    assert not {m: names for m, names in found.items() if len(names) > 3 and m not in VALUES}
