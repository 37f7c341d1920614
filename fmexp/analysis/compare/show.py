"""A comparison as text for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fmexp.analysis import significance, text_plot
from fmexp.analysis.compare.choose import differing, loss_of
from fmexp.record.tracker import APPLICATION

if TYPE_CHECKING:
    from fmexp.analysis.compare.candidates import Candidate
    from fmexp.record.queries import StoredRun

_UNITS = {"mse": "MSE", "logloss": "log loss"}
_OPTIMISTIC = (
    "Each model kept the epoch that was best on these rows, so all errors here are a little "
    "too low; "
)
_UNSEEN = "`fmexp score` has rows that no choice has seen."


@dataclass(frozen=True)
class Comparison:
    """All that is shown.

    Attributes:
        candidates: the first is compared with each other one.
        curves: validation loss by epoch (that of training where nothing was held out), by letter.
        judged: for each but the first; None where errors are not known.
        trouble: why they are not known.
    """

    candidates: list[Candidate]
    curves: dict[str, text_plot.Curve]
    judged: list[significance.Difference | None]
    trouble: str

    def as_text(self) -> str:
        """Runs, a table of what differs and of results, curves, a sentence each."""
        shown = [each.record for each in self.candidates]
        part = "val" if f"val/{self._loss}" in shown[0].metrics else "train"
        lines = [f"{each.letter}  {each.record}" for each in self.candidates]
        lines += ["", *_table([each.letter for each in self.candidates], self._rows())]
        if any(self.curves.values()):
            lines += ["", f"{part}/{self._loss} by epoch", text_plot.draw(self.curves)]
        lines.append("")
        lines += self._sentences()
        if self.trouble:
            lines.append(f"Whether one is really better cannot be told: {self.trouble}")
        else:
            goes_back = any(each.params.get("backend") != "gibbs" for each in shown)
            lines.append((_OPTIMISTIC if goes_back else "") + _UNSEEN)
        return "\n".join(lines)

    def as_json(self) -> str:
        """The same for programs."""
        keys = differing([each.record for each in self.candidates])
        runs = [
            {
                "letter": each.letter,
                "run_id": each.record.run_id,
                "name": each.record.name,
                "params": {key: values[i] for key, values in keys.items()},
                "results": _results(each, self._loss),
            }
            for i, each in enumerate(self.candidates)
        ]
        differences = [judged for judged in self.judged if judged]
        comparisons = [
            asdict(judged)
            | {
                "a": self.candidates[0].letter,
                "b": other.letter,
                "p": judged.p,
                "half_width": judged.half_width,
                "is_real": judged.is_real,
                "sentence": sentence,
            }
            for judged, other, sentence in zip(
                differences, self.candidates[1:], self._sentences(), strict=False
            )
        ]
        tree = {"runs": runs, "comparisons": comparisons, "trouble": self.trouble}
        return json.dumps(tree, indent=1, allow_nan=False)

    @property
    def _loss(self) -> str:
        return loss_of(self.candidates[0].record)

    def _sentences(self) -> list[str]:
        first = self.candidates[0].letter
        sentences = []
        for other, judged in zip(self.candidates[1:], self.judged, strict=True):
            if judged:
                words = significance.in_words(judged, first, other.letter, _UNITS[self._loss])
                if judged.choices > 1:
                    words += f" (allowing for {judged.choices:,} comparisons to pick from)"
                sentences.append(f"{words[0].upper()}{words[1:]}.")
        return sentences

    def _rows(self) -> dict[str, list[str]]:
        results = [_results(each, self._loss) for each in self.candidates]
        names = dict.fromkeys(name for each in results for name in each)
        rows = {name: [_short(each.get(name, "")) for each in results] for name in names}
        if any(self.curves.values()):
            rows["epochs"] = [str(curve[-1][0]) if curve else "" for curve in self.curves.values()]
        params = differing([each.record for each in self.candidates])
        return {name: shorter(values) for name, values in params.items()} | rows


def _results(candidate: Candidate, loss: str) -> dict[str, Any]:
    """What is shown of a run besides its params."""
    record: StoredRun = candidate.record
    names = [f"best/val_{loss}", f"best/val_{loss}_stdev", "best/epoch", f"val/{loss}"]
    names += [f"train/{loss}", f"test/{loss}", "time/fit_seconds"]
    shown: dict[str, Any] = {"outcome": record.outcome or record.status.lower()}
    if APPLICATION in record.tags:
        names = sorted(record.metrics)
    shown |= {name: record.metrics[name] for name in names if name in record.metrics}
    for model in list(candidate.models.values())[:1]:
        shown["parameters"] = 1 + model.parameters.w.size + model.parameters.V.size
    return shown


def _table(letters: list[str], rows: dict[str, list[str]]) -> list[str]:
    """Keys down, runs across."""
    first = max(map(len, rows))
    widths = [
        max(len(letter), *(len(values[i]) for values in rows.values()))
        for i, letter in enumerate(letters)
    ]
    return [
        "  ".join([f"{key:<{first}}", *(f"{v:>{w}}" for v, w in zip(values, widths, strict=True))])
        for key, values in {"": letters, **rows}.items()
    ]


def shorter(values: list[str]) -> list[str]:
    """Numbers to six digits, as long as that tells them apart."""
    short = []
    for value in values:
        try:
            short.append(f"{float(value):.6g}" if "." in value[:-6] else value)
        except ValueError:
            short.append(value)
    return short if len(set(short)) == len(set(values)) else values


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
