"""`crgan train --dry-run`: the networks, and what a run would cost, without training."""

import os
from pathlib import Path

import pytest
import torch
from support.runs import Crgan, refused, tiny, train, unmeasured
from torch import nn

from crgan_cli.config.compose import compose
from crgan_cli.config.sides import Sides
from crgan_cli.system.numbers import format_bytes
from crgan_cli.training import costs
from crgan_cli.training.dry_run import check, describe_memory, describe_plan, tabulate_players
from crgan_cli.training.flops import count_networks
from crgan_cli.training.layers import tabulate

SMALL = ("device=cpu", "metrics=none")


class Branches(nn.Module):
    """A convolution that is called twice, a parameter of its own, a layer that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.gain = nn.Parameter(torch.ones(()))
        self.spare = nn.Linear(5, 2)
        self.end = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.gain * self.conv(self.conv(x)))


def test_a_table_by_hand() -> None:
    with torch.device("meta"):
        table = tabulate(Branches(), (torch.zeros(2, 3, 8, 8),))
    conv = 2 * 2 * 8 * 8 * 3 * 3 * 9  # two calls, 2 per multiply-add
    dense = 2 * 3 * 8 * 8 * 4
    assert [(layer.name, layer.shape, layer.parameters, layer.flops) for layer in table.layers] == [
        ("conv", (3, 8, 8), 81, conv),
        ("end.0", (3, 8, 8), 0, 0),
        ("end.1", (192,), 0, 0),
        ("end.2", (4,), 192 * 4 + 4, dense),
        ("-", (4,), 1, 0),  # the network itself, which holds the gain
        ("spare", (), 12, 0),
    ]
    assert (table.parameters, table.flops) == (81 + 772 + 1 + 12, conv + dense)
    assert table.activations == 4 * (192 + 192 + 192 + 4 + 4)


def test_a_network_that_needs_numbers_tells_its_parameters() -> None:
    class Picky(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) if input.sum().item() else input

    with torch.device("meta"):
        table = tabulate(Picky(3, 2), (torch.zeros(2, 3),))
    assert (table.parameters, table.flops, table.activations) == (8, None, 0)


@pytest.mark.parametrize("name", ["", "_cgan", "_pggan", "_pix2pix", "_cyclegan", "_stargan"])
def test_the_tables_hold_every_parameter_and_all_work(name: str) -> None:
    config = compose([f"experiment=demo{name}", "device=cpu"])
    tables = tabulate_players(config)
    assert sum(table.parameters for table in tables.values()) == sum(costs.count_weights(config))
    for table in tables.values():
        assert sum(layer.parameters for layer in table.layers) == table.parameters
        assert table.flops == pytest.approx(sum(layer.flops for layer in table.layers), rel=0.01)
    if "z_dim" in config.architecture:
        side, channels = config.dataset.resolution, config.dataset.channels
        counted = count_networks(config.architecture, resolution=side, channels=channels).net
        assert (tables["G"].flops, tables["D"].flops) == (1e9 * counted.g, 1e9 * counted.d)


def test_a_plan_is_printed_and_nothing_is_written(crgan: Crgan, tmp_path: Path) -> None:
    code, out, err = crgan("train", "dataset=cifar10", "steps=100", "device=cpu", "--dry-run")
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    for words in (
        "layers.0 (Linear) ",
        " 3 x 32 x 32 ",
        "  turns       D step, 1 per G step: 1 D call for 3 views: real fake T(real)\n",
        "  a step      batch of 64, ",
        "  all         100 steps, 6,400 real images seen",
        " for gradients and moments, ",
        "  time        not known before it runs: ",
        "[derived: performance model, not measured]",
    ):
        assert words in out
    assert "G ab and G ba" in describe_plan(compose(["experiment=demo_cyclegan", *SMALL]))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("batch_size=90000", "dataset=demo"), "from a training set of 20000"),
        (("accumulate=3",), "accumulate=3 cuts the batch"),
        (("regularizer=ac",), "works on class logits"),
        (("dataset=folder", "dataset.root=nowhere"), "nowhere: dataset.root= must be a folder"),
        (("task=pix2pix",), "needs pairs of images"),
        (("experiment=demo_pix2pix", "augment_both=ada"), "D sees 2 channels. Type augment"),
        (("experiment=demo_stargan", "metrics=pairs"), "This protocol scores one kind of images"),
        (("metrics=domains",), "this run draws images from latents"),
        (("metrics=demo", "metrics.weights=ema", "ema.decay=null"), "keeps no average"),
        (("metrics=demo", "metrics.measures=[fid,class_fid]"), "the images of this model have no"),
        (("metrics=demo", "extractor=none"), "fid compares features, and extractor=none has none"),
        (("-m", "seed=1,2"), "--dry-run shows one run"),
        (("--cfg", "job"), "--dry-run shows one run"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    crgan: Crgan, typed: tuple[str, ...], said: str
) -> None:
    refused(crgan("train", *typed, "device=cpu", "--dry-run"), said)


def test_what_another_run_left_is_looked_at(crgan: Crgan, tmp_path: Path) -> None:
    typed = tiny("out=run", "metrics.every=6", "steps=1")
    train(tmp_path / "run", "metrics.every=6", "steps=1")
    code, out, _ = crgan("train", *typed, "--dry-run")
    assert code == 0
    assert "run, which holds this run: it would be resumed" in out
    refused(crgan("train", *typed, "seed=2", "--dry-run"), "started with another configuration")
    taken = [*tiny("init_from=run", "freeze_d=1"), "--dry-run"]
    assert crgan("train", *taken)[0] == 0
    refused(crgan("train", *taken, "freeze_d=99"), "freeze_d=99 leaves nothing to learn")


def test_a_run_that_would_be_resumed_needs_no_other_run_any_more(
    crgan: Crgan, tmp_path: Path
) -> None:
    one = unmeasured(tiny("steps=1"))
    assert crgan("train", *one, "out=source")[0] == 0
    words = (*one, "out=run", "init_from=source", "freeze_d=1")
    assert crgan("train", *words)[0] == 0
    (tmp_path / "source").rename(tmp_path / "moved")
    code, out, _ = crgan("train", *words, "--dry-run")
    assert code == 0
    assert "run, which holds this run: it would be resumed" in out
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.unlink()  # killed before it saved anything: it begins anew
    (tmp_path / "run/result.json").unlink()
    for last in ((), ("--dry-run",)):
        refused(crgan("train", *words, *last), "init_from=", "source")


@pytest.mark.parametrize("regularizer", ["cr_gp", "lecam", "path_length", "orthogonal", "clip"])
def test_games_are_checked_without_values(regularizer: str) -> None:
    typed = [f"regularizer={regularizer}", "augment_both=ada", *SMALL]
    checked = check(compose(typed))
    assert checked.turns


def test_a_folder_that_cannot_be_written_is_refused(
    crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    words = ("train", "--dry-run", "architecture.width=0.02", *SMALL)
    refused(crgan(*words, "out=file/run"), "is no folder")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write
    for where in ((), ("out=deep/run",)):
        refused(crgan(*words, *where), f"{tmp_path} cannot be written")


def test_memory_is_that_of_the_stage_that_needs_most() -> None:
    sizes = "task.batch_sizes=[128,32,16,8]"  # of 4, 8, 16 and 32 pixels
    config = compose(["experiment=demo_pggan", sizes, *SMALL])
    full, small = tabulate_players(config), tabulate_players(config, Sides(4, 4))
    assert {each.shape[-1] for each in small["G"].layers if len(each.shape) == 3} == {4}
    passed = [sum(each.activations for each in tables.values()) for tables in (small, full)]
    assert 128 * passed[0] < 8 * passed[1]
    assert f"{format_bytes(8 * passed[1])} for the act" in describe_memory(check(config), full)
    config.steps = 9  # it ends at 4 pixels
    assert f"{format_bytes(128 * passed[0])} for the act" in describe_memory(check(config), full)
