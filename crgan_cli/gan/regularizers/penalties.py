"""Penalties on the gradient of D with respect to its input: GP and its kin, DRAGAN, JSR, R1 and R2.

These are the baselines of the consistency papers. The norm of a gradient depends on the range of
the pixels: here [-1, 1], as in the authors' code of GP and R1. DRAGAN's authors have MNIST in
[0, 1], and compare_gan all images, with 1e-4 under the root of a norm. There a gradient is twice as
large: a slope of 1 is one of 0.5 here, and the weight of a squared norm counts four times. If D
scores patches, D(x) is
the sum over the places of its map, as in the public code for PatchGAN and StarGAN; the weights of
JSR are means over places.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from crgan_cli.config.bounds import NonNegative, Positive, PositiveFraction, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import (
    ScoredViews,
    as_verdict,
    concatenate,
    mean_over_places,
    mixes_samples,
)
from crgan_cli.gan.types import Batch, Discriminator, Terms
from crgan_cli.networks.fast import adjoint
from crgan_cli.networks.fast.bf16_weights import full_precision
from crgan_cli.networks.fast.convolution_forms import gradients_of_images_only
from crgan_cli.networks.layers import at_least_fp32
from crgan_cli.system import rng
from crgan_cli.system.distributed import tensors

GradientMethod = Literal["auto", "autograd"]

EPSILON = 1e-12
"""Added under the square root of a norm, whose derivative is infinite at 0."""


class GradientRegularizer(Regularizer):
    """A penalty on grad_x D.

    If D is piecewise linear, the gradient is computed by D's adjoint network
    (`networks.fast.adjoint`). Otherwise, and with `gradient="autograd"`, by autograd: the penalty
    then needs a double backward pass through D. Both give the same numbers.
    """

    gradient_views = 1

    def __init__(self, every: PositiveInt, gradient: GradientMethod) -> None:
        super().__init__()
        self.every = every
        self.gradient = gradient

    def needs_double_backward(self, D: Discriminator) -> bool:
        """Whether D takes a double backward pass, for which it must not be compiled."""
        return self.gradient == "autograd" or not adjoint.is_piecewise_linear(D)

    def input_gradient(self, D: Discriminator, *batches: Batch) -> tuple[Tensor, ...]:
        """grad_x D per image, (N, C, H, W) fp32, for each batch.

        The graph to D's weights is kept, so that a penalty can be minimised. One call of D for all
        batches, or one per batch if D mixes the images of a batch. Without autocast, since a
        penalty acts on differences below the resolution of bf16.
        """
        assert isinstance(D, nn.Module)
        if len(batches) > 1 and mixes_samples(D):
            return tuple(self.input_gradient(D, batch)[0] for batch in batches)
        together = concatenate(list(batches))
        x = at_least_fp32(together.x).detach()
        with full_precision(D, x.device), rng.draws_for(len(batches)):
            if self.needs_double_backward(D):
                logits = as_verdict(D(x.requires_grad_(), together.y)).logits
                with gradients_of_images_only():
                    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
            else:
                gradient = adjoint.input_gradient(D, x, together.y)
        return gradient.split([len(batch.x) for batch in batches])


def squared_norm(gradient: Tensor) -> Tensor:
    """||g||^2 per image, (N,)."""
    return gradient.flatten(1).square().sum(1)


def norm_penalty(gradient: Tensor, target: float = 1.0) -> Tensor:
    """E (||g|| - target)^2 / target^2."""
    return ((squared_norm(gradient) + EPSILON).sqrt() - target).square().mean() / target**2


def interpolate_images(scored: ScoredViews) -> Batch:
    """x_hat = a x + (1 - a) G(z), a ~ U[0, 1] per pair, with the labels of the real images x."""
    real, fake = scored.views["real"], scored.views["fake"]
    a = rng.rand(len(real.x), 1, 1, 1, device=real.x.device, dtype=real.x.dtype)
    return Batch(a * real.x + (1 - a) * fake.x, real.y)


class GradientPenalty(GradientRegularizer):
    """GP, Gulrajani et al. 2017 (arXiv:1704.00028) eq. 3: lambda_gp * E (||grad D(x_hat)|| - 1)^2.

    x_hat is drawn by `interpolate_images`.

    With a `target` gamma other than 1 it is lambda_gp * E (||grad D(x_hat)|| - gamma)^2 / gamma^2,
    Karras et al. 2018 (arXiv:1710.10196) appendix B.
    """

    def __init__(
        self,
        lambda_gp: NonNegative,
        every: PositiveInt = 1,
        gradient: GradientMethod = "auto",
        target: Positive = 1.0,
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_gp = lambda_gp
        self.target = target

    def d_terms(self, scored: ScoredViews) -> Terms:
        (gradient,) = self.input_gradient(scored.D, interpolate_images(scored))
        return {"gp": self.lambda_gp * norm_penalty(gradient, self.target)}


class ZeroCenteredGradientPenalty(GradientRegularizer):
    """0-GP, Thanh-Tung et al. 2019 (arXiv:1902.03984) section 5: lambda_gp * E ||grad D(x_hat)||^2.

    x_hat is GP's. D(x) is the logit here. R1 and R2 are the same at real and at generated images.
    """

    def __init__(
        self, lambda_gp: NonNegative, every: PositiveInt = 1, gradient: GradientMethod = "auto"
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_gp = lambda_gp

    def d_terms(self, scored: ScoredViews) -> Terms:
        (gradient,) = self.input_gradient(scored.D, interpolate_images(scored))
        return {"gp_zero": self.lambda_gp * squared_norm(gradient).mean()}


class MaxGradientPenalty(GradientRegularizer):
    """MaxGP, Zhou et al. 2019 (arXiv:1902.05687): lambda_gp * max ||grad D(x_hat)||^2.

    The maximum is over the batch, at GP's x_hat, as in StudioGAN; with several processes the mean
    of the maxima of each.
    """

    mixes_samples = True

    def __init__(
        self, lambda_gp: NonNegative, every: PositiveInt = 1, gradient: GradientMethod = "auto"
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_gp = lambda_gp

    def d_terms(self, scored: ScoredViews) -> Terms:
        (gradient,) = self.input_gradient(scored.D, interpolate_images(scored))
        return {"max_gp": self.lambda_gp * squared_norm(gradient).max()}


class DRAGAN(GradientRegularizer):
    """ "DR", Kodali et al. 2017 (arXiv:1705.07215): lambda_dr * E (||grad D(x + delta)|| - 1)^2.

    As in the authors' code, x + delta = x + a * (0.5 * std * u) with u ~ U[0, 1] per value,
    a ~ U[0, 1] per image, and std the standard deviation of all values of the batch (one number,
    over all ranks).
    """

    mixes_samples = True  # by std

    def __init__(
        self, lambda_dr: NonNegative, every: PositiveInt = 1, gradient: GradientMethod = "auto"
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_dr = lambda_dr

    def d_terms(self, scored: ScoredViews) -> Terms:
        real = scored.views["real"]
        x = real.x
        a = rng.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
        u = rng.rand(*x.shape, device=x.device, dtype=x.dtype)
        variance = tensors.all_reduce_mean((x - tensors.all_reduce_mean(x.mean())).square().mean())
        delta = 0.5 * variance.sqrt() * u
        (gradient,) = self.input_gradient(scored.D, real._replace(x=x + a * delta))
        return {"dragan": self.lambda_dr * norm_penalty(gradient)}


class JSRegularizer(GradientRegularizer):
    """JSR, Roth et al. 2017 (arXiv:1705.09367) eq. 20 and Algorithm 1.

    gamma/2 * ( E (1 - s(D(x)))^2 ||grad D(x)||^2 + E s(D(G(z)))^2 ||grad D(G(z))||^2 )

    s is the sigmoid. The weights (1 - s)^2 and s^2 carry gradient, as in the authors' code.

    The authors advise to anneal: gamma is multiplied by anneal^(t / anneal_steps), t the D step,
    and stays at gamma * anneal after `anneal_steps` of them (section 4: by 0.01).
    """

    gradient_views = 2

    def __init__(
        self,
        gamma: NonNegative,
        every: PositiveInt = 1,
        gradient: GradientMethod = "auto",
        anneal: PositiveFraction = 1.0,
        anneal_steps: PositiveInt | None = None,
    ) -> None:
        super().__init__(every, gradient)
        if anneal != 1.0 and anneal_steps is None:
            raise UserError(
                f"regularizer.anneal={anneal} needs the number of D steps in which gamma falls to "
                "that share. Type regularizer.anneal_steps=NUMBER, such as steps x optimizer.n_dis."
            )
        if anneal == 1.0 and anneal_steps is not None:
            raise UserError(
                f"regularizer.anneal_steps={anneal_steps} changes nothing with anneal=1. "
                "Type regularizer.anneal=0.01 (the authors' advice) beside it, or leave it out."
            )
        self.initial = gamma
        self.anneal = anneal
        self.anneal_steps = anneal_steps or 1
        self.gamma: float | Tensor = gamma
        if anneal != 1.0:  # a tensor, which a CUDA graph reads anew in every turn
            self.register_buffer("annealed", torch.tensor(float(gamma)), persistent=False)
            self.gamma = self.annealed

    annealed: Tensor

    def set_turn(self, who: str, turn: int) -> None:
        if who == "d" and self.anneal != 1.0:
            share = min(turn / self.anneal_steps, 1.0)
            self.annealed.fill_(self.initial * self.anneal**share)
            self.gamma = self.annealed  # also after a move to another device

    def d_terms(self, scored: ScoredViews) -> Terms:
        real, fake = scored.scores["real"], scored.scores["fake"]
        at_real, at_fake = self.input_gradient(scored.D, scored.views["real"], scored.views["fake"])
        on_real = mean_over_places(logsigmoid(-real).mul(2).exp()) * squared_norm(at_real)
        on_fake = mean_over_places(logsigmoid(fake).mul(2).exp()) * squared_norm(at_fake)
        return {
            "jsr/real": 0.5 * self.gamma * on_real.mean(),
            "jsr/fake": 0.5 * self.gamma * on_fake.mean(),
        }


class R2(GradientRegularizer):
    """R2, Mescheder et al. 2018 (arXiv:1801.04406) eq. 10: lambda_r2/2 * E ||grad D(G(z))||^2.

    lambda_r2 is the paper's gamma. R3GAN (arXiv:2501.05441) has it beside R1.
    """

    def __init__(
        self, lambda_r2: NonNegative, every: PositiveInt = 1, gradient: GradientMethod = "auto"
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_r2 = lambda_r2

    def d_terms(self, scored: ScoredViews) -> Terms:
        (gradient,) = self.input_gradient(scored.D, scored.views["fake"])
        return {"r2": 0.5 * self.lambda_r2 * squared_norm(gradient).mean()}


class R1(GradientRegularizer):
    """R1, Mescheder et al. 2018 (arXiv:1801.04406) eq. 9: lambda_r1/2 * E ||grad D(x)||^2.

    x are real images. lambda_r1 is the paper's gamma.
    """

    def __init__(
        self, lambda_r1: NonNegative, every: PositiveInt = 1, gradient: GradientMethod = "auto"
    ) -> None:
        super().__init__(every, gradient)
        self.lambda_r1 = lambda_r1

    def d_terms(self, scored: ScoredViews) -> Terms:
        (gradient,) = self.input_gradient(scored.D, scored.views["real"])
        return {"r1": 0.5 * self.lambda_r1 * squared_norm(gradient).mean()}
