"""The first GAN and the first conditional one, from the files of MNIST, through `crgan train`."""

import json
from pathlib import Path

import pytest
from data.test_data_standard import write_mnist
from support.runs import DEMO, Crgan, different, lines

SMALL = (
    "architecture.width=0.02",
    "dataset.fraction=1",
    "batch_size=4",
    "log.every=1",
    "samples.num=4",
    "samples.every=2",
    "checkpoint.every=1",
    "device=cpu",
    *DEMO,
    "metrics.measures=[kid]",
    "metrics.every=1",
)


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What both are typed with: MNIST is where data_root says."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
    write_mnist(tmp_path / "data")
    return (*SMALL, f"data_root={tmp_path / 'data'}")


def assert_trained(run: Path, steps: int) -> None:
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["step"]) == ("finished", steps)
    assert [line["step"] for line in lines(run, "train")] == list(range(1, steps + 1))
    assert (run / f"samples/step_{steps:08}.png").is_file()


def test_the_first_gan_trains_from_mnists_files(
    tmp_path: Path, typed: tuple[str, ...], crgan: Crgan
) -> None:
    run = tmp_path / "run"
    code, _, said = crgan("train", "experiment=vanilla_mnist", *typed, "steps=2", f"out={run}")
    assert code == 0, said
    assert_trained(run, 2)


def test_the_first_conditional_gan_resumed_is_one_that_never_stopped(
    tmp_path: Path, typed: tuple[str, ...], crgan: Crgan
) -> None:
    words = ("train", "experiment=cgan_mnist", *typed)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    code, _, said = crgan(*words, "steps=2", f"out={whole}")
    assert code == 0, said
    assert crgan(*words, "steps=1", f"out={parted}")[0] == 0
    code, _, said = crgan("train", "--from", str(parted), "steps=2")
    assert code == 0, said
    for run in (whole, parted):
        assert_trained(run, 2)
    assert not different(*(run / "checkpoints/step_00000002.pt" for run in (whole, parted)))
    assert lines(whole, "eval") == lines(parted, "eval")
    assert len(lines(whole, "eval")) == 2
