"""What a configuration may hold, read from source that is never imported."""

import subprocess
import sys
from typing import Annotated, Literal

import pytest

from crgan_cli.config.bounds import Bound, NonNegative, Positive, PositiveInt
from crgan_cli.config.schema import describe_type, find_problems, matches
from crgan_cli.config.signatures import parameters
from crgan_cli.errors import UserError

CR = "crgan_cli.gan.ConsistencyRegularization"


def whole(**groups: object) -> dict[str, object]:
    """A right configuration's settings, with `groups` in place."""
    return {
        "seed": 1,
        "steps": 10,
        "batch_size": 4,
        "device": "cpu",
        "out": None,
        "resume": "auto",
        "data_root": "data",
        "ema": {"decay": None, "start": 0},
        "log": {"every": 1},
        "samples": {"every": 1, "num": 4},
        "checkpoint": {"every": 1, "keep": 3},
        "published": {"fid": None, "source": None},
        "sweep": {"on_error": "continue", "per_device": 1},
    } | groups


def cr(**settings: object) -> dict[str, object]:
    return {"_target_": {"cr": CR}, "lambda_cr": 10.0} | settings


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        (float("nan"), float, False),
        ("1", float, False),
        (None, int | None, True),
        ("x", int | None, False),
        (0, Positive, False),
        (0, NonNegative, True),
        (-1, NonNegative, False),
        (0, PositiveInt, False),
        (None, PositiveInt | None, True),
        (0, PositiveInt | None, False),
        ("zero", Literal["zero", "reflect"], True),
        ("zeros", Literal["zero", "reflect"], False),
        (True, Literal[1], False),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ([0.5, 1], tuple[float, float], True),
        ([0.5], tuple[float, float], False),
    ],
)
def test_a_value_fits_its_annotation_or_does_not(value: object, kind: object, right: bool) -> None:
    assert matches(value, kind) is right


def test_an_annotation_is_put_into_words() -> None:
    assert describe_type(Positive) == "a number above 0"
    assert describe_type(PositiveInt | None) == "a whole number of at least 1 or null"
    assert describe_type(Literal["zero", "reflect"]) == "one of zero, reflect"
    assert describe_type(list[int]) == "a list [...], each a whole number"
    assert describe_type(Annotated[float, Bound("a share", 0, 1)]) == "a share"


def test_a_right_configuration_has_no_problems() -> None:
    assert find_problems(whole(regularizer=cr())) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            whole(regularizer=cr(lambda_crr=3)),
            "Unknown key 'lambda_crr' in regularizer. Did you mean 'regularizer.lambda_cr'? "
            "Keys: classes, every, lambda_cr.",
        ),
        (
            whole(regularizer=cr(lambda_cr=-1)),
            "regularizer.lambda_cr must be a number of at least 0, not -1.",
        ),
        (
            whole(regularizer=cr(every=True)),
            "regularizer.every must be a whole number of at least 1, not true.",
        ),
        (
            whole(steps=1e5),
            "steps must be a whole number of at least 1, not 100000.0. Type steps=100000",
        ),
        (whole(seed=None), "seed must be a whole number from 0 to 2^63 - 1, not null."),
        (
            whole(steps=["a", 1.0, {"b": None}]),
            "steps must be a whole number of at least 1, not [a,1.0,{b:null}].",
        ),
        (whole(resume="alwys"), "resume must be one of auto, never, force, not 'alwys'."),
        (whole(data_root="???"), "data_root has no value yet. Type data_root=PATH"),
        (whole(ema={"start": 0}), "ema.decay has no value yet. Type ema.decay=NUMBER"),
        (
            whole(ema={"decay": 0.5, "start": 0, "stat": 1}),
            "Unknown key 'stat' in ema. Did you mean 'ema.start'? Keys: decay, start.",
        ),
        (whole(log=3), "log must be a group of settings, not 3. Type for example log.every=..."),
        (
            whole(regularizer={"_target_": {"cr": CR}}),
            "regularizer.lambda_cr has no value yet. Type regularizer.lambda_cr=NUMBER",
        ),
    ],
)
def test_a_mistake_is_named_with_its_remedy(config: dict[str, object], said: str) -> None:
    assert find_problems(config) == [said]


