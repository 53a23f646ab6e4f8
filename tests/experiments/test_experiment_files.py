"""The rows of the papers' tables: each composes, builds, and plays the game of its name."""

import itertools

import pytest
import yaml
from omegaconf import DictConfig
from support.published import CIFAR10, IMAGENET, PUBLISHED

from crgan_cli.config.choices import Choices, conf_dir
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import flatten
from crgan_cli.config.settings import Run
from crgan_cli.gan.build import Networks, build_networks, build_task
from crgan_cli.gan.tasks.base import Task

VIEWS = {
    "none": "real fake",
    "sngan": "real fake",
    "gp": "real fake",
    "dragan": "real fake",
    "jsr": "real fake",
    "cr": "real fake T(real)",
    "icr": "real fake T(real) T(fake) near",
}
SWEEPS = {
    "sweep_bcr_lambda": 4 * 4 * 3,
    "sweep_cr_augmentation": 4 * 3,
    "sweep_regularizer_by_loss": 3 * 6 * 3,
    "sweep_regularizer_by_n_dis": 2 * 6 * 3,
}
"""Experiment -> how many runs it asks for."""

SMALL = "architecture.width=0.02"
ROWS = pytest.mark.parametrize("name", PUBLISHED)
CIFAR10_ROWS = pytest.mark.parametrize("name", CIFAR10)
IMAGENET_ROWS = pytest.mark.parametrize("name", IMAGENET)


def row(name: str, *overrides: str) -> DictConfig:
    return compose([f"experiment={name}", *overrides])


def game(config: DictConfig) -> tuple[Networks, Task]:
    players = build_networks(config)
    return players, build_task(config, players)


@pytest.mark.parametrize("name", Choices().groups["experiment"])
def test_every_experiment_builds_its_game(name: str) -> None:
    config = row(name, SMALL)
    assert Run.from_config(config).steps > 0
    _, task = game(config)
    assert task.turns.count("d") == config.optimizer.n_dis


def test_every_row_of_the_tables_is_there() -> None:
    assert PUBLISHED.keys() <= set(Choices().groups["experiment"])


@ROWS
def test_a_row_names_the_number_of_the_paper_and_its_protocol(name: str) -> None:
    config = row(name)
    assert config.published.fid == PUBLISHED[name]
    assert "arXiv:2002.04724" in config.published.source
    data, images, count, kind = (
        ("CIFAR-10", "10k test images", 10000, "Cifar10")
        if name in CIFAR10
        else ("ImageNet", "50k validation images", 50000, "ImageNet")
    )
    assert data in config.published.source
    assert images in config.published.source
    assert (config.metrics.reference, config.metrics.num_samples) == ("test", count)
    assert config.dataset._target_.endswith(kind)


@ROWS
def test_a_row_plays_the_game_that_it_is_named_for(name: str) -> None:
    method, _, architecture = name.split("_", 2)
    config = row(name, SMALL)
    players, task = game(config)
    architecture = "resnet_sngan" if method == "sngan" else architecture
    chosen = compose([f"architecture={architecture}", "dataset=cifar10"]).architecture
    assert config.architecture._target_ == chosen._target_
    plan, views = task.describe_turns()[0], VIEWS[method]
    own = name.split("_")[0] in ("gp", "dragan", "jsr")
    way = "double backward" if architecture == "biggan_lite" else "adjoint network"
    penalty = f"; 1 more for a gradient, by {way}" if own else ""
    assert plan.endswith(f"1 D call for {len(views.split())} views: {views}{penalty}")
    parts = {"none": [], "sngan": [], "icr": ["bcr", "zcr"]}.get(method, [method])
    assert list(config.regularizer._target_) == parts
    classes = {"biggan_lite": 10, "biggan": 1000, "resnet_sngan": 1000}.get(architecture, 0)
    assert (players.G.classes, players.D.classes) == (classes, classes)


