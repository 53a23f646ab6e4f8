"""Who may import whom, and where the libraries with a place of their own are named."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import crgan_cli

ROOT = Path(crgan_cli.__file__).parent

ORDER = (
    "errors",
    "system",  # the machine: processes, random numbers, files, signals, the console
    "config",  # YAML -> checked settings -> objects
    "networks",
    "gan",  # the papers: losses, regularizers, T, the tasks
    "data",
    "runs",  # one run's folder
    "report",  # files of runs -> tables and figures
    "evaluation",
    "training",
    "experiments",  # many runs
    "commands",
)
"""The folders of the package. Each imports from those before it, and from itself."""

PLACES = {
    "hydra": ("config", "experiments"),
    "omegaconf": ("config", "gan.build", "data.dataset", "evaluation", "training"),
    "torch.utils.tensorboard": ("runs.loggers.tensorboard",),
    "rich": ("system.progress", "data.decoding", "experiments.sweep_table", "report.write"),
    "matplotlib": ("report.plots", "evaluation.artefacts"),
    "jinja2": ("report.html",),
    "scipy": (
        "report.statistics",
        "evaluation.metrics.statistics",
        "evaluation.artefacts.estimates",
        "data.imagenet_files",
    ),
    "torch_fidelity": ("evaluation.metrics",),
}
"""Library -> the folders and modules that may import it."""

NAMED = {
    "autocast": (
        "training.engine",
        "evaluation.metrics.extractors",
        "networks.layers",
        "networks.fast",
    ),
    "compile": ("training.engine",),
    "distributed": ("system.distributed",),
}
"""An attribute of torch -> the modules that may name it: the engine, and guards of fp32."""


def outside(users: set[str], places: tuple[str, ...]) -> list[str]:
    """The modules that are in none of the places."""
    return [
        user for user in users if not any(f"{user}.".startswith(f"{place}.") for place in places)
    ]


def name_of(file: Path) -> str:
    """The dotted name of a module below crgan_cli; of a package, its folder's."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "crgan_cli"


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from running(child)


def imports(tree: ast.Module) -> set[str]:
    """The dotted names of modules that a module imports, wherever in its text."""
    found: set[str] = set()
    for node in running(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            assert node.module is not None
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in below if name.removeprefix("crgan_cli.") in FILES}
            found |= modules or {node.module}
    return found


def own(tree: ast.Module) -> set[str]:
    """Those of crgan_cli itself, without the prefix."""
    return {
        name.removeprefix("crgan_cli.") for name in imports(tree) if name.startswith("crgan_cli")
    }


def rank(module: str) -> int:
    """The number of a module's folder in the order; the package itself comes before all."""
    top = module.split(".")[0]
    return -1 if top == "crgan_cli" else ORDER.index(top)


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {name.split(".")[0] for name in FILES} == {*ORDER, "crgan_cli", "__main__"}
    assert len(list(ROOT.glob("[!_]*"))) <= 12  # and __init__.py, __main__.py


def test_the_package_itself_imports_only_what_makes_it_lazy() -> None:
    assert own(TREES["crgan_cli"]) == {"system.lazy"}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"__main__", "crgan_cli"}))
def test_no_module_imports_from_a_folder_above_its_own(module: str) -> None:
    assert [other for other in own(TREES[module]) if rank(other) > rank(module)] == []


def at_the_top(tree: ast.Module) -> set[str]:
    """What a module imports of crgan_cli whenever it is imported itself."""
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return own(ast.Module(body=[*statements], type_ignores=[]))


def test_no_two_modules_need_each_other_to_be_imported() -> None:
    above: dict[str, set[str]] = {name: at_the_top(tree) for name, tree in TREES.items()}
    while free := {name for name, needs in above.items() if not needs & above.keys()}:
        above = {name: needs for name, needs in above.items() if name not in free}
    assert above == {}


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_imported_in_its_place_alone(library: str) -> None:
    users = {
        module
        for module, tree in TREES.items()
        if any(name == library or name.startswith(f"{library}.") for name in imports(tree))
    }
    assert outside(users, PLACES[library]) == []
    assert users


@pytest.mark.parametrize("attribute", NAMED)
def test_what_decides_how_a_turn_runs_is_named_in_the_engine(attribute: str) -> None:
    users = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.alias)
        and f"torch.{attribute}"
        == (ast.unparse(node) if isinstance(node, ast.Attribute) else node.name)
    }
    assert outside(users, NAMED[attribute]) == []
    assert users or attribute != "autocast"


def test_no_module_that_computes_reads_a_clock() -> None:
    """Equal commands give equal bits: nothing is chosen by a stopwatch."""
    computing = ("networks", "gan", "training.engine", "training.ema", "training.optimizers")
    users = {module for module, tree in TREES.items() if imports(tree) & {"time", "timeit"}}
    assert users == set(outside(users, computing))
    assert users


def test_nothing_is_imported_by_a_star_or_by_its_distance() -> None:
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                assert [alias.name for alias in node.names] != ["*"]


def test_an_import_from_above_is_noticed() -> None:
    tree = ast.parse("def f():\n    from crgan_cli.training.trainer import Trainer\n")
    assert own(tree) == {"training.trainer"}
    assert rank("training.trainer") > rank("gan.losses")
    hidden = ast.parse("if TYPE_CHECKING:\n    from crgan_cli.training.trainer import Trainer\n")
    assert own(hidden) == set()
