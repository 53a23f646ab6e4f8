"""What a run reports."""

import logging
import shlex
from pathlib import Path

import pytest
import torch
from support.runs import Crgan, tiny

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import flatten
from crgan_cli.config.stored import to_text
from crgan_cli.errors import UserError
from crgan_cli.evaluation.checkpoints import Scorer
from crgan_cli.gan.build import build_networks, build_task
from crgan_cli.report.collect import collect
from crgan_cli.runs.next_commands import list_next_commands, suggest_metrics
from crgan_cli.training.dry_run import check
from crgan_cli.training.summary import (
    advise_on_few_images,
    hparams,
    warn_of_noisy_consistency,
    warn_of_unfit_parts,
)


def test_a_row_of_hparams_tells_what_was_built_and_with_what() -> None:
    told = hparams(flatten(compose(["regularizer=[cr,gp]", "regularizer.lambda_cr=5", "out=here"])))
    assert told["regularizer"] == "ConsistencyRegularization+GradientPenalty"
    assert told["architecture"] == "SNDCGANGenerator+SNDCGANDiscriminator"
    assert told["regularizer.lambda_cr"] == 5
    assert told["seed"] == 1
    assert not {"out", "data_root", "log.every", "checkpoint.keep"} & told.keys()
    assert not [key for key in told if key.startswith("sweep.")]


