"""Every regularizer against its paper, written out by hand in float64: losses and gradients."""

from collections.abc import Callable

import pytest
import torch
from support.tiny import SIDE, game
from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
)
from crgan_cli.gan.regularizers.penalties import (
    DRAGAN,
    R1,
    R2,
    GradientPenalty,
    GradientRegularizer,
    JSRegularizer,
    MaxGradientPenalty,
    ZeroCenteredGradientPenalty,
)
from crgan_cli.gan.scoring import ScoredViews, score
from crgan_cli.gan.tasks.generation import Generation, generate
from crgan_cli.gan.types import Batch, Terms
from crgan_cli.networks.blocks import ResidualDiscriminator

pytestmark = pytest.mark.usefixtures("float64")


REAL = Batch(
    torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
)
softplus = nn.functional.softplus
By_hand = Callable[[Generation], Tensor]


def squares(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).mean()


class Cast:
    """The players and the images of one turn, drawn in the order in which the paper draws them."""

    def __init__(self, task: Generation, *, near: float | None = None) -> None:
        self.D, self.G, self.T = task.adversary.D, task.G, task.adversary.T
        self.x = REAL.x
        z = torch.randn(6, 4)
        eps = torch.randn(6, 4) if near is not None else None
        self.fake = self.G(z, None)
        self.near = None if near is None or eps is None else self.G(z + near * eps, None)

    def split(self, *images: Tensor) -> tuple[Tensor, ...]:
        """One D call for all, so that spectral norm makes one power iteration."""
        return self.D(torch.cat(images), None).split(6)


def adversarial(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real).mean() + softplus(fake).mean()


def cr_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    t_real = c.T(Batch(c.x)).x
    real, fake, t = c.split(c.x, c.fake.detach(), t_real)
    return adversarial(real, fake) + 10 * squares(real, t)


def bcr_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    fake = c.fake.detach()
    t_real, t_fake = c.T(Batch(torch.cat([c.x, fake]))).x.chunk(2)
    d_real, d_fake, d_t_real, d_t_fake = c.split(c.x, fake, t_real, t_fake)
    return (
        adversarial(d_real, d_fake) + 10 * squares(d_real, d_t_real) + 7 * squares(d_fake, d_t_fake)
    )


def zcr_by_hand(task: Generation) -> Tensor:
    c = Cast(task, near=0.3)
    real, fake, near = c.split(c.x, c.fake.detach(), c.near.detach())
    return adversarial(real, fake) + 5 * squares(fake, near)


def icr_by_hand(task: Generation) -> Tensor:
    """Algorithm 1 of arXiv:2002.04724 (bCR) with zCR's discriminator term added."""
    c = Cast(task, near=0.3)
    fake, near = c.fake.detach(), c.near.detach()
    t_real, t_fake = c.T(Batch(torch.cat([c.x, fake]))).x.chunk(2)
    d_real, d_fake, d_t_real, d_t_fake, d_near = c.split(c.x, fake, t_real, t_fake, near)
    l_real, l_fake, l_dis = (
        squares(d_real, d_t_real), squares(d_fake, d_t_fake), squares(d_fake, d_near)
    )  # fmt: skip
    return adversarial(d_real, d_fake) + 10 * l_real + 7 * l_fake + 5 * l_dis


def slope(D: nn.Module, x: Tensor) -> Tensor:
    """||grad_x D(x)|| image by image."""
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(D(x, None).sum(), x, create_graph=True)
    return torch.stack([(each**2).sum() ** 0.5 for each in g])


def gp_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    real, fake = c.split(c.x, c.fake.detach())
    a = torch.rand(6, 1, 1, 1, dtype=torch.float64)
    x_hat = a * c.x + (1 - a) * c.fake.detach()
    return adversarial(real, fake) + 10 * ((slope(c.D, x_hat) - 1) ** 2).mean()


