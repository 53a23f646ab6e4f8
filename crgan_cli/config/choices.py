"""The YAML files: the groups of settings, and the choices in each."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

import crgan_cli
from crgan_cli.errors import UserError, missing_file


def conf_dir() -> Path:
    """Return crgan's YAML folder: inside the package in a wheel, next to it in a clone."""
    package = Path(crgan_cli.__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    remedy = "Install crgan again."
    raise UserError(
        missing_file("crgan's settings folder", package / "conf", remedy, kind="folder")
    )


class Choices:
    """The choices of each group, in crgan's folder and the user's (`--config-dir`).

    `groups`: group -> names of its choices.
    """

    def __init__(self, config_dir: str | Path | None = None) -> None:
        self.folders = [conf_dir()]
        if config_dir is not None:
            if not Path(config_dir).is_dir():
                remedy = "Give a folder with files <group>/<choice>.yaml."
                raise UserError(missing_file("--config-dir", config_dir, remedy, kind="folder"))
            self.folders.append(Path(config_dir).absolute())
        own = {path.name for path in self.folders[0].iterdir() if path.is_dir()}
        self.groups = {group: self._names(group) for group in sorted(own - {"hydra"})}

    def _names(self, group: str) -> list[str]:
        names = {
            file.relative_to(folder / group).with_suffix("").as_posix()
            for folder in self.folders
            for file in folder.glob(f"{group}/**/*.yaml")
        }
        return sorted(names)

    def with_key(self, group: str, key: str) -> list[str]:
        """List the choices of `group` whose own file has `key`."""
        if key == "defaults":  # Hydra's list of parents
            return []
        line = re.compile(rf"^{re.escape(key)}:", re.MULTILINE)
        return [
            name
            for name in self.groups.get(group, [])
            if any(line.search(text) for text in self._texts(f"{group}/{name}.yaml"))
        ]

    def settings(self, group: str, name: str) -> dict[str, object]:
        """Return what a choice sets, with its parents: its keys and each `_target_`."""
        settings: dict[str, object] = {}
        for text in self._texts(f"{group}/{name}.yaml")[:1]:
            content = yaml.safe_load(text) or {}
            for other in content.pop("defaults", []):
                if isinstance(other, str) and other != "_self_":
                    settings |= self.settings(group, other)
            target = content.pop("_target_", {})
            if isinstance(target, str):
                content["_target_"] = target
            else:
                content |= {f"_target_.{part}": path for part, path in target.items()}
            settings |= content
        return settings

    def read_text(self, group: str, name: str) -> str:
        """Return the file of a choice; crgan's own before the user's, as Hydra does."""
        return self._texts(f"{group}/{name}.yaml")[0]

    def file_with(self, group: str, name: str, key: str) -> str | None:
        """Return the file of a choice, or of a parent of it, that sets the dotted key."""
        from crgan_cli.config.resolve import flatten  # brings omegaconf: only for an error

        file = f"{group}/{name}.yaml"
        for text in self._texts(file)[:1]:
            content = yaml.safe_load(text) or {}
            parents = [each for each in content.pop("defaults", []) if isinstance(each, str)]
            if key in flatten(content):
                return file
            found = (self.file_with(group, each, key) for each in parents if each != "_self_")
            return next(filter(None, found), None)
        return None

    def defaults(self) -> dict[str, str]:
        """Return group -> its default choice."""
        text = (self.folders[0] / "train.yaml").read_text(encoding="utf-8")
        chosen = dict(re.findall(r"^  - (\w+): (\w+)", text, re.MULTILINE))
        for group in ("dataset", "metrics"):  # their files override metrics and extractor
            (text, *_) = self._texts(f"{group}/{chosen[group]}.yaml")
            chosen |= dict(re.findall(r"^  - override /(\w+)@\S+: (\w+)", text, re.MULTILINE))
        return chosen

    def _texts(self, file: str) -> list[str]:
        paths = [folder / file for folder in self.folders]
        return [path.read_text(encoding="utf-8") for path in paths if path.is_file()]


def infer_choices(config: Mapping[str, object]) -> dict[str, str]:
    """Infer group -> choice from a run's flat configuration, for a run that recorded none.

    A group is left out unless exactly one of its choices has the run's `_target_`s, or each of
    several has one.
    """
    inferred = {}
    for group, targets_by_choice in _targets().items():
        prefix = f"{group}."
        own = {
            key.removeprefix(prefix): value
            for key, value in config.items()
            if key.startswith(f"{prefix}_target_") and value is not None
        }
        names = [name for name, targets in targets_by_choice.items() if targets == own]
        parts = [key.removeprefix("_target_.") for key in own]
        if len(names) == 1:
            inferred[group] = names[0]
        elif parts and all(
            targets_by_choice.get(part) == {key: own[key]}
            for part, key in zip(parts, own, strict=True)
        ):
            inferred[group] = f"[{','.join(parts)}]"
    return inferred


@cache
def _targets() -> dict[str, dict[str, dict[str, object]]]:
    """Group -> choice -> its `_target_` keys."""
    choices = Choices()
    return {
        group: {
            name: {
                key: value
                for key, value in choices.settings(group, name).items()
                if key.startswith("_target_")
            }
            for name in names
        }
        for group, names in choices.groups.items()
        if group != "experiment"
    }