@CIFAR10_ROWS
def test_a_row_has_the_optimizer_of_its_network(name: str) -> None:
    config = row(name)
    if name.endswith("sndcgan"):
        assert (config.optimizer.n_dis, config.loss._target_) == (
            1,
            "crgan_cli.gan.NonSaturating",
        )
        assert config.ema.decay is None
    elif name.endswith("resnet"):
        assert (config.optimizer.n_dis, config.loss._target_) == (
            5,
            "crgan_cli.gan.NonSaturating",
        )
        assert config.ema.decay is None
    else:
        assert config.loss._target_ == "crgan_cli.gan.Hinge"
        assert (config.ema.decay, config.ema.start) == (0.9999, 1000)
    assert (config.optimizer.lr_g, config.optimizer.lr_d) == (2e-4, 2e-4)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.5, 0.999)
    assert config.batch_size == 64


@IMAGENET_ROWS
def test_a_row_on_imagenet_is_trained_as_its_code_does(name: str) -> None:
    """compare_gan's biggan_imagenet128.gin, and sngan_projection's sn_projection.yml."""
    config = row(name)
    opt = config.optimizer
    found = (config.steps, config.batch_size, opt.n_dis, opt.lr_g, opt.lr_d, opt.beta1, opt.beta2)
    assert config.loss._target_ == "crgan_cli.gan.Hinge"
    assert config.dataset.resolution == 128
    if name.startswith("sngan"):
        assert found == (450000, 64, 5, 2e-4, 2e-4, 0.0, 0.9)
        assert opt.decay_from == pytest.approx(400 / 450, abs=1e-6)
        assert config.ema.decay is None
    else:
        assert found == (250000, 2048, 2, 1e-4, 5e-4, 0.0, 0.999)
        assert opt.decay == "none"
        assert (config.ema.decay, config.ema.start) == (0.9999, 40000)
        assert config.metrics.batch_norm == "standing"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("cr_cifar10_sndcgan", {"lambda_cr": 10.0}),
        ("cr_cifar10_resnet", {"lambda_cr": 10.0}),
        ("cr_cifar10_biggan_lite", {"lambda_cr": 10.0}),
        ("cr_imagenet_biggan", {"lambda_cr": 10.0}),
        *(
            (
                f"icr_cifar10_{network}",
                {
                    "lambda_real": 10.0,
                    "lambda_fake": 10.0,
                    "lambda_dis": 5.0,
                    "lambda_gen": 0.5,
                    "sigma": 0.03,
                },
            )
            for network in ("sndcgan", "resnet")
        ),
        *(
            (
                name,
                {
                    "lambda_real": 10.0,
                    "lambda_fake": 10.0,
                    "lambda_dis": 20.0,
                    "lambda_gen": 0.5,
                    "sigma": 0.05,
                },
            )
            for name in ("icr_cifar10_biggan_lite", "icr_imagenet_biggan")
        ),
    ],
)
def test_the_weights_of_the_consistency_rows(name: str, weights: dict[str, float]) -> None:
    regularizer = row(name).regularizer
    assert {key: regularizer[key] for key in weights} == weights
    assert regularizer.every == 1


# --- sweeps ---------------------------------------------------------------------------------------


def test_every_sweep_is_counted_here() -> None:
    assert SWEEPS.keys() == {
        name for name in Choices().groups["experiment"] if name.startswith("sweep_")
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_of_a_sweep_composes_and_is_another_run(name: str) -> None:
    asked = yaml.safe_load((conf_dir() / "experiment" / f"{name}.yaml").read_text())["hydra"]
    assert asked["mode"] == "MULTIRUN"
    values = {key: text.split(",") for key, text in asked["sweeper"]["params"].items()}
    seeds = values.pop("seed")
    jobs = [
        [f"{key}={value}" for key, value in zip(values, combination, strict=True)]
        for combination in itertools.product(*values.values())
    ]
    assert len(jobs) * len(seeds) == SWEEPS[name]
    made = [flatten(row(name, *job)) for job in jobs]
    assert len({str(config) for config in made}) == len(jobs)
    assert {config["published.fid"] for config in made} == {None}


def test_the_two_settings_of_the_sweep_by_turns_differ_in_them_alone() -> None:
    one, five = (flatten(row("none_cifar10_sndcgan", f"optimizer=cr_{x}")) for x in "cd")
    assert {key for key in one if one[key] != five[key]} == {"optimizer.n_dis"}
