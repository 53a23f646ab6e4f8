"""Perceptual path length by hand."""

import math

import pytest
import torch
from support.averages import Averages
from torch import Tensor, nn

from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.perceptual_path import PerceptualPathLength, path_length
from crgan_cli.evaluation.sampler import EvalSampler, move
from crgan_cli.gan.tasks.generation import Prior

CPU = torch.device("cpu")


class Ramp(nn.Module):
    """All pixels of channel c are slope * z_c: a step of the latents moves the features alike."""

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return (0.1 * z)[:, :3, None, None].expand(-1, -1, 8, 8)


def evaluator(n: int = 50) -> Evaluator:
    made = Evaluator(
        Averages(),
        measures=["fid", "ppl"],
        reference="test",
        num_samples=n,
        num_real=None,
        repeats=1,
        rounding="uint8",
        weights="auto",
        batch_norm="running",
        truncation=None,
        floor=False,
        reference_file=None,
        batch_size=20,
        every=1,
    )
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=random, dtype=torch.uint8)
    made.prepare_images("noise", Images(x, torch.zeros(n, dtype=torch.int64)))
    return made


def test_the_number_is_the_squared_speed_of_the_features() -> None:
    """A uniform prior is walked straight: z by eps (z2 - z1), a feature 12.75 times as far."""
    made, prior = evaluator(), Prior("uniform", 3, 0)
    sampler = EvalSampler(made.protocol, prior, 1, CPU)
    with sampler.images(Ramp()) as fakes:
        values = made(fakes)
    before, after = (each.latents.z.double() for each in sampler.steps)  # type: ignore[attr-defined]
    speeds = ((after - before) / 1e-4 * 0.1 * 127.5).square().sum(1)
    assert values["ppl_averages_n50"] == pytest.approx(speeds.mean().item(), rel=0.05)


def test_one_percent_is_left_out_at_each_end() -> None:
    before = torch.zeros(200, 1)
    after = 1e-4 * torch.arange(200).double()[:, None]
    kept = [float(i) ** 2 for i in range(2, 198)]
    assert path_length(before.double(), after) == pytest.approx(sum(kept) / len(kept))


def test_a_normal_prior_is_walked_along_the_circle() -> None:
    start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    third = move(start, end, torch.tensor([[1 / 3]]), "normal")
    assert third.tolist()[0] == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])
    assert move(start, end, torch.tensor([[1 / 4]]), "uniform").tolist() == [[0.75, 0.25]]


def test_images_without_latents_are_refused() -> None:
    made = evaluator()
    fakes = Fakes(lambda start, n: torch.zeros(n, 3, 8, 8))
    with pytest.raises(UserError, match=r"ppl moves the latents.*remove it"):
        made(fakes)
    assert PerceptualPathLength.required == {"steps"}
