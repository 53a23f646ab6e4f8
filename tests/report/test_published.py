"""A published number stands only beside the runs that it belongs to."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.reports import PROTOCOL, row_of, run_of

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import flatten
from crgan_cli.config.settings import Published
from crgan_cli.errors import UserError
from crgan_cli.report.model import Row, Value
from crgan_cli.report.published import find_published, format_published
from crgan_cli.report.settings import to_value
from crgan_cli.runs.status import Status

EXPERIMENT = "icr_cifar10_sndcgan"
CIFAR = "cifar10_10k_test_x3_unrounded"
CELEBA = "celeba_hq_3k_test_x3_unrounded"


def found(*typed: str, experiment: str = EXPERIMENT) -> Mapping[str, Value]:
    """What a run of an experiment, with more typed, has of the paper's number."""
    return find_published(composed(*typed), {"experiment": experiment})


def composed(*typed: str) -> dict[str, Value]:
    settings = compose([f"experiment={EXPERIMENT}", *typed])
    return {key: to_value(value) for key, value in flatten(settings).items()}


@pytest.mark.parametrize(
    "typed",
    [
        "regularizer=none",
        "regularizer=[icr,gp]",
        "dataset=cifar100",
        "architecture=resnet",
        "augment=cutout",
        "augment_both=ada",
    ],
)
def test_the_number_is_not_that_of_another_method_or_data_set(typed: str) -> None:
    assert not found(typed)


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        (["steps=100"], "steps"),
        (["loss=hinge"], "loss"),
        (["regularizer.sigma=0.1", "dataset.fraction=0.1"], "dataset.fraction, regularizer.sigma"),
        (["ema.decay=0.99", "batch_size=8"], "batch_size, ema.decay"),
    ],
)
def test_other_settings_are_named(typed: list[str], changed: str) -> None:
    assert found(*typed)["changed"] == changed


def test_a_text_that_is_no_command_line_belongs_to_nothing_that_is_known() -> None:
    """In a run's folder; where it is typed it is refused."""
    config = {**composed(), "published.settings": "it's"}
    changed = find_published(config, {"experiment": EXPERIMENT})["changed"]
    assert changed == f"not known: experiment={EXPERIMENT} with published.settings is not here"
    with pytest.raises(UserError, match=r"published.settings must be .*, not .it's.\. No closing"):
        Published(None, None, None, "it's")


def test_where_and_how_a_run_is_trained_and_measured_is_no_other_setting() -> None:
    typed = ("seed=7", "device=cpu", "engine=eager", "log.every=3", "metrics=demo", "out=x")
    assert found(*typed) == found()
    assert found()["fid"] == 15.87
    assert "changed" not in found()


def test_a_run_from_before_the_protocol_was_stored_has_that_of_its_experiment() -> None:
    old = composed()
    for key in ("published.protocol", "regularizer.every", "dataset.only_classes"):
        del old[key]  # the last has no default that can be read
    number = find_published(old, {"experiment": EXPERIMENT})
    assert number["protocol"] == CIFAR
    assert not number.get("changed")


def test_a_number_that_was_typed_belongs_to_what_was_typed() -> None:
    number = found("augment=cutout", "published.fid=17.1")
    assert (number["fid"], number["protocol"], number.get("changed")) == (17.1, CIFAR, None)


def test_a_number_of_a_table_belongs_to_its_row_and_to_no_more_that_was_typed():
    own = ("augment=cutout", "published.fid=17.1", "published.settings='augment=cutout'")
    assert found(*own).get("changed") is None
    number = found(*own, "steps=100")
    assert (number["fid"], number["changed"]) == (17.1, "steps")
    assert not found(*own, "augment=flip_shift")


def test_the_number_of_an_experiment_that_is_not_here_is_not_compared() -> None:
    number = found(experiment="mine")
    row = published_row(number, {"protocol": CIFAR})
    words = "15.87 (settings differ: not known: experiment=mine is not here)"
    assert format_published(row, "fid", "last") == words


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (CELEBA, "18.5: ours +1.50, n=1: no statement"),
        (CIFAR, "18.5 (protocol differs)"),
        ("celeba_hq_3k_test", "18.5 (protocol differs)"),
        (f"{CELEBA}_psi0.5", "18.5 (protocol differs)"),
        (None, "18.5 (protocol differs)"),
    ],
)
def test_each_paper_is_compared_by_its_own_protocol(ours: str, words: str) -> None:
    row = published_row({"fid": 18.5, "source": "", "protocol": CELEBA}, {"protocol": ours})
    assert format_published(row, "fid", "last") == words


def test_a_number_before_the_last_step_is_not_compared() -> None:
    row = published_row({"fid": 18.5, "protocol": CIFAR}, {"protocol": CIFAR})
    end = row.runs[0].steps
    assert format_published(row, "fid", end) == format_published(row, "fid", "last")
    assert format_published(row, "fid", 100) == f"18.5 (after {end} steps)"
    going = row.runs[0]._replace(status=Status.RUNNING)
    assert format_published(row._replace(runs=(going,)), "fid", "last") == (
        f"18.5 (after {end} steps)"
    )
    assert format_published(row, "is", "last") == "18.5 (of FID)"


def test_a_mean_over_two_protocols_is_not_compared() -> None:
    row = published_row({"fid": 18.5, "protocol": CIFAR}, {"protocol": CIFAR})
    other = row.runs[0]._replace(protocol={**PROTOCOL, "protocol": CELEBA})
    both = row._replace(runs=(*row.runs, other))
    assert format_published(both, "fid", "last") == "18.5 (protocol differs)"


def published_row(number: Mapping[str, Value], protocol: Mapping[str, object]) -> Row:
    """A row of one run with an FID of 20."""
    run = run_of(Path("a"), 1)._replace(published=number, protocol={**PROTOCOL, **protocol})
    return row_of("a", [run], {})