def dragan_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    real, fake = c.split(c.x, c.fake.detach())
    a = torch.rand(6, 1, 1, 1, dtype=torch.float64)
    std = ((c.x - c.x.mean()) ** 2).mean() ** 0.5
    u = torch.rand(6, 3, SIDE, SIDE, dtype=torch.float64)
    near = c.x + a * 0.5 * std * u
    return adversarial(real, fake) + 10 * ((slope(c.D, near) - 1) ** 2).mean()


def jsr_by_hand(task: Generation) -> Tensor:
    """One more D call for the gradients at real and generated images; the logits are at hand."""
    c = Cast(task)
    fake = c.fake.detach()
    logits = c.split(c.x, fake)
    x, x_fake = (image.detach().requires_grad_() for image in (c.x, fake))
    slopes = torch.autograd.grad(
        torch.cat(c.split(x, x_fake)).sum(), (x, x_fake), create_graph=True
    )
    s, s_fake = (1 / (1 + torch.exp(-logit)) for logit in logits)
    on_real = (1 - s) ** 2 * (slopes[0] ** 2).sum((1, 2, 3))
    on_fake = s_fake**2 * (slopes[1] ** 2).sum((1, 2, 3))
    return adversarial(*logits) + 0.1 / 2 * (on_real.mean() + on_fake.mean())


def r1_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    real, fake = c.split(c.x, c.fake.detach())
    return adversarial(real, fake) + 10 / 2 * (slope(c.D, c.x) ** 2).mean()


def r2_by_hand(task: Generation) -> Tensor:
    c = Cast(task)
    real, fake = c.split(c.x, c.fake.detach())
    return adversarial(real, fake) + 10 / 2 * (slope(c.D, c.fake) ** 2).mean()


def interpolated_by_hand(
    weight: float, pool: Callable[[Tensor], Tensor]
) -> Callable[[Generation], Tensor]:
    """weight * pool(||grad D(x_hat)||^2)."""

    def by_hand(task: Generation) -> Tensor:
        c = Cast(task)
        real, fake = c.split(c.x, c.fake.detach())
        a = torch.rand(6, 1, 1, 1, dtype=torch.float64)
        x_hat = a * c.x + (1 - a) * c.fake.detach()
        return adversarial(real, fake) + weight * pool(slope(c.D, x_hat) ** 2)

    return by_hand


def cr() -> list[Regularizer]:
    return [ConsistencyRegularization(lambda_cr=10)]


def bcr() -> list[Regularizer]:
    return [BalancedConsistency(lambda_real=10, lambda_fake=7)]


def zcr() -> list[Regularizer]:
    return [LatentConsistency(lambda_dis=5, lambda_gen=0.5, sigma=0.3)]


CASES: dict[str, tuple[Callable[[], list[Regularizer]], By_hand]] = {
    "none": (list, lambda task: adversarial(*(c := Cast(task)).split(c.x, c.fake.detach()))),
    "cr": (cr, cr_by_hand),
    "bcr": (bcr, bcr_by_hand),
    "zcr": (zcr, zcr_by_hand),
    "icr": (lambda: bcr() + zcr(), icr_by_hand),
    "gp": (lambda: [GradientPenalty(lambda_gp=10)], gp_by_hand),
    "dragan": (lambda: [DRAGAN(lambda_dr=10)], dragan_by_hand),
    "jsr": (lambda: [JSRegularizer(gamma=0.1)], jsr_by_hand),
    "r1": (lambda: [R1(lambda_r1=10)], r1_by_hand),
    "r2": (lambda: [R2(lambda_r2=10)], r2_by_hand),
    "gp_zero": (
        lambda: [ZeroCenteredGradientPenalty(lambda_gp=3)],
        interpolated_by_hand(3, Tensor.mean),
    ),
    "max_gp": (lambda: [MaxGradientPenalty(lambda_gp=3)], interpolated_by_hand(3, Tensor.max)),
}


