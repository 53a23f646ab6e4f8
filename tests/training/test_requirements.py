"""What a run needs is asked before anything is decoded, downloaded or allocated."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from support.runs import Crgan, refused, tiny, unmeasured

from crgan_cli.config.compose import compose
from crgan_cli.data import decoding, embedded
from crgan_cli.data.standard import TorchvisionDataset
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.gan import build
from crgan_cli.gan.stages import Stages
from crgan_cli.system import memory
from crgan_cli.training import trainer
from crgan_cli.training.costs import count_weights
from crgan_cli.training.requirements import require_batches, require_enough_memory

PLAIN = ("dataset.fraction=1", "regularizer=none")


@pytest.fixture
def nothing_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs time or memory fails."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("too early for this")

    monkeypatch.setattr(decoding, "_decode_all", fail)
    monkeypatch.setattr(embedded, "read_tiles", fail)
    monkeypatch.setattr(TorchvisionDataset, "_download_if_missing", fail)
    monkeypatch.setattr(load, "build_evaluator", fail)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty images, in two folders."""
    for number in range(20):
        file = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(file)
    return tmp_path / "pictures"


@pytest.mark.usefixtures("nothing_costly")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset.resolution=50"], "dataset.resolution is 50, but architecture=sndcgan works at"),
        (["dataset.root=/no/where"], "There is nothing at /no/where"),
        (["batch_size=19"], "A batch of 19 images cannot be drawn from a training set of 18"),
        (["metrics.num_samples=3"], "num_samples=3 is more than the 2 images of the split test"),
        (
            ["metrics.num_samples=21", "metrics.reference=all"],
            "num_samples=21 is more than the 20 images of the split all",
        ),
        (["regularizer=cr", "augment=cutout", "augment.size=40"], "augment.size=40"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_a_folder_is_not_decoded_for_what_its_files_cannot_be(
    words: list[str], said: str, pictures: Path, crgan: Crgan
) -> None:
    folder = ("dataset=folder", f"dataset.root={pictures}", "dataset.channels=1")
    typed = tiny(*folder, "metrics=demo", "dataset.resolution=32", "metrics.num_samples=2", *PLAIN)
    refused(crgan("train", *typed, "out=run", *words), said)
    assert not Path("run").exists()


@pytest.mark.usefixtures("nothing_costly")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["architecture.width=1e9"], "Lower architecture.width, architecture.z_dim or"),
        (["architecture.width=200"], "gradients and moments), and this machine has"),
        (["batch_size=1000000000"], "Lower batch_size or dataset.resolution."),
        (["optimizer.n_dis=1000000000"], "n_dis must be a whole number from 1 to 1000, not"),
        (["samples.num=1000000000"], "Lower samples.num."),
        (["metrics.repeats=1000000000"], "Lower metrics.num_samples or metrics.repeats."),
        (["dataset=cifar10", "metrics.num_samples=10001"], "than the 10000 images of the split"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)
def test_what_no_machine_can_train_allocates_nothing(
    words: list[str], said: str, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 64 * 2**30)
    refused(crgan("train", *tiny("metrics=demo", *PLAIN), "out=run", *words), said)
    assert not Path("run").exists()


def test_the_bytes_are_those_of_the_weights_their_gradients_and_the_moments_of_adam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose(unmeasured(tiny("ema.decay=0.5", "samples.num=1", "batch_size=1")))
    networks = build.build_networks(config)
    g, d = (sum(x.numel() for x in each.parameters()) for each in networks)
    assert count_weights(config) == (g, d)
    largest = 4 * (g + d + g + 2 * (g + d) + max(g, d))  # the average, the moments, the gradients
    image, z = 4 * 32 * 32, 4 * 128
    cpu, stages = torch.device("cpu"), Stages.from_settings(config)
    monkeypatch.setattr(memory, "total_memory", lambda device: largest + 2 * image + z)
    require_enough_memory(config, stages, cpu, 2)
    monkeypatch.setattr(memory, "total_memory", lambda device: largest + 2 * image + z - 1)
    with pytest.raises(ValueError, match=r"^batch_size=1 needs at least"):
        require_enough_memory(config, stages, cpu, 2)
    monkeypatch.setattr(memory, "total_memory", lambda device: largest - 1)
    with pytest.raises(ValueError, match=r"^training these networks needs at least"):
        require_enough_memory(config, stages, cpu, 2)


def test_a_run_that_finds_no_memory_names_what_to_lower(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 3221225472 bytes. Error code 12"
        )

    monkeypatch.setattr(trainer.Trainer, "fit", fail)
    code, _, err = crgan("train", *unmeasured(tiny()), "out=run")
    assert code == 1
    assert "failed: there is not enough memory (it asked for 3.00 GiB at once). Free what" in err
    assert "and a smaller batch_size, architecture.width, dataset.resolution" in err
    assert "Traceback" not in err
    assert "there is not enough memory" in Path("run/result.json").read_text()


def test_fewer_steps_than_a_run_has_are_refused_before_a_checkpoint_is_read(
    plain: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain / "checkpoints").mkdir(exist_ok=True)
    later = plain / "checkpoints/step_00000050.pt"
    later.write_bytes(b"not read")
    try:
        monkeypatch.setattr("crgan_cli.training.start.train_run", None)
        answer = crgan("train", "--from", plain, "steps=20")
    finally:
        later.unlink()
    refused(answer, "has 50 steps already, and steps=20", f"--from {plain} steps=100")


@pytest.mark.parametrize(
    ("words", "sizes", "said"),
    [
        ([], {"real": (3,)}, r"a training set of 3\. Type batch_size=3\.$"),
        (["dataset.fraction=0.5"], {"real": (3,)}, r"batch_size=3, or raise dataset\.fraction\.$"),
        (
            ["dataset=demo_domains"],
            {"a": (9,), "b": (2,)},
            r"set of 2 \(b\)\. Type batch_size=2\.$",
        ),
        (["dataset=demo_joint"], {"real": (9, 3)}, r"set of 3 \(tops\)\. Type batch_size=3\.$"),
    ],
)
def test_a_batch_that_cannot_be_drawn_is_told_from_which_set(
    words: list[str], sizes: dict[str, tuple[int, ...]], said: str
) -> None:
    config = compose(["batch_size=4", *words])
    with pytest.raises(UserError, match=said):
        require_batches(config, Stages.from_settings(config), sizes)
