"""What a protocol draws, and that the generator and everything random is left as it was."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from crgan_cli.errors import RunFailed
from crgan_cli.evaluation import sampler
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.evaluation.sampler import EvalSampler, Sampler, eval_mode, sample_latents
from crgan_cli.evaluation.translation import as_rgb
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.runs.loggers.base import to_pixels

CPU = torch.device("cpu")
PRIOR = Prior("normal", 3, 0)
BATCHES = 5


@pytest.fixture(autouse=True)
def few_standing_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "STANDING_BATCHES", BATCHES)


def by(batch_norm: str, *, truncation: float | None = None, repeats: int = 1) -> Protocol:
    return Protocol("test", 8, 8, repeats, "uint8", "auto", batch_norm, truncation, batch_size=4)


class Normed(nn.Module):
    """Linear, batch norm with a memory of its own, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.linear = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4, momentum=0.3)
            self.dropout = nn.Dropout()
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)
            self.norm.running_mean = torch.randn(4)
            self.norm.running_var = torch.rand(4) + 0.5
            self.norm.num_batches_tracked = torch.tensor(17)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.dropout(self.norm(self.linear(z))).view(-1, 1, 2, 2)

    def by_hand(self, z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The images with these statistics."""
        standard = (self.linear(z) - mean) / (variance + self.norm.eps).sqrt()
        return (standard * self.norm.weight + self.norm.bias).view(-1, 1, 2, 2)


class State(NamedTuple):
    """All that drawing could leave changed."""

    tensors: dict[str, Tensor]
    momentum: float | None
    modes: list[bool]


def state_of(G: Normed) -> State:
    modes = [layer.training for layer in G.modules()]
    return State(copy.deepcopy(G.state_dict()), G.norm.momentum, modes)


def assert_same(one: State, other: State) -> None:
    assert one.momentum == other.momentum
    assert one.modes == other.modes
    assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


def drawn(G: Normed, protocol: Protocol, *starts: int) -> Tensor:
    with EvalSampler(protocol, PRIOR, 5, CPU).images(G) as fakes:
        return torch.cat([fakes.draw(start, 4) for start in starts])


def latents(n: int, seed: int = 5) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_running_statistics_are_those_of_training() -> None:
    G = Normed()
    mean, variance = G.norm.running_mean, G.norm.running_var
    assert mean is not None
    assert variance is not None
    expected = G.by_hand(latents(8), mean, variance)
    torch.testing.assert_close(drawn(G, by("running"), 0, 4), expected)


@torch.no_grad()
def test_batch_statistics_are_those_of_the_images_drawn_together() -> None:
    G = Normed()
    expected = [
        G.by_hand(z, G.linear(z).mean(0), G.linear(z).var(0, correction=0))
        for z in latents(8).split(4)
    ]
    torch.testing.assert_close(drawn(G, by("batch"), 0, 4), torch.cat(expected))


@torch.no_grad()
def test_standing_statistics_are_the_plain_mean_over_batches_of_other_latents() -> None:
    """Brock et al. 2019 (arXiv:1809.11096) C.1; the variance is unbiased, as in torch's running."""
    G = Normed()
    batches = [G.linear(z) for z in latents(BATCHES * 4, seed=6).split(4)]
    mean = torch.stack([h.mean(0) for h in batches]).mean(0)
    variance = torch.stack([h.var(0) for h in batches]).mean(0)
    expected = G.by_hand(latents(8), mean, variance)
    torch.testing.assert_close(drawn(G, by("standing"), 0, 4), expected)
    # and so an image does not depend on those it is drawn with
    torch.testing.assert_close(drawn(G, by("standing"), 4), expected[4:])


@pytest.mark.parametrize("batch_norm", ["running", "batch", "standing"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_generator_is_put_back_as_it_was(batch_norm: str, fails: bool) -> None:
    G = Normed().train()
    G.dropout.eval()  # a mode of its own
    G.linear.weight.grad = torch.ones_like(G.linear.weight)
    before = state_of(G)
    scored = EvalSampler(by(batch_norm), PRIOR, 5, CPU)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)

    def draw() -> None:
        with scored.images(G) as fakes:
            fakes.draw(0, 4)
            torch.rand(9)
            assert G.norm.training == (batch_norm == "batch")
            assert not torch.is_grad_enabled()
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            draw()
    else:
        draw()
    assert_same(before, state_of(G))
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(G.linear.weight.grad, torch.ones_like(G.linear.weight))


def test_a_generator_that_fails_while_statistics_are_taken_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    G = Normed().train()
    before = state_of(G)
    calls = []

    def forward(z: Tensor, y: Tensor | None) -> Tensor:
        calls.append(len(z))
        if len(calls) == 3:
            raise KeyError
        return Normed.forward(G, z, y)

    monkeypatch.setattr(G, "forward", forward)
    with pytest.raises(KeyError):
        drawn(G, by("standing"), 0)
    assert calls == [4, 4, 4]
    assert_same(before, state_of(G))


@pytest.mark.parametrize("batch_norm", ["running", "batch", "standing"])
def test_the_images_of_a_protocol_are_the_same_each_time(batch_norm: str) -> None:
    G = Normed()
    scored = EvalSampler(by(batch_norm), PRIOR, 5, CPU)
    with scored.images(G) as fakes:
        once = fakes.draw(0, 4)
    torch.rand(5)
    with scored.images(G) as fakes:
        assert torch.equal(fakes.draw(0, 4), once)
    assert torch.equal(drawn(G, by(batch_norm), 0), once)


def test_latents_are_truncated_in_every_set_and_for_the_statistics() -> None:
    scored = EvalSampler(by("standing", truncation=0.5, repeats=3), PRIOR, 5, CPU)
    assert scored.standing is not None
    for part, n in ((scored.source, 3 * 8), (scored.standing, BATCHES * 4)):
        assert isinstance(part, Sampler)
        assert part.latents.z.shape == (n, 3)
        assert 0.4 < part.latents.z.abs().max() <= 0.5
    whole = EvalSampler(by("standing"), PRIOR, 5, CPU)
    assert isinstance(whole.source, Sampler)
    assert isinstance(scored.source, Sampler)
    assert whole.source.latents.z.abs().max() > 0.5
    assert not torch.equal(whole.source.latents.z[:4], scored.source.latents.z[:4])


def test_labels_are_random_unless_they_are_given() -> None:
    prior = Prior("uniform", 3, 4)
    drawn_labels = sample_latents(prior, 200, seed=0).y
    assert drawn_labels is not None
    assert set(drawn_labels.tolist()) == {0, 1, 2, 3}
    given = torch.zeros(200, dtype=torch.long)
    assert sample_latents(prior, 200, seed=0, labels=given).y is given
    assert sample_latents(PRIOR, 200, seed=0, labels=given).y is None


def test_drawing_leaves_modes_and_random_numbers_as_they_were() -> None:
    outer = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Dropout())
    outer[1].eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    def draw_and_fail() -> None:
        assert not any(layer.training for layer in outer.modules())
        assert not torch.is_grad_enabled()
        torch.rand(7)
        raise KeyError

    with pytest.raises(KeyError), eval_mode(outer):
        draw_and_fail()
    assert torch.equal(torch.rand(3), expected)
    assert [layer.training for layer in outer.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_images_that_are_not_finite_are_never_drawn_black() -> None:
    G = Normed()
    with torch.no_grad():
        G.linear.weight[0, 0] = float("nan")
    drawn = sampler.Sampler(sample_latents(PRIOR, 4, 1), CPU)
    with eval_mode(G), pytest.raises(RunFailed, match="images are not finite numbers"):
        drawn.draw(G, 0, 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grid_has_three_channels_as_loggers_expect(channels: int) -> None:
    images = torch.linspace(-1, 1, channels)[:, None, None].expand(2, -1, 4, 4)
    grid = sampler.make_grid(as_rgb(images), 1)
    first = sampler.to_uint8(images)[0, :, 0, 0].tolist()
    wanted = first[:3] if channels >= 3 else first[:1] * 3  # alpha is left out, grey repeated
    assert to_pixels(grid)[sampler.MARGIN, sampler.MARGIN].tolist() == wanted