PENALTIES = ("gp", "dragan", "jsr", "r1", "r2", "gp_zero", "max_gp")


def total(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def gradients(loss: Tensor, player: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(player.parameters()), allow_unused=True))


@pytest.mark.parametrize("spectral", [False, True], ids=["plain", "spectral_norm"])
@pytest.mark.parametrize("name", CASES)
def test_d_pays_what_the_paper_says(name: str, spectral: bool) -> None:
    make, by_hand = CASES[name]
    ours, theirs = (game(*make(), spectral=spectral) for _ in range(2))
    torch.manual_seed(7)
    loss = total(ours.player_loss("d", {"real": REAL}).terms)
    torch.manual_seed(7)
    expected = by_hand(theirs)
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    for got, want in zip(
        gradients(loss, ours.adversary.D), gradients(expected, theirs.adversary.D), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("spectral", [False, True], ids=["plain", "spectral_norm"])
@pytest.mark.parametrize("name", CASES)
def test_g_pays_what_the_paper_says(name: str, spectral: bool) -> None:
    """Only zCR asks anything of G: -lambda_gen ||G(z) - G(z + e)||^2. No T in G's turn."""
    make, _ = CASES[name]
    latent = name in ("zcr", "icr")
    ours, theirs = (game(*make(), spectral=spectral) for _ in range(2))
    torch.manual_seed(7)
    loss = total(ours.player_loss("g", {"real": REAL}).terms)
    torch.manual_seed(7)
    c = Cast(theirs, near=0.3 if latent else None)
    expected = softplus(-c.D(c.fake, None)).mean()
    if latent:
        expected = expected - 0.5 * squares(c.fake, c.near)
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    for got, want in zip(gradients(loss, ours.G), gradients(expected, theirs.G), strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)


def test_a_linear_critic_has_the_slope_of_its_weights() -> None:
    """D(x) = <w, x>: grad D = w everywhere, so GP is lambda (|w| - 1)^2 whatever the images are."""
    task = game(GradientPenalty(lambda_gp=10))

    class Linear(nn.Module):
        def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
            return 2.0 * x[:, 0, 0, 0]

    task.adversary.D = Linear()
    assert task.player_loss("d", {"real": REAL}).terms["gp"].item() == pytest.approx(
        10 * (2 - 1) ** 2
    )


def pooled(x: Tensor) -> nn.Module:
    """A D that the adjoint network knows: a convolution, leaky ReLU, and a sum over places."""
    D = ResidualDiscriminator(
        [nn.Conv2d(x.shape[1], 4, 3), nn.LeakyReLU(0.1)], features=4, classes=0
    )
    return D.to(x)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_way_to_the_gradient_is_chosen_by_d_or_by_the_configuration(name: str) -> None:
    (penalty,) = CASES[name][0]()
    assert isinstance(penalty, GradientRegularizer)
    custom, known = game(*CASES[name][0]()).adversary.D, pooled(REAL.x)
    assert penalty.needs_double_backward(custom)
    assert not penalty.needs_double_backward(known)
    penalty.gradient = "autograd"
    assert penalty.needs_double_backward(known)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_adjoint_network_runs_no_second_backward_pass_through_d(name: str) -> None:
    """D is called for the scores alone; nothing that D computes there leads to the images."""
    task = game(*CASES[name][0]())
    task.adversary.D = pooled(REAL.x)
    calls: list[nn.Module] = []
    task.adversary.D.register_forward_hook(lambda D, given, logits: calls.append(D))
    loss = total(task.player_loss("d", {"real": REAL}).terms)
    assert len(calls) == 1
    assert all(gradient is not None for gradient in gradients(loss, task.adversary.D))


def test_jsr_is_annealed_by_the_d_step_down_to_its_share() -> None:
    def term(turn: int, **annealed: float) -> float:
        task = game(JSRegularizer(gamma=0.2, **annealed))  # pyright: ignore[reportArgumentType]
        torch.manual_seed(3)
        task.set_turn("d", turn)
        task.set_turn("g", 0)  # G's turns leave it alone
        return task.player_loss("d", {"real": REAL}).terms["jsr/real"].item()

    for turn, factor in ((0, 1.0), (5, 0.1), (10, 0.01), (40, 0.01)):
        found = term(turn, anneal=0.01, anneal_steps=10)
        assert found == pytest.approx(factor * term(turn), rel=1e-6)
    assert not JSRegularizer(gamma=0.2, anneal=0.01, anneal_steps=10).state_dict()
    with pytest.raises(
        UserError, match=r"anneal_steps=9 changes nothing .*Type regularizer\.anneal=0"
    ):
        JSRegularizer(gamma=0.2, anneal_steps=9)
    with pytest.raises(UserError, match=r"anneal=0\.5 needs .*regularizer\.anneal_steps=NUMBER"):
        JSRegularizer(gamma=0.2, anneal=0.5)


def test_the_noise_of_zcr_may_follow_a_uniform_prior() -> None:
    z = torch.zeros(2000, 4)
    part = LatentConsistency(lambda_dis=5, lambda_gen=0.5, sigma=0.3, noise="uniform")
    e = part.extra_latents(z)["near"]
    assert e.abs().max() <= 0.3
    assert e.std().item() == pytest.approx(0.3 / 3**0.5, rel=0.05)


def test_jsr_calls_a_d_with_batch_norm_for_each_batch() -> None:
    task = game(JSRegularizer(gamma=0.1), batch_norm=True)
    task.player_loss("d", {"real": REAL})
    assert task.adversary.D.calls == 2 + 2


def test_both_sides_of_a_consistency_term_carry_gradient() -> None:
    """d/dl of lambda mean (a - b)^2 is 2 lambda (a - b)/N for a and its negative for b."""
    a, b = (
        torch.tensor([1.0, 3.0], requires_grad=True),
        torch.tensor([0.5, 5.0], requires_grad=True),
    )

    term = cr()[0].d_terms(ScoredViews({}, {"real": a, "T(real)": b}, None))["cr/real"]  # type: ignore[arg-type]
    term.backward()
    assert term.item() == pytest.approx(10 * (0.25 + 4) / 2)
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, torch.tensor([10 * 0.5, 10 * -2.0]))
    torch.testing.assert_close(b.grad, -a.grad)


