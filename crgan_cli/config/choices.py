"""The files behind a configuration: which groups there are, and what can be chosen in each."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

import crgan_cli
from crgan_cli.errors import UserError


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a clone."""
    package = Path(crgan_cli.__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    raise UserError("crgan's own conf folder is missing: install crgan again.")


class Choices:
    """Group -> names of its choices, in crgan's folder and the user's (`--config-dir`)."""

    def __init__(self, config_dir: str | None = None) -> None:
        self.folders = [conf_dir()]
        if config_dir is not None:
            if not Path(config_dir).is_dir():
                raise UserError(f"--config-dir {config_dir}: there is no such folder.")
            self.folders.append(Path(config_dir).absolute())
        own = {path.name for path in self.folders[0].iterdir() if path.is_dir()}
        self.groups = {group: self._names(group) for group in sorted(own - {"hydra"})}

    def _names(self, group: str) -> list[str]:
        files = [file for folder in self.folders for file in folder.glob(f"{group}/**/*.yaml")]
        return sorted(
            {file.relative_to(_above(file, group)).with_suffix("").as_posix() for file in files}
        )

    def with_key(self, group: str, key: str) -> list[str]:
        """The choices of `group` whose own file has `key`."""
        line = re.compile(rf"^{re.escape(key)}:", re.MULTILINE)
        return [
            name
            for name in self.groups.get(group, [])
            if any(line.search(text) for text in self._texts(f"{group}/{name}.yaml"))
        ]

    def settings(self, group: str, name: str) -> dict[str, object]:
        """What a choice's file sets, with those it is made of: its keys, and each `_target_`."""
        found: dict[str, object] = {}
        for text in self._texts(f"{group}/{name}.yaml")[:1]:
            content = yaml.safe_load(text) or {}
            for other in content.pop("defaults", []):
                if isinstance(other, str) and other != "_self_":
                    found |= self.settings(group, other)
            target = content.pop("_target_", {})
            if isinstance(target, str):
                content["_target_"] = target
            else:
                content |= {f"_target_.{part}": path for part, path in target.items()}
            found |= content
        return found

    def defaults(self) -> dict[str, str]:
        """Group -> the choice that is made where nothing is typed."""
        text = (self.folders[0] / "train.yaml").read_text(encoding="utf-8")
        chosen = dict(re.findall(r"^  - (\w+): (\w+)", text, re.MULTILINE))
        for group in ("dataset", "metrics"):  # which bring metrics and an extractor of their own
            (text, *_) = self._texts(f"{group}/{chosen[group]}.yaml")
            chosen |= dict(re.findall(r"^  - override /(\w+)@\S+: (\w+)", text, re.MULTILINE))
        return chosen

    def _texts(self, file: str) -> list[str]:
        paths = [folder / file for folder in self.folders]
        return [path.read_text(encoding="utf-8") for path in paths if path.is_file()]


def _above(file: Path, group: str) -> Path:
    return next(parent for parent in file.parents if parent.name == group)


def infer_choices(config: Mapping[str, object]) -> dict[str, str]:
    """Group -> the one choice whose file builds what the run built, for a run that says none."""
    found = {}
    for group, files in targets_by_choice().items():
        own = {
            key.removeprefix(f"{group}."): value
            for key, value in config.items()
            if key.startswith(f"{group}._target_") and value is not None
        }
        names = [name for name, targets in files.items() if targets == own]
        if len(names) == 1:
            found[group] = names[0]
    return found


@cache
def targets_by_choice() -> dict[str, dict[str, dict[str, object]]]:
    """Group -> choice -> the classes that its file names."""
    choices = Choices()
    return {
        group: {name: target_keys(choices.settings(group, name)) for name in names}
        for group, names in choices.groups.items()
        if group != "experiment"
    }


def target_keys(settings: Mapping[str, object]) -> dict[str, object]:
    """The classes among a file's settings."""
    return {key: value for key, value in settings.items() if key.startswith("_target_")}
