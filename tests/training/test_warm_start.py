"""A run that starts from the networks of another one: what it takes, keeps and refuses."""

import hashlib
from pathlib import Path

import pytest
import torch
from support.runs import different, tiny, unmeasured
from torch import Tensor, nn

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.gan.build import build_networks, build_task
from crgan_cli.runs import checkpoint
from crgan_cli.system.digest import LENGTH
from crgan_cli.training.start import train_run
from crgan_cli.training.warm_start import WarmStart, freeze_layers, has_weight

QUICK = ("samples.every=100", "ema.decay=0.5", "steps=2")
BIGGAN = (*QUICK, "architecture=biggan_lite", "architecture.conditional=true")
STILL = ("optimizer.lr_g=1e-30", "optimizer.lr_d=1e-30")


def train(out: Path, *words: str) -> None:
    """A tiny run without metrics."""
    typed = unmeasured(tiny(f"out={out}", *words))
    train_run(compose(typed), typed, {}, None)


def state(run: Path, name: str = "task", step: int = 2) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    return checkpoint.load(run / f"checkpoints/step_{step:08d}.pt")["states"][name]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run on the demo's ten classes, with an average of G."""
    out = tmp_path_factory.mktemp("source")
    train(out, *BIGGAN)
    return out


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without batch statistics and spectral norm's vectors, which change in any turn."""
    ends = ("running_mean", "running_var", "num_batches_tracked", ".u", ".v")
    return {key: x for key, x in tensors.items() if not key.endswith(ends)}


def test_all_weights_and_the_average_are_those_of_the_other_run(
    source: Path, tmp_path: Path
) -> None:
    train(tmp_path / "run", *BIGGAN, *STILL, "ema.decay=0.9999999", "seed=5", f"init_from={source}")
    for name in ("task", "ema"):
        before, now = (weights(state(run, name)) for run in (source, tmp_path / "run"))
        assert before.keys() == now.keys()
        for key, value in before.items():
            assert now[key].allclose(value, rtol=0, atol=1e-6), key
    assert not all(
        value.allclose(weights(state(source))[f"G.{key}"], rtol=0, atol=1e-4)
        for key, value in weights(state(source, "ema")).items()
    ), "an average that is G itself would show nothing"
    origin = checkpoint.load(tmp_path / "run/checkpoints/step_00000002.pt")["provenance"]
    assert origin["init_from"].startswith(f"{source}/checkpoints/step_00000002.pt, step 2, SHA-256")


def test_the_origin_is_the_file_that_was_read_whatever_is_in_its_place_now(
    source: Path, tmp_path: Path
) -> None:
    with_digest = (source / "checkpoints/step_00000002.pt").read_bytes()
    for content in (with_digest, with_digest[:-LENGTH]):  # as before checkpoints ended with one
        file = tmp_path / "best.pt"
        file.write_bytes(content)
        warm = WarmStart(str(file))
        file.unlink()  # by the run that still trains
        assert warm.describe() == f"{file}, step 2, SHA-256 {hashlib.sha256(content).hexdigest()}"


def test_other_classes_start_anew_and_are_named(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    three = ("dataset.only_classes=[dress,coat,bag]", "dataset.classes=3")
    train(tmp_path / "run", *BIGGAN, *STILL, *three, f"init_from={source}")
    before, now = (weights(state(run)) for run in (source, tmp_path / "run"))
    unequal = {key for key, x in now.items() if x.shape != before[key].shape}
    assert {now[key].shape[0] for key in unequal} == {3}
    assert all(x.equal(before[key]) for key, x in now.items() if key not in unequal)
    assert [line for line in caplog.messages if line.startswith("  new: G.")] == [
        f"  new: {key} {tuple(now[key].shape)}, {tuple(before[key].shape)} there"
        for key in sorted(unequal)
        if key.startswith("G.")
    ]


def test_frozen_layers_stay_and_the_others_learn(source: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", *BIGGAN, "freeze_d=2", f"init_from={source}")
    before, now = (weights(state(run)) for run in (source, tmp_path / "run"))
    of_d = [key for key in now if key.startswith("adversary.D.") and "parametrizations" in key]
    assert [now[key].equal(before[key]) for key in of_d] == [True] * 2 + [False] * (len(of_d) - 2)


def test_a_frozen_run_resumes_bit_by_bit_without_the_other_one(
    source: Path, tmp_path: Path
) -> None:
    gone = source.rename(source.with_name("moved"))
    try:
        words = (*BIGGAN, "steps=4", "checkpoint.every=2", "freeze_d=2", f"init_from={gone}")
        train(tmp_path / "whole", *words)
        train(tmp_path / "run", *words)
        (tmp_path / "run/checkpoints/step_00000004.pt").unlink()
        (tmp_path / "run/result.json").unlink()
        gone.rename(source)
        train(tmp_path / "run", *words)
    finally:
        if gone.exists():
            gone.rename(source)
    last = "checkpoints/step_00000004.pt"
    assert different(tmp_path / "run" / last, tmp_path / "whole" / last) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init_from=gone"], "/gone. Give a checkpoint (.pt) or a run folder"),
        (["init_from={}", "architecture=sndcgan"], "of this run: it was trained with BigGAN"),
        (["init_from={}", "freeze_d=99"], "freeze_d=99 leaves nothing to learn"),
        (["freeze_d=1"], "freeze_d=1 keeps layers as another run trained them: give init_from="),
        (["freeze_d=-1"], "freeze_d"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    words: list[str], said: str, source: Path, tmp_path: Path
) -> None:
    given = [word.format(source) for word in words]
    architecture = QUICK if "architecture=sndcgan" in words else BIGGAN
    with pytest.raises(UserError) as caught:
        train(tmp_path / "run", *architecture, *given)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["architecture=sndcgan"], r"adversary\.D\.layers\.0\.bias is not there in this shape"),
        (["experiment=demo_pggan", "architecture.fmap_max=8"], "a network that grows has first"),
    ],
)
def test_only_layers_that_were_taken_and_see_the_image_are_frozen(
    words: list[str], said: str, source: Path
) -> None:
    config = compose([*words, *(["architecture.width=0.02"] if len(words) == 1 else [])])
    task = build_task(config, build_networks(config))
    with pytest.raises(UserError, match=said):
        freeze_layers(task, 2, WarmStart(str(source)))
    assert all(parameter.requires_grad for parameter in task.parameters())


def test_a_layer_is_what_has_a_weight_of_two_axes() -> None:
    layers = [nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.Embedding(2, 2), nn.BatchNorm2d(1), nn.ReLU()]
    assert [has_weight(layer) for layer in layers] == [True, True, True, False, False]
    assert has_weight(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)))
    assert torch.is_tensor(layers[0].weight)
