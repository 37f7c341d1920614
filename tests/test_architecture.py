"""Imports go one way, and heavy packages stay in their place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fmexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
LEVELS = [
    {"fmexp", "fmexp.errors"},
    {"fmexp.record"},
    {"fmexp.config"},
    {"fmexp.sweep"},
    {"fmexp.application"},
    {"fmexp.fm", "fmexp.data"},
    {"fmexp.backends"},
    {"fmexp.training", "fmexp.model"},
    {"fmexp.experiment"},
    {"fmexp.analysis", "fmexp.estimators"},
    {"fmexp.cli"},
    {"fmexp.interactive"},
    {"fmexp.__main__"},
]
COMPILED = {"fmexp.backends.compiled"} | {
    f"fmexp.backends.{name}_kernels" for name in ("sgd", "gibbs", "probit")
}
HEAVY = {
    "torch": {"fmexp.backends.adam", "fmexp.backends.adam_step", "fmexp.data.synthetic"},
    "numba": COMPILED,
    "llvmlite": COMPILED,
    "mlflow": {"fmexp.record", "fmexp.analysis.export", "fmexp.analysis.served"},
    "sklearn": {"fmexp.estimators"},
    "optuna": {
        "fmexp.sweep",
        "fmexp.sweep.failover",
        "fmexp.application.task",
        "fmexp.interactive.calls",
        "fmexp.analysis.report",
    },
    "plotly": {"fmexp.analysis.report"},
    "matplotlib": {"fmexp.experiment.artifacts", "fmexp.interactive.results"},
}
"""The only modules (or packages) that may import each."""


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _nodes(path: Path) -> list[ast.AST]:
    """Every node of the file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules imported anywhere in the file, `from a import b` as a and a.b."""
    found: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _level(module: str) -> int:
    for level, names in enumerate(LEVELS):
        if any(module == n or (n != "fmexp" and module.startswith(f"{n}.")) for n in names):
            return level
    raise AssertionError(f"{module} has no level in {__file__}: say where it belongs")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_imports_only_from_its_level_and_below(path):
    known = {_name(other) for other in MODULES}
    for imported in _imports(path) & known:
        assert _level(imported) <= _level(_name(path)), f"{_name(path)} imports {imported}"


def test_nothing_is_imported_from_a_package_that_only_gathers():
    for path in MODULES:
        names = {node.name for node in _nodes(path) if isinstance(node, ast.alias)}
        for gathering in ("fmexp.data", "fmexp.backends", "fmexp.record", "fmexp.sweep"):
            assert gathering not in names, f"{path} imports {gathering} itself"


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_stay_in_their_place(package):
    users = {_name(p) for p in MODULES if package in {i.partition(".")[0] for i in _imports(p)}}
    places = HEAVY[package]
    assert not [u for u in users if u not in places and u.rpartition(".")[0] not in places]


def test_no_module_imports_itself_by_way_of_others():
    names = {_name(path) for path in MODULES}
    graph = {_name(path): _imports(path) & names for path in MODULES}
    while leaves := [name for name, imported in graph.items() if not imported & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"in a cycle, or above one: {', '.join(sorted(graph))}"


def test_files_and_functions_are_short_or_the_architecture_says_why():
    allowed = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    for folder in ("fmexp", "tests", "benchmarks", "docs", "hydra_plugins"):
        for path in (PACKAGE.parent / folder).rglob("*.py"):
            text = path.read_text()
            named = path.relative_to(PACKAGE).as_posix() if folder == "fmexp" else path.name
            assert text.count("\n") <= 400 or f"`{named}`" in allowed, f"{path} is long"
            for node in _nodes(path):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} is long"


def test_every_package_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = chain(project["dependencies"], *(extras[e] for e in extras.keys() - {"dev", "bench"}))
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in wanted}
    names = {module: [d.lower() for d in each] for module, each in packages_distributions().items()}
    for path in [*MODULES, *(PACKAGE.parent / "hydra_plugins").rglob("*.py")]:
        packages = {name.partition(".")[0] for name in _imports(path)}
        for package in packages - {"fmexp", *sys.stdlib_module_names}:
            assert declared & set(names.get(package, [package])), f"{path} imports {package}"


def test_errors_of_pyarrow_are_named_in_one_module():
    named = {
        _name(path)
        for path in MODULES
        for node in _nodes(path)
        if getattr(node, "attr", "").startswith("Arrow")
    }
    assert named == {"fmexp.data.arrow"}


MODEL = (
    "fmexp.application",
    "fmexp.fm",
    "fmexp.data",
    "fmexp.backends",
    "fmexp.training",
    "fmexp.experiment",
)


@pytest.mark.parametrize("half", ["sweep", "record"])
def test_the_sweep_and_the_record_know_no_model(half):
    for path in (PACKAGE / half).rglob("*.py"):
        known = {i for i in _imports(path) if i.startswith(MODEL)}
        assert not known, f"{_name(path)} imports {known}"
        config = {i for i in _imports(path) if i.startswith("fmexp.config.")}
        allowed = {"fmexp.config.checks", "fmexp.config.schema"} if half == "sweep" else set()
        assert {i for i in config if i.count(".") == 2} <= allowed, _name(path)


def test_the_sweep_loads_nothing_heavy_for_another_application():
    folders = (PACKAGE / "sweep", PACKAGE / "application")
    modules = [_name(p) for folder in folders for p in folder.rglob("*.py")]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numba", "torch", "pyarrow", "pandas", "mlflow", "sklearn", "matplotlib"}
    assert not heavy & set(done.stdout.split())


def test_no_function_takes_more_than_seven_parameters_in_the_sweep():
    for folder in ("sweep", "experiment"):
        for path in (PACKAGE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    given = [a for a in node.args.args + node.args.kwonlyargs
                             if a.arg not in ("self", "cls")]  # fmt: skip
                    assert len(given) <= 7, f"{path}: {node.name} takes {len(given)}"


INSIDES = {
    "fmexp.record.bulk_insert": {"mlflow.store", "mlflow.utils", "_tracking_client"},
    "fmexp.backends.adam_step": {"_fused_adam_"},
    "fmexp.data.delimited": {"_is_text_encoding"},
    "fmexp.sweep.cmaes_state": {
        "_n_max_resampling",
        "_bounds",
        "_funhist_values",
        "_reconstruct",
        "_frombuffer",
    },
}
"""What reaches into another library, guarded, with a public way beside it; tests hold both."""

PRIVATE_PACKAGES = ("mlflow.store", "mlflow.utils", "mlflow.tracking._", "hydra._internal")
OURS = {"_target_", "_exit", "_digest", "_stdev"}
"""Hydra's key of a file, the system's call, and ends of names of ours."""


@cache
def _own_names() -> set[str]:
    nodes = [node for path in MODULES for node in _nodes(path)]
    return {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)} | {
        getattr(n, "attr", None) or getattr(n, "id", None)
        for n in nodes
        if isinstance(getattr(n, "ctx", None), ast.Store)
    }


def _insides(path: Path, own: set[str]) -> set[str]:
    """Names of another library's insides: private modules, attributes, and attributes as texts."""
    found = {p for i in _imports(path) for p in PRIVATE_PACKAGES if i.startswith(p)}
    for node in _nodes(path):
        name = getattr(node, "attr", None) or getattr(node, "value", None)
        is_name = isinstance(node, ast.Attribute | ast.Constant) and isinstance(name, str)
        if is_name and name.isidentifier() and name[0] == "_" != name[1:2]:
            found |= {name} - own - OURS
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_insides_of_other_libraries_are_reached_for_only_where_it_is_said(path):
    assert _insides(path, _own_names()) <= INSIDES.get(_name(path), set())


def test_what_is_said_to_reach_into_other_libraries_does():
    for path in MODULES:
        wanted = INSIDES.get(_name(path), set())
        assert wanted <= _insides(path, _own_names()), _name(path)