@pytest.mark.parametrize("name", CASES)
def test_one_call_whatever_the_consistency_terms(name: str) -> None:
    task = game(*CASES[name][0]())
    before = task.adversary.D.calls
    task.player_loss("d", {"real": REAL})
    assert task.adversary.D.calls - before == 1 + (name in PENALTIES)


def test_batch_norm_in_d_gets_one_call_a_view() -> None:
    task = game(*bcr(), *zcr(), batch_norm=True)
    assert not task.adversary.score_jointly
    task.player_loss("d", {"real": REAL})
    assert task.adversary.D.calls == 5
    assert any("5 D calls" in line for line in task.describe_turns())


def test_cr_and_bcr_share_one_view_of_the_real_images() -> None:
    task = game(*cr(), *bcr())
    assert task.adversary.roles == ("real", "fake", "T(real)", "T(fake)")
    terms = task.player_loss("d", {"real": REAL}).terms
    torch.testing.assert_close(terms["cr/real"], terms["bcr/real"])


def test_lazy_terms_come_every_kth_turn_k_times_as_strong() -> None:
    lazy = game(ConsistencyRegularization(lambda_cr=10, every=3))
    eager = game(*cr())
    for turn in range(6):
        lazy.set_turn("d", turn)
        torch.manual_seed(turn)
        terms = lazy.player_loss("d", {"real": REAL}).terms
        torch.manual_seed(turn)
        expected = eager.player_loss("d", {"real": REAL}).terms
        torch.testing.assert_close(terms["adversarial/d"], expected["adversarial/d"])
        assert ("cr/real" in terms) == (turn % 3 == 0)
        if turn % 3 == 0:
            torch.testing.assert_close(terms["cr/real"], 3 * expected["cr/real"])


