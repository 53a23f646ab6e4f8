"""Each file of conf/dataset says what its class takes, and tells the truth about its data."""

import importlib
import inspect
from functools import cache
from pathlib import Path

import pytest
import yaml

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.data.dataset import Dataset
from crgan_cli.data.domains import UnpairedImages
from crgan_cli.data.pairs import PairedImages

CONF = Path(__file__).parents[2] / "conf" / "dataset"
FILES = sorted(CONF.glob("*.yaml"))
LABELLED = {"attributes", "celeba_attributes", "demo_attributes", "demo_traits"}
JOINED = {"joint", "demo_joint"}
TYPED = {
    **{name: ["dataset.root=x"] for name in ("folder", "pairs", "domains")},
    "attributes": ["dataset.root=x", "dataset.attributes=[Male]"],
    "joint": [
        "dataset@dataset.parts.first=celeba_attributes",
        "dataset@dataset.parts.second=folder",
        "dataset.parts.second.root=x",
        "dataset.parts.second.classes=8",
        "dataset.parts.second.resolution=128",
    ],
}
"""What a user must type besides the choice."""


@cache
def read(path: Path) -> tuple[type[Dataset], dict[str, object]]:
    """The class that a file names, and its other keys, with what a user must type."""
    keys = to_plain(compose([f"dataset={path.stem}", *TYPED.get(path.stem, [])]).dataset)
    module, name = keys.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), name), keys


def test_every_data_set_of_the_issue_has_a_file():
    expected = {"cifar10", "cifar100", "mnist", "fashion_mnist", "celeba", "folder", "demo"}
    expected |= {"celeba_hq", "imagenet"}
    translated = {"pairs", "domains", "demo_pairs", "demo_domains", *LABELLED, *JOINED}
    assert {path.stem for path in FILES} == expected | translated


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_gives_every_parameter_and_no_other(path: Path):
    target, keys = read(path)
    assert set(keys) == set(inspect.signature(target).parameters)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_states_the_facts_of_its_data(path: Path):
    target, keys = read(path)
    data = target(**keys)  # pyright: ignore[reportArgumentType]
    assert isinstance(data, Dataset)
    if data.facts is not None:
        assert (data.resolution, data.channels, data.classes) == data.facts[:3]
    # the authors of pix2pix, CycleGAN and StarGAN flip; the papers of CR do not
    flips = isinstance(data, PairedImages | UnpairedImages) or path.stem in LABELLED | JOINED
    assert (data.fraction, data.flip) == (1.0, flips)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_has_a_comment(path: Path):
    for line in path.read_text().splitlines():
        key = line.split(":")[0]
        if line and line[0].isalpha() and key != "defaults":
            assert "  # " in line, line


def test_the_demo_brings_the_metrics_that_need_no_download():
    keys = yaml.safe_load((CONF / "demo.yaml").read_text())
    assert keys["defaults"] == [{"override /metrics@_global_.metrics": "demo"}, "_self_"]
