"""The rows of the papers' tables: each composes, builds, and plays the game of its name."""

import itertools

import pytest
import yaml
from omegaconf import DictConfig
from support.published import IMAGENET, PUBLISHED
from support.turns import played, prepared, real

from crgan_cli.config.choices import Choices, conf_dir
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import flatten
from crgan_cli.config.settings import Run
from crgan_cli.data.dataset import build_dataset
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.gan.build import Networks, build_networks, build_task
from crgan_cli.gan.tasks.base import Task
from crgan_cli.training import costs
from crgan_cli.training.engine.eager import Eager

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

PROTOCOLS = {
    "cifar10": ("Cifar10", "CIFAR-10", "10k test images", 10000),
    "celeba_hq": ("CelebAHQ", "CelebA-HQ", "3k test images", 3000),
    "imagenet": ("ImageNet", "ImageNet", "50k validation images", 50000),
}
"""Data set in an experiment's name -> its class, its name in the source, images."""

PENALTIES = ("gp", "dragan", "jsr")
SMALL = "architecture.width=0.02"
ROWS = pytest.mark.parametrize("name", PUBLISHED)
IMAGENET_ROWS = pytest.mark.parametrize("name", IMAGENET)


def row(name: str, *overrides: str) -> DictConfig:
    return compose([f"experiment={name}", *overrides])


def split_name(name: str) -> tuple[str, str, str]:
    """The method, the data set and the architecture of a row."""
    method, rest = name.split("_", 1)
    dataset = next(each for each in PROTOCOLS if rest.startswith(each))
    architecture = rest.removeprefix(f"{dataset}_")
    return method, dataset, "resnet_sngan" if method == "sngan" else architecture


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


@pytest.mark.parametrize("name", Choices().groups["experiment"])
def test_every_experiment_composes_without_metrics(name: str) -> None:
    assert row(name, "metrics=none").metrics._target_ == {}


@ROWS
def test_a_row_names_the_number_of_the_paper_and_its_protocol(name: str) -> None:
    config = row(name)
    assert config.published.fid == PUBLISHED[name]
    assert "arXiv:2002.04724" in config.published.source
    dataset, named, count, images = PROTOCOLS[split_name(name)[1]]
    assert named in config.published.source
    assert config.dataset._target_.endswith(dataset)
    if name == "sngan_cifar10_resnet":  # by its authors' protocol, not by that of the other rows
        assert config.published.protocol is None
        return
    assert count in config.published.source
    assert (config.metrics.reference, config.metrics.num_samples) == ("test", images)
    assert (config.metrics.repeats, config.metrics.rounding) == (3, "none")
    values = {key: config.metrics.get(key) for key in Protocol._fields if key != "dropout"}
    protocol = Protocol(**values | {"num_real": images})
    assert config.metrics.num_real is None
    assert config.published.protocol == protocol.label(build_dataset(config).described)


@ROWS
def test_a_row_plays_the_game_that_it_is_named_for(name: str) -> None:
    method, dataset, architecture = split_name(name)
    config = row(name, SMALL)
    players, task = game(config)
    chosen = compose([f"architecture={architecture}", f"dataset={dataset}"]).architecture
    assert config.architecture._target_ == chosen._target_
    plan, views = task.describe_turns()[0], VIEWS[method]
    conditional = method == "sngan" or architecture.startswith("biggan")
    way = "double backward" if architecture.startswith("biggan") else "adjoint network"
    penalty = f"; 1 more for a gradient, by {way}" if method in PENALTIES else ""
    assert plan.endswith(f"1 D call for {len(views.split())} views: {views}{penalty}")
    parts = {"none": [], "sngan": [], "icr": ["bcr", "zcr"]}.get(method, [method])
    assert list(config.regularizer._target_) == parts
    classes = (1000 if dataset == "imagenet" else 10) if conditional else 0
    assert (players.G.classes, players.D.classes) == (classes, classes)


@ROWS
def test_a_row_builds_at_full_size_and_has_a_cost(name: str) -> None:
    """Counted on the meta device: shapes without numbers."""
    config = row(name)
    minutes = costs.gpu_minutes(config, config.steps)
    assert minutes is not None
    assert minutes > 5


@ROWS
def test_a_row_takes_two_steps_at_tiny_width(name: str) -> None:
    config = row(name, SMALL)
    _, task = game(config)
    data = config.dataset
    images = real(2, data.channels, data.resolution, data.classes)
    prepared(task, engine := Eager(), images)
    for who in (*task.turns, *task.turns):
        numbers = played(engine, who, measure=True)
        assert all(value.isfinite() for value in numbers.values()), numbers


@pytest.mark.parametrize("name", sorted(PUBLISHED.keys() - IMAGENET.keys()))
def test_a_row_has_the_optimizer_of_its_network(name: str) -> None:
    config, (method, _, architecture) = row(name), split_name(name)
    small = architecture in ("sndcgan", "resnet")
    assert config.optimizer.n_dis == (1 if architecture == "sndcgan" else 5)
    assert config.loss._target_ == f"crgan_cli.gan.{'NonSaturating' if small else 'Hinge'}"
    averaged = (0.9999, 1000) if architecture == "biggan_lite" else (None, 0)
    assert (config.ema.decay, config.ema.start) == averaged
    assert (config.optimizer.lr_g, config.optimizer.lr_d) == (2e-4, 2e-4)
    betas = (0.0, 0.9) if method == "sngan" else (0.5, 0.999)
    assert (config.optimizer.beta1, config.optimizer.beta2) == betas
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
