"""The constructor parameters of a class, read from its source file without importing it.

An annotation that spells a value YAML can give (int, float, bool, str, Literal, list, tuple, None,
the names of `crgan_cli.config.bounds`) makes a parameter a key. Any other marks what the code
injects.
"""

import ast
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, Union, get_origin

from crgan_cli.config import bounds
from crgan_cli.errors import UserError

ROOT = "crgan_cli.config.settings.Run"  # whose parameters are the settings outside the groups

ALLOWED = (
    "A _target_ is the full path of a class defined in crgan_cli, in torch.optim, or in a package "
    "that you name in the environment variable CRGAN_PLUGINS (comma separated)."
)

_NAMES: dict[str, object] = {
    **{name: kind for name, kind in vars(bounds).items() if get_origin(kind) is Annotated},
    **{kind.__name__: kind for kind in (int, float, bool, str, list, tuple)},
    "Literal": Literal,
}


@dataclass(frozen=True)
class Parameter:
    """One key: its type, and whether it may be left out. `kind` is None where code injects it."""

    name: str
    kind: object | None
    optional: bool


def plugins() -> tuple[str, ...]:
    """The packages that the user trusts besides crgan_cli, from CRGAN_PLUGINS (comma separated)."""
    return tuple(p.strip() for p in os.environ.get("CRGAN_PLUGINS", "").split(",") if p.strip())


def trusted(module: str) -> bool:
    """Whether a class defined in `module` may be built from a configuration."""
    return any(
        module == package or module.startswith(package + ".")
        for package in ("crgan_cli", "torch.optim", *plugins())
    )


@cache
def parameters(dotted: str) -> dict[str, Parameter]:
    """The constructor parameters of the class at `dotted`; UserError where there is none."""
    module, _, name = dotted.rpartition(".")
    found = _find(module, name) if module and trusted(module) else None
    if found is None or not isinstance(found[1], ast.ClassDef):
        raise UserError(f"There is no class '{dotted}' that crgan may build. {ALLOWED}")
    return _constructor(found[0], found[1])


@cache
def _source(module: str) -> ast.Module | None:
    """The parsed file of a dotted module. At most its top-level package's spec is looked up."""
    package, *rest = module.split(".")
    if package == "crgan_cli":
        roots = [Path(__file__).parents[1]]
    else:
        spec = importlib.util.find_spec(package)
        if spec is not None and not rest and spec.origin:
            return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        roots = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    for root in roots:
        path = root.joinpath(*rest)
        for file in (
            path.with_suffix(".py") if rest else path / "__init__.py",
            path / "__init__.py",
        ):
            if file.is_file():
                return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _find(module: str, name: str) -> tuple[str, ast.ClassDef | ast.expr] | None:
    """Where `name` is defined, as a class or a constant, following `from ... import name`."""
    tree = _source(module)
    for node in tree.body if tree else []:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return module, node.value
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = _absolute(module, node)
                if (alias.asname or alias.name) == name and trusted(origin):
                    return _find(origin, alias.name)
    return None


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parent = module.split(".")
    is_package = _is_package(module)
    base = parent[: len(parent) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_package(module: str) -> bool:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    roots = (spec.submodule_search_locations or []) if spec else []
    return any(Path(root).joinpath(*rest, "__init__.py").is_file() for root in roots)


def _constructor(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """The parameters of `__init__`; without one, the base class's and those of a dataclass."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _parameters(module, item.args)
    inherited: dict[str, Parameter] = {}
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        found = _find(module, name.id) if isinstance(name, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            inherited = _constructor(found[0], found[1])
            break
    return inherited | (_fields(module, node) if _is_dataclass(node) else {})


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(isinstance(name, ast.Name) and name.id == "dataclass" for name in names)


def _fields(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """The annotated names that a dataclass takes: no ClassVar, no field(init=False)."""
    fields: dict[str, Parameter] = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        text = ast.unparse(item)
        if "ClassVar[" not in text and "init=False" not in text:
            arg = ast.arg(item.target.id, item.annotation)
            fields[arg.arg] = _parameter(module, arg, optional=item.value is not None)
    return fields


def _parameters(module: str, arguments: ast.arguments) -> dict[str, Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    found = [
        _parameter(module, arg, optional=index >= first_default)
        for index, arg in enumerate(positional)
        if index > 0  # self
    ]
    for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(_parameter(module, arg, optional=default is not None))
    return {parameter.name: parameter for parameter in found}


def _parameter(module: str, arg: ast.arg, *, optional: bool) -> Parameter:
    kind = _annotation(module, arg.annotation) if arg.annotation else None
    return Parameter(arg.arg, None if kind is NoneType else kind, optional)


def _annotation(module: str, node: ast.expr) -> object | None:
    """The type that an annotation spells; None where YAML cannot give such a value."""
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):
            return _annotation(module, ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return _NAMES.get(name) or _elsewhere(module, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either(_annotation(module, left), _annotation(module, right))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal[_literal(choices)]
        case ast.Subscript(value=ast.Name(id="list" | "tuple" as name), slice=inside):
            members = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return _sequence(name, [_member(module, member) for member in members])
    return None


def _literal(choices: ast.expr) -> tuple[object, ...]:
    value = ast.literal_eval(choices)
    return value if isinstance(value, tuple) else (value,)


def _member(module: str, node: ast.expr) -> object | None:
    is_dots = isinstance(node, ast.Constant) and node.value is Ellipsis
    return Ellipsis if is_dots else _annotation(module, node)


def _sequence(name: str, members: list[object | None]) -> object | None:
    if None in members:
        return None
    return list[members[0]] if name == "list" else tuple[tuple(members)]  # type: ignore[valid-type]


def _either(left: object | None, right: object | None) -> object | None:
    """A union, less what YAML cannot give: torch.optim's `float | Tensor` is a float here."""
    if left is None or right is None:
        return right if left is None else left
    return Union[left, right]  # noqa: UP007 - the members are values here, not types written down


def _elsewhere(module: str, name: str) -> object | None:
    """A name that the module defines or imports: an alias of a type, or a nest of settings."""
    found = _find(module, name)
    if found is None:
        return None
    where, node = found
    if not isinstance(node, ast.ClassDef):
        return _annotation(where, node)
    return _constructor(where, node) if where == ROOT.rpartition(".")[0] else None
