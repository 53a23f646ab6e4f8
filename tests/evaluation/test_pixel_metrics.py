"""Metrics of pixels, from the settings to the names of their numbers: no network is needed."""

import json
from pathlib import Path

import pytest
import torch
from support.averages import Averages
from support.evaluators import make_evaluator
from support.runs import Crgan, lines, refused, tiny, without_measuring
from torch import Tensor

from crgan_cli.commands import main
from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import UserError
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.extractors import Extractor, NoExtractor
from crgan_cli.evaluation.metrics.ms_ssim import mean_similarity
from crgan_cli.evaluation.metrics.sliced_wasserstein import sliced_wasserstein

N = 20


def noise(n: int, seed: int, channels: int = 3, side: int = 32) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, channels, side, side), generator=random)
    return (x // (1 + seed)).to(torch.uint8)


def evaluator(extractor: Extractor | None = None, **changes: object) -> Evaluator:
    settings = {"measures": ["swd", "ms_ssim"], "num_samples": N, "every": 1}
    fewer = {"swd_directions": 20, "ms_ssim_pairs": 30}
    return make_evaluator(extractor or NoExtractor(), **(settings | fewer | changes))


def images(x: Tensor) -> Images:
    return Images(x, torch.zeros(len(x), dtype=torch.int64))


def score(made: Evaluator, real: Tensor, fake: Tensor, others: Tensor | None = None) -> dict:
    made.prepare_images("noise", images(real), None if others is None else images(others))
    return made(Fakes(lambda start, n: to_float(fake[start : start + n])))


def thousandfold(distances: dict[int, float]) -> dict[str, float]:
    levels = {f"_{side}": 1000 * each for side, each in distances.items()}
    return {"": sum(levels.values()) / len(levels), **levels}


@pytest.mark.parametrize("channels", [1, 3])
def test_names_say_how_many_images_and_no_extractor(channels: int) -> None:
    real, fake, others = (noise(N, seed, channels) for seed in range(3))
    made = evaluator(floor=True)
    values = score(made, real, fake, others)
    apart = thousandfold(sliced_wasserstein(real, fake, directions=20))
    floor = thousandfold(sliced_wasserstein(real, others, directions=20))
    assert values == {
        **{f"swd{level}_n{N}": value for level, value in apart.items()},
        **{f"swd{level}_n{N}_floor": value for level, value in floor.items()},
        f"ms_ssim_n{N}": mean_similarity(fake, 30),
        f"ms_ssim_n{N}_real": mean_similarity(real, 30),
    }
    assert made.headline == f"swd_n{N}"
    assert (made.describe()["extractor"], made.describe()["resize"]) == ("none", "none")


@pytest.mark.parametrize("rounding", ["uint8", "none"])
def test_the_batch_size_changes_no_bit(rounding: str) -> None:
    real, fake = noise(N, 0), noise(N, 1)
    one, other = (evaluator(rounding=rounding, batch_size=size) for size in (3, N))
    assert score(one, real, fake) == score(other, real, fake)


def test_several_sets_have_a_mean_and_a_deviation() -> None:
    real, fake = noise(N, 0), noise(2 * N, 1)
    values = score(evaluator(repeats=2), real, fake)
    each = [score(evaluator(), real, part)[f"swd_n{N}"] for part in fake.split(N)]
    assert values[f"swd_n{N}"] == pytest.approx(sum(each) / 2)
    assert values[f"swd_n{N}_sd"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)


def test_they_stand_next_to_distances_of_features() -> None:
    real, fake = noise(N, 0), noise(N, 1)
    alone = score(evaluator(), real, fake)
    beside = score(evaluator(Averages(), measures=["fid", "kid", "ms_ssim", "swd"]), real, fake)
    assert beside.items() > alone.items()
    assert set(beside) - set(alone) == {f"fd_averages_n{N}", f"kid_averages_n{N}"}


def test_a_run_needs_no_weights_and_keeps_its_best(tmp_path: Path, crgan: Crgan) -> None:
    out = tmp_path / "run"
    few = ("metrics.num_samples=6", "metrics.swd_directions=4", "metrics.ms_ssim_pairs=5")
    typed = [*without_measuring(tiny("steps=2")), "metrics=pggan_small", *few]
    assert main.run_command(["train", *typed, "metrics.every=1", f"out={out}"]) == 0
    result = json.loads((out / "result.json").read_text())
    names = [f"{key}_n6" for key in ("swd", "swd_32", "swd_16")]
    expected = {*names, *(f"{name}_floor" for name in names), "ms_ssim_n6", "ms_ssim_n6_real"}
    assert set(result["last"]) == {"step", *expected}
    assert result["best"][names[0]] == min(line[names[0]] for line in lines(out, "eval"))
    assert result["protocol"]["measures"]["swd_directions"] == 4
    refused(crgan("eval", out, "metrics.measures=[swd,kid]"), "kid compares features", "extractor=")
    refused(crgan("artefacts", out, "memorisation"), "extractor=none has no features")


@pytest.mark.parametrize(
    ("side", "measures", "said"),
    [
        (15, ["swd"], r"swd needs images of at least 16 x 16 pixels.* 15 x 15"),
        (8, ["kid", "ms_ssim"], r"ms_ssim needs images of at least 16 x 16 pixels.* 8 x 8"),
    ],
)
def test_images_below_16_pixels_are_refused(side: int, measures: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        score(evaluator(Averages(), measures=measures), noise(N, 0, 3, side), noise(N, 1, 3, side))


def test_what_cannot_be_measured_is_refused_with_what_to_type() -> None:
    with pytest.raises(UserError, match=r"fid compares features, and extractor=none has none"):
        evaluator(measures=["swd", "fid"])
    with pytest.raises(UserError, match=r"measures=\[ms_ssim\] has no distance.*swd"):
        evaluator(measures=["ms_ssim"])
    with pytest.raises(UserError, match=r"ms_ssim needs 2, a pair"):
        evaluator(num_samples=1)
    with pytest.raises(UserError, match=r"images with 1 or 3 channels"):
        score(evaluator(), noise(N, 0, 4), noise(N, 1, 4))
