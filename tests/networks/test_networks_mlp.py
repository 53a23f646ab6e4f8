"""The fully connected networks: formulas, labels, dropout, penalties and costs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.config.build import build_group
from crgan_cli.config.compose import compose
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import NonSaturating
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty
from crgan_cli.gan.scoring import mixes_samples, score
from crgan_cli.gan.types import Batch
from crgan_cli.networks.layers import RowDropout
from crgan_cli.networks.mlp import LabelCode
from crgan_cli.networks.mlp_maxout import Maxout
from crgan_cli.system.distributed.world import World, as_world
from crgan_cli.training import costs

Players = dict[str, nn.Module]


def build(name: str, *words: str) -> Players:
    """Small networks in float64 for 7x7 grey images of 3 classes, with lively weights."""
    facts = ["dataset.resolution=7", "dataset.channels=1", "dataset.classes=3"]
    config = compose([f"architecture={name}", "architecture.width=0.05", *facts, *words])
    nets = build_group(config.architecture)
    for net in nets.values():
        for parameter in net.double().parameters():
            nn.init.normal_(parameter, std=0.5)
    return nets


Z = torch.linspace(-1, 1, 400, dtype=torch.float64).view(4, 100)
X = torch.linspace(-1, 1, 4 * 49, dtype=torch.float64).sin().view(4, 1, 7, 7)
Y = torch.tensor([2, 0, 1, 2])
ONE_HOT = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()


def linear_layers(net: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """W h + b of each layer, in order."""
    weights = [m for m in net.modules() if isinstance(m, nn.Linear)]
    return [lambda h, m=m: h @ m.weight.T + m.bias for m in weights]


def maxout(h: Tensor, pieces: int) -> Tensor:
    groups = [h[:, i : i + pieces] for i in range(0, h.shape[1], pieces)]
    return torch.stack([group.amax(1) for group in groups], dim=1)


@pytest.mark.parametrize("conditional", [False, True])
def test_mlp_is_pytorch_gans_with_the_usual_epsilon(conditional: bool) -> None:
    nets = build("mlp", f"architecture.conditional={conditional}".lower())
    h = torch.cat([Z, ONE_HOT], 1) if conditional else Z
    norms = [m for m in nets["generator"].modules() if isinstance(m, nn.BatchNorm1d)]
    *hidden, last = linear_layers(nets["generator"])
    assert (len(hidden), len(norms)) == (4, 3)
    for index, layer in enumerate(hidden):
        h = layer(h)
        if index:
            norm = norms[index - 1]
            h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
        h = F.leaky_relu(h, 0.2)
    fake = nets["generator"](Z, Y if conditional else None)
    torch.testing.assert_close(fake, last(h).tanh().view(4, 1, 7, 7))

    h = torch.cat([X.flatten(1), ONE_HOT], 1) if conditional else X.flatten(1)
    *hidden, last = linear_layers(nets["discriminator"])
    assert len(hidden) == 2
    for layer in hidden:
        h = F.leaky_relu(layer(h), 0.2)
    logits = nets["discriminator"](X, Y if conditional else None)
    torch.testing.assert_close(logits, last(h)[:, 0])


def test_mlp_maxout_is_goodfellows() -> None:
    nets = build("mlp_maxout")
    a, b, c = linear_layers(nets["generator"])
    image = torch.sigmoid(c(F.relu(b(F.relu(a(Z * 3**0.5))))))  # in [0, 1]
    torch.testing.assert_close(nets["generator"](Z, None), 2 * image.view(4, 1, 7, 7) - 1)
    a, b, c = linear_layers(nets["discriminator"])
    h = maxout(b(maxout(a((X.flatten(1) + 1) / 2), 5)), 5)
    assert h.shape == (4, 12)
    torch.testing.assert_close(nets["discriminator"].eval()(X, None), c(h)[:, 0])


def test_conditional_mlp_maxout_is_mirza_and_osinderos() -> None:
    nets = build("mlp_maxout", "architecture.conditional=true")
    from_z, from_y, b, c = linear_layers(nets["generator"])
    h = torch.cat([F.relu(from_z(Z * 3**0.5)), F.relu(from_y(ONE_HOT))], 1)
    assert h.shape == (4, 10 + 50)
    image = torch.sigmoid(c(F.relu(b(h))))
    torch.testing.assert_close(nets["generator"](Z, Y), 2 * image.view(4, 1, 7, 7) - 1)
    from_x, from_y, b, c = linear_layers(nets["discriminator"])
    h = torch.cat([maxout(from_x((X.flatten(1) + 1) / 2), 5), maxout(from_y(ONE_HOT), 5)], 1)
    h = maxout(b(h), 4)
    torch.testing.assert_close(nets["discriminator"].eval()(X, Y), c(h)[:, 0])


def test_a_maxout_unit_is_the_largest_of_its_pieces() -> None:
    layer = Maxout(1, units=2, pieces=3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [2.0], [3.0], [4.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, -1.0]))
    assert layer(torch.tensor([[2.0], [-3.0], [0.1]])).tolist() == [
        [2.0, 7.0],
        [3.0, -6.0],
        [0.5, pytest.approx(0.3)],
    ]


@pytest.mark.parametrize("name", ["mlp", "mlp_maxout"])
def test_an_embedding_is_learned_and_a_one_hot_code_is_not(name: str) -> None:
    for label in ("embedding", "one_hot"):
        nets = build(name, "architecture.conditional=true", f"architecture.label={label}")
        for net, given in zip(nets.values(), (Z, X), strict=True):
            code = next(m for m in net.modules() if isinstance(m, LabelCode))
            assert (len(list(code.parameters())) == 1) == (label == "embedding")
            assert torch.equal(code(Y), code.codes[Y])
            assert torch.equal(code(Y), ONE_HOT) == (label == "one_hot")
            net(given, Y).sum().backward()
            assert label == "one_hot" or code.codes.grad.abs().sum() > 0
            saved = any("codes" in key for key in net.state_dict())
            assert saved == (label == "embedding")


def test_weights_start_as_the_authors() -> None:
    config = compose(["architecture=mlp_maxout", "architecture.width=0.1", "dataset=demo"])
    for net, reach in zip(build_group(config.architecture).values(), (0.05, 0.005), strict=True):
        for layer in (m for m in net.modules() if isinstance(m, nn.Linear)):
            assert 0.9 * reach < layer.weight.abs().max() <= reach
            assert layer.bias.abs().max() == 0


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    layer, x = RowDropout(0.2), torch.ones(200, 100)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    assert layer.eval()(x) is x
    assert RowDropout(0.0)(x) is x


def test_two_processes_share_the_masks_of_one() -> None:
    """Also where D scores several views in one call, of which each process has a part."""
    D = nn.Sequential(nn.Flatten(), RowDropout(0.5))
    D.forward = lambda x, y, forward=D.forward: forward(x)  # type: ignore[method-assign]
    views = {"real": Batch(torch.ones(4, 3)), "fake": Batch(torch.ones(4, 3))}

    def scored(views: dict[str, Batch], rank: int, size: int) -> dict[str, Tensor]:
        torch.manual_seed(3)
        with as_world(World(rank, size)):
            return score(D, views, jointly=True).scores

    whole = scored(views, 0, 1)
    for rank in (0, 1):
        rows = slice(2 * rank, 2 * rank + 2)
        part = scored({role: Batch(batch.x[rows]) for role, batch in views.items()}, rank, 2)
        assert all(torch.equal(part[role], whole[role][rows]) for role in views)


def test_dropout_is_where_the_authors_have_it() -> None:
    def rates(net: nn.Module) -> list[float]:
        return [m.p for m in net.modules() if isinstance(m, nn.Dropout) and m.p]

    nets = build("mlp_maxout", "architecture.conditional=true", "architecture.g_dropout=0.3")
    assert rates(nets["generator"]) == [0.3, 0.3]
    assert rates(nets["discriminator"]) == [0.2, 0.5, 0.5]
    units = ["architecture.d_units=[512,512,512]", "architecture.d_dropout=0.4"]
    assert rates(build("mlp", *units)["discriminator"]) == [0.4, 0.4]
    assert [rates(net) for net in build("mlp").values()] == [[], []]


# --- in a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", ["false", "true"])
@pytest.mark.parametrize("name", ["mlp", "mlp_maxout"])
def test_penalties_are_the_formulas(name: str, conditional: str) -> None:
    words = ("architecture.d_dropout=0", "+architecture.d_input_dropout=0")
    words = words if name == "mlp_maxout" else words[:1]
    words = tuple(word.lstrip("+") for word in words)
    D = build(name, f"architecture.conditional={conditional}", *words)["discriminator"]
    y = Y if conditional == "true" else None
    views = {"real": Batch(X, y), "fake": Batch(-X, y)}
    scored = score(D, views, jointly=True)
    assert not mixes_samples(D)

    def slope(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(D(x, y).sum(), x)
        return g.flatten(1).norm(dim=1)

    torch.testing.assert_close(R1(10.0).d_terms(scored)["r1"], 5 * slope(X).square().mean())
    torch.manual_seed(1)
    value = GradientPenalty(10.0).d_terms(scored)["gp"]
    torch.manual_seed(1)
    a = torch.rand(4, 1, 1, 1, dtype=torch.float64)
    by_hand = 10 * (slope(a * X - (1 - a) * X) - 1).square().mean()
    torch.testing.assert_close(value, by_hand)
    value.backward()
    assert next(D.parameters()).grad is not None


def test_all_views_are_scored_in_one_call() -> None:
    D = build("mlp_maxout")["discriminator"]
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    assert Adversary(D, NonSaturating(), CombinedRegularizer(), T).score_jointly


@pytest.mark.parametrize("words", [[], ["architecture.conditional=true"]])
def test_flops_by_hand(words: list[str]) -> None:
    """Every weight is one multiply-add of an image; the rest is no matrix product."""
    facts = ["dataset.resolution=8", "dataset.channels=1", "dataset.classes=3"]
    for name in ("mlp", "mlp_maxout"):
        config = compose([f"architecture={name}", *facts, *words])
        counted = costs.count_networks_once(config, 8)
        assert counted is not None
        nets = build_group(config.architecture)
        for net, flops in zip(nets.values(), (counted.net.g, counted.net.d), strict=True):
            weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear))
            assert flops == pytest.approx(2 * weights / 1e9, rel=1e-12)


def test_what_makes_no_images_from_noise_is_not_counted() -> None:
    assert costs.count_networks_once(compose(["architecture=unet", "dataset=demo"]), 32) is None
