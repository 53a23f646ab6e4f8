"""What crgan opens only if the user has typed it, and what it stores of the environment."""

import ast
import re
from pathlib import Path

import pytest
from support.strangers import Config, changed

import crgan_cli
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import PUBLIC_VARIABLES, to_plain
from crgan_cli.config.schema import matches
from crgan_cli.config.signatures import parameters
from crgan_cli.config.stored import Typed, from_text, to_text
from crgan_cli.config.trust import find_marks
from crgan_cli.errors import UserError

PACKAGE = Path(crgan_cli.__file__).parent
SECRET = "hunter2"

PLUGIN = """
from crgan_cli.config.bounds import CodePath, DataPath


class Own:
    def __init__(self, nets: list[CodePath] | None, table: "DataPath", words: str) -> None: ...


class Plain:
    def __init__(self, nets: list[str] | None) -> None: ...
"""


def with_plugin(loss: dict[str, object]) -> str:
    def use(config: Config) -> None:
        config["loss"] = loss

    return changed(to_text(compose([])), use)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "crgan_test_paths"
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CRGAN_PLUGINS", name)
    return name


def test_the_paths_of_a_plugin_are_found_by_their_annotation(plugin: str, tmp_path: Path) -> None:
    values: dict[str, object] = {"table": str(tmp_path), "words": "/no/path"}
    own = {"_target_": f"{plugin}.Own", **values}
    typed = Typed(["loss.nets=[a.pt]"], ["steps"], "a test")  # paths may always be typed
    text = with_plugin({**own, "nets": ["a.pt"]})
    with pytest.raises(
        UserError, match=r"run\.yaml names loss\.nets=a\.pt.*command: loss\.nets=a\.pt"
    ):
        from_text(text, "run.yaml")
    assert from_text(text, "run.yaml", typed=typed).loss.nets == ["a.pt"]
    assert "loss" not in from_text(text, "run.yaml", builds=("dataset",))
    from_text(with_plugin({**own, "nets": None}), "run.yaml")
    gone = {**own, "nets": None, "table": str(tmp_path / "gone")}
    with pytest.raises(UserError, match=r"names loss\.table .*gone: there is no such file"):
        from_text(with_plugin(gone), "run.yaml")
    # a second class cannot hide the mark of the first
    both = {"_target_": {"a": f"{plugin}.Own", "b": f"{plugin}.Plain"}, **values, "nets": ["a.pt"]}
    with pytest.raises(UserError, match=r"names loss\.nets=a\.pt"):
        from_text(with_plugin(both), "run.yaml")


def test_a_strangers_text_does_not_control_the_terminal(plugin: str, tmp_path: Path) -> None:
    own = {"_target_": f"{plugin}.Own", "nets": ["\x1b]0;x\x07"], "table": "t", "words": ""}
    with pytest.raises(UserError, match=r"names loss\.nets") as error:
        from_text(with_plugin(own), "run.yaml")
    assert str(error.value).isprintable()


def test_an_experiments_file_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "theirs.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /extractor@_global_.extractor: torchscript\n"
        "extractor:\n  path: net.pt\n"
    )
    typed = ["experiment=theirs", "metrics=cifar10_10k_test"]
    with pytest.raises(UserError, match=r"a YAML file names extractor\.path=net\.pt"):
        compose(typed, str(tmp_path))
    again = compose([*typed, "extractor.path=net.pt"], str(tmp_path))
    assert again.extractor.path == "net.pt"


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:AWS_SECRET}",
        "${oc.env:AWS_SECRET,none}",
        "${oc.decode:${oc.env:AWS_SECRET}}",
        "${oc.create:${oc.env:AWS_SECRET}}",
        "${oc.env:SLURM_JWT}",
        "${oc.env:${oc.decode:AWS_SECRET}}",
        "${oc.select:${oc.env:AWS_SECRET}}",
    ],
)
def test_secrets_of_the_environment_are_not_read(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET", "SLURM_JWT"):
        monkeypatch.setenv(name, SECRET)
    with pytest.raises(UserError, match=r"is not read: .* CRGAN_\* and HOME, ") as error:
        compose([f'published.source="{value}"'])
    assert SECRET not in str(error.value)
    with pytest.raises(UserError, match="did not resolve it") as error:
        from_text(changed(to_text(compose([])), lambda c: c["published"].update(source=value)))
    assert SECRET not in str(error.value)


def test_public_variables_are_read_and_stored_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRGAN_MINE", "7")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("WORK", raising=False)
    config = compose(
        ['published.source="${oc.env:SCRATCH}/${oc.env:CRGAN_MINE}/${oc.env:WORK,none}"']
    )
    assert to_plain(from_text(to_text(config)))["published"]["source"] == "/scratch/7/none"
    page = (PACKAGE.parent / "docs" / "configuration.md").read_text()
    assert all(f"`{name}`" in page for name in PUBLIC_VARIABLES)
    with pytest.raises(UserError, match="the environment variable WORK is not set"):
        compose(['published.source="${oc.env:WORK}"'])


def test_a_value_that_would_be_resolved_when_it_is_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A variable that holds an interpolation."""
    monkeypatch.setenv("CRGAN_MINE", "${oc.env:AWS_SECRET}")
    with pytest.raises(UserError, match=r"published\.source is \$\{oc\.env:AWS_SECRET\}"):
        to_text(compose(['published.source="${oc.env:CRGAN_MINE}"']))


def test_every_path_of_crgans_own_classes_is_marked() -> None:
    """A class that a stranger's configuration can name, also one that no YAML file names."""
    name = r"(\w+_)?(path|root|file|folder|dir|weights)"
    unmarked = []
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("crgan_cli", *file.relative_to(PACKAGE).with_suffix("").parts))
        text = file.read_text()
        if not re.search(rf"\b{name}: .*\b(str|CodePath|DataPath)\b", text):
            continue
        for cls in (each for each in ast.parse(text).body if isinstance(each, ast.ClassDef)):
            for key, parameter in parameters(f"{module}.{cls.name}").items():
                takes_text = parameter.kind is not None and matches("text", parameter.kind)
                if takes_text and re.fullmatch(name, key) and not [*find_marks(parameter.kind)]:
                    unmarked.append(f"{cls.name}.{key}")
    # a folder that is listed, and a setting outside the groups
    assert unmarked == ["Choices.config_dir", "Run.data_root"]


@pytest.mark.parametrize("group", ["architecture", "dataset"])
def test_a_stored_configuration_without_a_group_is_refused(group: str) -> None:
    text = changed(to_text(compose([])), lambda config: config.pop(group))
    with pytest.raises(UserError, match=rf"In run\.yaml: there is no {group}\."):
        from_text(text, "run.yaml")
