"""Run folders that a stranger could have sent."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

Config = dict[str, dict]


def tampered(run: Path, to: Path, change: Callable[[Config], object]) -> Path:
    """A copy of a run whose configuration, in its file and its checkpoints, is changed."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("evaluations*", "artefacts"))
    text = changed((to / "config.yaml").read_text(), change)
    (to / "config.yaml").write_text(text)
    for path in (to / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        content["config"] = changed(content["config"], change)
        torch.save(content, path)
    return to


def changed(text: str, change: Callable[[Config], object]) -> str:
    """A configuration's text after a change of its values."""
    config = yaml.safe_load(text)
    change(config)
    return yaml.safe_dump(config)


class Intruder(torch.nn.Module):
    """Leaves a file where it is told to, as soon as it sees images."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.trace = str(trace)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = torch.from_file(self.trace, shared=True, size=4)
        return x.mean((2, 3)) + zeros.sum()


def write_intruder(folder: Path) -> tuple[Path, Path]:
    """A TorchScript file, and the file that it leaves if it runs."""
    net, trace = folder / "net.pt", folder / "trace"
    torch.jit.save(torch.jit.script(Intruder(trace)), net)
    return net, trace