def test_a_view_that_the_game_lacks_names_those_that_it_has() -> None:
    class Odd(Regularizer):
        views = ("sideways",)

    with pytest.raises(UserError, match=r"regularizer=Odd.*'sideways'.*real, fake"):
        game(Odd()).adversary.require_roles(("real", "fake"), latents=True, task="Generation")


@pytest.mark.parametrize("part", [LatentConsistency(1, 1, 0.1)], ids=["zcr"])
def test_what_works_on_latents_is_refused_where_there_are_none(part: Regularizer) -> None:
    adversary = game(part).adversary
    adversary.require_roles(("real", "fake"), latents=True, task="Generation")
    with pytest.raises(UserError, match=r"works on latents, and Pix2Pix has none"):
        adversary.require_roles(("real", "fake"), latents=False, task="Pix2Pix")


class PatchD(nn.Module):
    """A D of patches that is not linear: a map of 6 x 6 logits per image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        return self.conv(x).pow(3)


@pytest.mark.parametrize("n", [2, 6], ids=["batch 2", "batch as wide as the map"])
def test_jsr_on_maps_weighs_each_image_by_the_mean_over_its_places(n: int) -> None:
    torch.manual_seed(0)
    D, part = PatchD().double(), JSRegularizer(0.1)
    views = {role: Batch(torch.randn(n, 3, 8, 8).double()) for role in ("real", "fake")}
    scored = score(D, views, jointly=True)
    terms = part.d_terms(scored)
    for role, sign in (("real", -1), ("fake", 1)):
        total = 0.0
        for image in views[role].x.split(1):
            image = image.clone().requires_grad_()
            logits = D(image, None)
            (gradient,) = torch.autograd.grad(logits.sum(), image)
            weight = torch.sigmoid(sign * logits).square().mean()
            total += weight.item() * gradient.square().sum().item() / n
        assert terms[f"jsr/{role}"].item() == pytest.approx(0.05 * total)


def test_a_consistency_term_on_maps_is_the_mean_over_images_and_places() -> None:
    a, b = torch.randn(2, 5, 1, 3, 3).double()
    term = cr()[0].d_terms(ScoredViews({}, {"real": a, "T(real)": b}, None))["cr/real"]  # type: ignore[arg-type]
    assert term.item() == pytest.approx(10 * sum((a - b).flatten().square().tolist()) / 45)


@pytest.mark.parametrize(
    "part", [GradientPenalty(10), R1(10), DRAGAN(10)], ids=["gp", "r1", "dragan"]
)
def test_a_penalty_on_maps_takes_the_gradient_of_the_sum_over_places(
    part: GradientRegularizer,
) -> None:
    torch.manual_seed(0)
    D = PatchD().double()
    batch = Batch(torch.randn(4, 3, 8, 8).double())
    (found,) = part.input_gradient(D, batch)
    for gradient, image in zip(found, batch.x, strict=True):
        image = image[None].clone().requires_grad_()
        (by_hand,) = torch.autograd.grad(D(image, None).sum(), image)
        torch.testing.assert_close(gradient, by_hand[0])


def test_two_terms_of_one_name_are_refused() -> None:
    class Again(ConsistencyRegularization):
        """A second class with cr's term."""

    with pytest.raises(UserError, match=r"cr/real"):
        game(*cr(), Again(lambda_cr=1)).player_loss("d", {"real": REAL})


def test_labels_of_the_code_and_its_neighbour_agree() -> None:
    task = game(*zcr(), classes=5)
    views = generate(task.sample_latents(8, torch.device("cpu")))
    assert views["fake"].y is views["near"].y
    assert views["fake"].y is not None
