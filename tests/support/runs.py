"""Tiny real runs: a few seconds' worth of everything that `crgan train` does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from crgan_cli.config.compose import compose
from crgan_cli.training.start import train_run

TINY = (
    "dataset.fraction=0.005",
    "architecture.width=0.02",
    "batch_size=4",
    "steps=6",
    "log.every=2",
    "samples.every=3",
    "samples.num=4",
    "checkpoint.every=2",
    "extractor.resolution=32",
    "metrics.num_samples=8",
    "metrics.every=3",
    "device=cpu",
)

# Glorot weights: its images differ from the first step on, where SNDCGAN's are grey
SNGAN = ("architecture=resnet_sngan", "steps=4", "metrics.every=2", "samples.every=4")
PIX2PIX = (
    "experiment=demo_pix2pix",
    *(each for each in TINY if not each.startswith(("steps", "samples.every", "metrics.every"))),
    "steps=4",
    "samples.every=2",
    "metrics.every=2",
    "ema.decay=0.5",
    "metrics.measures=[kid]",  # the distance fid takes a second
    "optimizer.lr_g=0.05",  # else its images are grey, whatever the input
)
DEMO = ("metrics=demo", "extractor.resolution=32", "metrics.num_samples=8")
HEADLINE = "fd_effnetlite0_32_n8"  # of both

Crgan = Callable[..., tuple[int, str, str]]
"""The fixture that answers a command line: exit code, standard output, standard error."""


def train(out: Path, *overrides: str) -> float | None:
    """A run in this process, as the command line would start it."""
    typed = tiny(f"out={out}", *overrides)
    return train_run(compose(typed), typed, {}, None)


def tiny(*overrides: str) -> list[str]:
    """TINY, with other values for some keys or more keys."""
    return [
        f"{key}={value}"
        for key, value in dict(o.split("=", 1) for o in (*TINY, *overrides)).items()
    ]


def unmeasured(typed: Sequence[str]) -> list[str]:
    """The same overrides without metrics: other protocols have not all of the demo's keys."""
    return [*without_measuring(typed), "metrics=none"]


def without_measuring(typed: Sequence[str]) -> list[str]:
    """The overrides that do not set anything of the metrics."""
    return [word for word in typed if not word.startswith(("metrics.", "extractor."))]


def crgan(
    *words: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own and in folder `cwd`."""
    return subprocess.run(command(*words), cwd=cwd, env=environment(env), **PIPES)


PIPES = {"capture_output": True, "text": True, "timeout": 900, "check": False}


def command(*words: str) -> list[str]:
    """What to run for `crgan WORDS`."""
    return [sys.executable, "-m", "crgan_cli", *words]


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """One thread, and this interpreter's crgan from any folder."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **(more or {})}


def lines(out: Path, kind: str) -> list[dict]:
    """The lines of one kind in metrics.jsonl, without what a clock measured."""
    texts = (out / "metrics.jsonl").read_text().splitlines()
    timeless = [
        {key: value for key, value in json.loads(text).items() if not key.startswith("speed/")}
        for text in texts
    ]
    return [line for line in timeless if line["kind"] == kind]


def logged(run: Path, step: int) -> dict:
    """The metrics that training wrote at a step."""
    (line,) = (line for line in lines(run, "eval") if line["step"] == step)
    return {key: value for key, value in line.items() if key not in ("kind", "step", "images_seen")}


def leaves(value: object, name: str = "") -> dict[str, object]:
    """Every tensor and number in nested containers, by its path."""
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value))
    else:
        return {name: value}
    return {
        path: leaf for key, part in parts for path, leaf in leaves(part, f"{name}/{key}").items()
    }


def different(one: Path, other: Path) -> list[str]:
    """The paths at which two checkpoint files are not the same to the last bit."""
    a, b = (leaves(torch.load(path, weights_only=True)["states"]) for path in (one, other))
    common = {name for name in a.keys() & b.keys() if same(a[name], b[name])}
    return sorted((a.keys() | b.keys()) - common)


def same(one: object, other: object) -> bool:
    """Whether two leaves are equal to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


def refused(answer: tuple[int, str, str], *said: str) -> None:
    """Exit code 2, one paragraph on standard error, and nothing on standard output."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    found = re.search(r"^crgan \w+: error: (.*)", err, re.MULTILINE | re.DOTALL)
    assert found, err
    for words in said:
        assert words in found[1]
    assert "\n\n" not in found[1].strip()