def test_all_mistakes_are_named_at_once() -> None:
    assert len(find_problems(whole(seed=-1, steps="x", regularizer=cr(lambda_cr="a", foo=1)))) == 4


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.Popen",
        "crgan_cli.commands.main.os.system",
        "crgan_cli.commands.main.main",
        "crgan_cli.gan.Hinges",
        "crgan_clients.losses.Hinge",
        "Hinge",
        "",
    ],
)
def test_a_target_that_is_no_class_of_ours_is_a_problem(path: str) -> None:
    with pytest.raises(UserError, match=r"no class .* that crgan may build"):
        parameters(path)
    assert "CRGAN_PLUGINS" in find_problems(whole(loss={"_target_": path}))[0]


@pytest.mark.parametrize("target", [3, None, ["a.b"], {"x": 1}])
def test_a_target_of_another_shape_is_a_problem(target: object) -> None:
    assert "_target_ must be a dotted path" in find_problems(whole(loss={"_target_": target}))[0]


def test_torch_optim_is_read_through_its_imports_without_importing_it() -> None:
    code = (
        "import sys; from crgan_cli.config.signatures import parameters;"
        "found = parameters('torch.optim.Adam');"
        "print(found['lr'].kind, found['betas'].kind, found['params'].kind, found['eps'].optional);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "<class 'float'> tuple[float, float] None True"


PLUGIN = '''
from __future__ import annotations
from torch import Tensor
from typing import Literal
from crgan_cli.config.bounds import Positive
Padding = Literal["zero", "reflect"]
raise SystemExit("imported")

class Base:
    def __init__(self, D: Tensor, weight: Positive, padding: Padding = "zero",
                 *, sizes: "list[int] | None" = None) -> None: ...

class Mine(Base):
    """Has its parent's parameters."""
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "crgan_test_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    parameters.cache_clear()
    return "crgan_test_plugin.Mine"


def test_a_plugin_is_read_only_where_the_user_named_it(plugin: str, monkeypatch) -> None:
    with pytest.raises(UserError, match="CRGAN_PLUGINS"):
        parameters(plugin)
    monkeypatch.setenv("CRGAN_PLUGINS", "other, crgan_test_plugin")
    found = parameters(plugin)
    assert found["D"].kind is None  # injected by code
    assert found["weight"].kind == Positive
    assert found["padding"].kind == Literal["zero", "reflect"]
    assert found["sizes"].kind == list[int] | None
    assert [p.optional for p in found.values()] == [False, False, True, True]


def test_a_parameter_that_code_injects_is_no_key(plugin: str, monkeypatch) -> None:
    monkeypatch.setenv("CRGAN_PLUGINS", "crgan_test_plugin")
    (problem,) = find_problems(whole(loss={"_target_": plugin, "weight": 1, "D": 3}))
    assert problem == "Unknown key 'D' in loss. Keys: padding, sizes, weight."


DATACLASSES = """
from dataclasses import dataclass, field
from typing import ClassVar
from crgan_cli.config.bounds import Positive, PositiveInt
raise SystemExit("imported")

@dataclass(kw_only=True)
class Base:
    title: ClassVar[str] = "a class attribute"
    size: PositiveInt
    scale: Positive = 1.0
    names: tuple[str, ...] = field(default=(), init=False)

@dataclass(kw_only=True)
class Child(Base):
    root: str
    scale: Positive | None = None

class Grandchild(Child):
    title = "no field of its own"

class WithConstructor(Child):
    def __init__(self, only: int) -> None: ...
"""


BASE_KEYS = {"size": (PositiveInt, False), "scale": (Positive, True)}
CHILD_KEYS = BASE_KEYS | {"scale": (Positive | None, True), "root": (str, False)}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Base", BASE_KEYS),
        ("Child", CHILD_KEYS),
        ("Grandchild", CHILD_KEYS),
        ("WithConstructor", {"only": (int, False)}),
    ],
)
def test_a_dataclass_has_the_fields_of_its_bases_and_its_own(
    name: str, keys: dict[str, tuple[object, bool]], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crgan_test_dataclasses.py").write_text(DATACLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CRGAN_PLUGINS", "crgan_test_dataclasses")
    parameters.cache_clear()
    found = parameters(f"crgan_test_dataclasses.{name}")
    assert {key: (p.kind, p.optional) for key, p in found.items()} == keys