def test_a_group_that_builds_nothing_says_none() -> None:
    assert hparams(flatten(compose(["regularizer=none"])))["regularizer"] == "none"


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("architecture=mlp_maxout regularizer=cr", "d_input_dropout=0 architecture.d_dropout=0"),
        ("architecture=mlp architecture.d_dropout=0.4 regularizer=zcr", "architecture.d_dropout=0"),
        ("architecture=mlp regularizer=cr", None),  # no dropout
        ("architecture=mlp_maxout regularizer=gp", None),  # no two views
        ("architecture=mlp_maxout regularizer=none", None),
    ],
)
def test_dropout_in_d_disturbs_a_consistency_term_and_the_log_says_so(
    typed: str, advice: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose([*typed.split(), "architecture.width=0.02"])
    task = build_task(config, build_networks(config))
    with caplog.at_level(logging.WARNING):
        warn_of_noisy_consistency(task, config.architecture)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (advice is not None)
    assert advice is None or said[0].endswith(advice)


@pytest.mark.parametrize("spectral_norm", ["true", "false"])
def test_clipping_under_spectral_norm_is_said_to_do_little(
    spectral_norm: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["architecture=sndcgan", "architecture.width=0.02", "regularizer=clip"]
    config = compose([*words, f"architecture.spectral_norm={spectral_norm}"])
    warn_of_unfit_parts(build_task(config, build_networks(config)))
    assert ("Type architecture.spectral_norm=false" in caplog.text) == (spectral_norm == "true")


def unfit_parts(words: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """How the warnings of such a run begin."""
    config = compose([*words.split(), "architecture.width=0.02"])
    warn_of_unfit_parts(build_task(config, build_networks(config)))
    return [record.getMessage().partition(" ")[0] for record in caplog.records]


@pytest.mark.parametrize("loss", sorted(Choices().groups["loss"]))
@pytest.mark.parametrize("both", ["ada", "diffaugment"])
def test_ada_with_a_loss_whose_sign_says_nothing_is_said(
    loss: str, both: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = unfit_parts(f"loss={loss} regularizer=gp augment_both={both}", caplog)
    unfit = both == "ada" and loss in ("least_squares", "relativistic", "wasserstein")
    assert said == ["augment_both=ada"] * unfit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("architecture.spectral_norm=false regularizer=none", True),
        ("architecture.spectral_norm=false regularizer=icr", True),
        ("architecture=mlp regularizer=none", True),
        ("architecture.spectral_norm=true regularizer=none", False),
        ("architecture.spectral_norm=false regularizer=clip", False),
        ("architecture.spectral_norm=false regularizer=[cr,gp]", False),
        ("architecture.spectral_norm=false regularizer=none loss=hinge", False),
    ],
)
def test_wasserstein_without_a_bound_of_d_is_said(
    words: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert unfit_parts(f"loss=wasserstein {words}", caplog) == ["Wasserstein:"] * said


def test_a_run_ends_with_commands_that_work_as_they_are(crgan: Crgan, tmp_path: Path) -> None:
    code, out, err = crgan("train", *tiny("steps=2", "out=it's a run"))
    assert code == 0, err
    commands = [shlex.split(line) for line in out.partition("next:\n")[2].splitlines()]
    assert [words[:3] for words in commands] == [
        ["crgan", name, "it's a run"] for name in ("sample", "eval", "report")
    ]
    for words in commands[:2]:  # of the third, seconds
        code, _, err = crgan(*words[1:])
        assert code == 0, err


@pytest.mark.parametrize(
    ("config", "resumes", "said"),
    [
        ({"architecture.z_dim": 8}, False, ["sample R", "eval R metrics=demo"]),
        ({"architecture.z_dim": 8}, True, ["train --from R", "sample R", "eval R metrics=demo"]),
        (
            {"architecture.z_dim": 8, "dataset.holdout": 0.1},
            False,
            ["sample R", "eval R metrics=demo metrics.num_samples=null"],
        ),
        (
            {"dataset.channels_in": 3},
            False,
            ["translate R INPUT --out OUT", "eval R metrics=pairs"],
        ),
        (
            {"dataset.channels_a": 3, "metrics._target_": "Evaluator"},
            False,
            ["translate R INPUT --to b --out OUT", "eval R", "report R"],
        ),
    ],
)
def test_the_next_commands_fit_the_run(config: dict, resumes: bool, said: list[str]) -> None:
    found = list_next_commands(Path("R"), config, resumes=resumes, to="b")
    assert found == [f"crgan {words}" for words in said]


@pytest.mark.parametrize("name", ["demo", "demo_pix2pix", "demo_cyclegan", "demo_stargan"])
def test_a_run_without_metrics_is_told_those_that_fit_it(name: str, tmp_path: Path) -> None:
    typed = [f"experiment={name}", "architecture.width=0.02", "device=cpu"]
    config = compose([*typed, "metrics=none"])
    first = suggest_metrics(flatten(config))[0]
    check(compose([*typed, first]))  # as for a dry run
    with pytest.raises(UserError, match=f"metrics=none. Add a protocol, for example {first}"):
        Scorer(config, torch.device("cpu"), lambda *_: None)
    (tmp_path / "config.yaml").write_text(to_text(config))
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=rf"Evaluate each run \(crgan eval .* {first}\), or train"):
        collect([tmp_path])


def test_a_name_that_looks_like_an_option_is_printed_as_it_can_be_typed() -> None:
    found = list_next_commands(Path("R"), {"dataset.classes": 2}, resumes=False, to="-x")
    assert found == [
        "crgan translate R INPUT --to=-x --out OUT",
        "crgan eval R metrics=domains",
    ]


@pytest.mark.parametrize(
    ("count", "words", "named"),
    [
        (5000, [], []),
        (4999, [], ["augment_both=ada", "regularizer=icr", "dataset.flip=true", "init_from=RUN"]),
        (400, ["augment_both=ada", "regularizer=icr"], ["dataset.flip=true", "init_from=RUN"]),
        (400, ["regularizer=[cr,zcr]", "dataset.flip=true"], ["augment_both=ada", "init_from=RUN"]),
        (400, ["task=pix2pix", "architecture=unet", "dataset=demo_pairs"], []),
    ],
)
def test_few_images_are_said_with_what_helps_and_is_not_chosen(
    count: int, words: list[str], named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    advise_on_few_images(count, compose(words))
    offered = ["augment_both=ada", "regularizer=icr", "dataset.flip=true", "init_from=RUN"]
    assert [name for name in offered if name in caplog.text] == named
    assert bool(caplog.messages) == bool(named)
