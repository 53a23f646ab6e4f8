"""The averaged generator, by hand."""

import pytest
import torch
from support.runs import train
from support.tiny import TinyGenerator
from torch import nn

from crgan_cli.config.compose import compose
from crgan_cli.gan.build import build_networks
from crgan_cli.training.ema import EMA
from crgan_cli.training.hooks import DrawSamples, Evaluate
from crgan_cli.training.trainer import Trainer


def net(weight: float, seen: float = 0.0) -> nn.Module:
    """One parameter and one buffer."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([weight]))
    module.register_buffer("seen", torch.tensor([seen]))
    return module


def set_to(module: nn.Module, weight: float, seen: float) -> None:
    with torch.no_grad():
        module.weight.fill_(weight)
        module.seen.fill_(seen)


def test_an_update_by_hand() -> None:
    G = net(1.0)
    ema = EMA(G, decay=0.9, start=0)
    set_to(G, 2.0, 5.0)
    ema.update(G, ema.lerp_weight(1))
    assert ema.G.weight.item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
    set_to(G, -1.0, 7.0)
    ema.update(G, ema.lerp_weight(2))
    assert ema.G.weight.item() == pytest.approx(0.9 * 1.1 + 0.1 * -1.0)


def test_buffers_are_copied_and_not_averaged() -> None:
    G = net(1.0, seen=0.0)
    ema = EMA(G, decay=0.9, start=0)
    set_to(G, 2.0, 5.0)
    ema.update(G, ema.lerp_weight(1))
    assert ema.G.seen.item() == 5.0


def test_until_its_start_the_average_is_the_generator_itself() -> None:
    G = net(1.0)
    ema = EMA(G, decay=0.9, start=3)
    for step, weight in enumerate((2.0, 3.0, 4.0), start=1):
        set_to(G, weight, 0.0)
        ema.update(G, ema.lerp_weight(step))
        assert ema.G.weight.item() == weight
    set_to(G, 5.0, 0.0)
    ema.update(G, ema.lerp_weight(4))
    assert ema.G.weight.item() == pytest.approx(0.9 * 4.0 + 0.1 * 5.0)


def test_the_generator_itself_is_untouched_and_shares_nothing() -> None:
    G = TinyGenerator()
    before = {name: each.clone() for name, each in G.state_dict().items()}
    ema = EMA(G, decay=0.5, start=0)
    assert not any(p.requires_grad for p in ema.G.parameters())
    assert all(p.requires_grad for p in G.parameters())
    with torch.no_grad():
        for p in ema.G.parameters():
            p.add_(1.0)
    ema.update(G, ema.lerp_weight(1))
    assert all(torch.equal(each, before[name]) for name, each in G.state_dict().items())


@pytest.mark.parametrize("name", ["dcgan", "resnet", "resnet_sngan", "sndcgan", "biggan_lite"])
def test_every_parameter_and_buffer_of_the_networks_is_followed(name: str) -> None:
    """Spectral norm's parametrizations, batch statistics and shared embeddings included."""
    G = build_networks(compose([f"architecture={name}", "architecture.width=0.02"])).G
    ema = EMA(G, decay=0.75, start=0)
    old = {name: each.clone() for name, each in ema.G.named_parameters()}
    with torch.no_grad():
        for p in G.parameters():
            p.add_(torch.randn_like(p))
        for buffer in G.buffers():
            buffer.add_(1)
    ema.update(G, ema.lerp_weight(1))
    new = dict(G.named_parameters())
    for key, average in ema.G.named_parameters():
        torch.testing.assert_close(average, 0.75 * old[key] + 0.25 * new[key])
    for one, other in zip(ema.G.buffers(), G.buffers(), strict=True):
        assert torch.equal(one, other)


def test_its_state_comes_back() -> None:
    G = net(1.0, seen=2.0)
    ema, other = EMA(G, 0.9, 0), EMA(net(0.0), 0.9, 0)
    other.load_state_dict(ema.state_dict())
    assert (other.G.weight.item(), other.G.seen.item()) == (1.0, 2.0)


@pytest.mark.parametrize("decay", ["0.5", "null"])
def test_samples_and_metrics_are_drawn_from_the_average(
    decay: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def watched(hook: type) -> None:
        original = hook.__call__

        def call(self, trainer: Trainer, check) -> None:
            average = trainer.ema.G if trainer.ema else trainer.task.G
            uses: list[bool] = []
            handle = average.register_forward_hook(lambda *_: uses.append(True))
            own = trainer.task.G.register_forward_hook(lambda *_: uses.append(False))
            original(self, trainer, check)
            handle.remove()
            own.remove()
            judged.append((hook.__name__, set(uses)))

        monkeypatch.setattr(hook, "__call__", call)

    watched(DrawSamples)
    watched(Evaluate)
    train(tmp_path, f"ema.decay={decay}", "steps=3", "metrics.num_samples=4")
    expected = {True} if decay != "null" else {True, False}  # both hooks are then on the same G
    assert judged == [("DrawSamples", expected), ("Evaluate", expected)]
