"""Who may import whom, and where the libraries with a place of their own are named."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import crgan_cli

ROOT = Path(crgan_cli.__file__).parent

# A module imports what lies in a row above its own, and beside it in its own folder.
LAYERS = (
    ("bounds", "errors", "atomic", "crgan_cli"),
    ("plots", "kept", "signals", "launch", "threads"),
    ("voices", "mps"),
    ("processes",),
    ("chance",),
    ("types",),
    ("scoring",),
    ("losses", "augment", "networks", "data", "metrics", "optimization", "ema"),
    ("regularizers",),
    ("adversary", "selection"),
    ("evaluator",),
    ("tasks",),
    ("engine", "checkpoint", "rundir", "progress", "console", "sampler"),
    ("record", "pictures", "provenance", "outcome"),
    ("artefacts",),
    ("hooks",),
    ("trainer",),
    ("choices", "signatures"),
    ("schema",),
    ("explain",),
    ("config", "manual"),
    ("settings",),
    ("flops",),
    ("costs",),
    ("report", "sweep"),
    ("reproduction",),
    ("assembly",),
    ("evaluation", "examination"),
    ("training",),
    ("jobs",),
    ("commands",),
    ("cli",),
    ("__main__",),
)

BACK = {("jobs", "cli")}
"""Against the order: a sweep tells of a failed job at once, in the words of the front."""

PLACES = {
    "hydra": {"config", "explain", "jobs", "commands.train"},
    "omegaconf": {
        "config",
        "assembly",
        "evaluation",
        "examination",
        "training",
        "commands.train",
        "commands.eval",
    },
    "torch.utils.tensorboard": {"record"},
    "rich": {"progress", "data.cache", "sweep", "commands.report"},
    "matplotlib": {"plots", "artefacts.leakage"},
    "torch_fidelity": {
        "metrics.extractors",
        "metrics.inception",
        "metrics.inception_score",
        "metrics.pretrained",
    },
}
"""Library -> the modules that may import it."""

NAMED = {
    "autocast": {
        "engine.eager",
        "metrics.extractors",
        "networks.layers",
        "networks.lowered",
        "networks.spectral",
    },
    "compile": {"engine.eager"},
    "distributed": {"processes", "voices"},
}
"""An attribute of torch -> the modules that may name it: the engine, and guards of fp32."""


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


def layer(module: str) -> int:
    """The number of a module's row."""
    (found,) = (i for i, row in enumerate(LAYERS) if module.split(".")[0] in row)
    return found


def folder(module: str) -> str:
    return module.split(".")[0] if "." in module else ""


def test_every_module_has_its_row_and_every_row_its_modules() -> None:
    named = [name for row in LAYERS for name in row]
    assert sorted(named) == sorted({name.split(".")[0] for name in FILES})


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_what_lies_above_it(module: str) -> None:
    wrong = [
        other
        for other in own(TREES[module])
        if layer(other) >= layer(module)
        and not (folder(module) and folder(other) == folder(module))
        and (module, other) not in BACK
    ]
    assert wrong == []


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_imported_in_its_place_alone(library: str) -> None:
    users = {
        module
        for module, tree in TREES.items()
        if any(name == library or name.startswith(f"{library}.") for name in imports(tree))
    }
    assert users <= PLACES[library]
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
    assert users <= NAMED[attribute]
    assert users or attribute != "autocast"


def test_nothing_is_imported_by_a_star_or_by_its_distance() -> None:
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                assert [alias.name for alias in node.names] != ["*"]


def test_a_layer_that_is_broken_is_noticed() -> None:
    tree = ast.parse("def f():\n    from crgan_cli.trainer import Trainer\n")
    assert own(tree) == {"trainer"}
    assert layer("trainer") > layer("losses")
    hidden = ast.parse("if TYPE_CHECKING:\n    from crgan_cli.trainer import Trainer\n")
    assert own(hidden) == set()
