"""Penalties on the gradient of D with respect to its input: GP, DRAGAN, JSR and R1.

They are the baselines that the consistency papers compare with. A gradient's norm depends on the
range of the pixels; here images lie in [-1, 1], as in the papers' own code for GP, DRAGAN and R1.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from crgan_cli.bounds import Count, NonNegative
from crgan_cli.regularizers.base import Regularizer
from crgan_cli.scoring import Seen, widen
from crgan_cli.types import Batch, Discriminator, Terms

EPSILON = 1e-12
"""Under the square root of a gradient's norm, whose own derivative is infinite at 0."""


def input_gradient(D: Discriminator, batch: Batch) -> tuple[Tensor, Tensor]:
    """D's logits and their gradient with respect to each image, (N,) and (N, C, H, W), in fp32.

    Keeps its graph, so that a function of the gradient can be minimised. Runs outside autocast: the
    differences that a penalty acts on are below the resolution of bf16.
    """
    x = widen(batch.x).detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        logits = D(x, batch.y)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, gradient


def squared_norm(gradient: Tensor) -> Tensor:
    """||g||^2 per image, (N,)."""
    return gradient.flatten(1).square().sum(1)


def slope_penalty(D: Discriminator, batch: Batch) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2."""
    _, gradient = input_gradient(D, batch)
    return ((squared_norm(gradient) + EPSILON).sqrt() - 1).square().mean()


class GradientPenalty(Regularizer):
    """GP, Gulrajani et al. 2017 (arXiv:1704.00028) eq. 3: lambda_gp * E (||grad D(x_hat)|| - 1)^2.

    x_hat = a x + (1 - a) G(z), a ~ U[0, 1] per pair; a labelled pair keeps the real image's label.
    """

    own_calls = 1

    def __init__(self, lambda_gp: NonNegative, every: Count = 1) -> None:
        super().__init__()
        self.lambda_gp = lambda_gp
        self.every = every

    def d_terms(self, seen: Seen) -> Terms:
        real, fake = seen.views["real"], seen.views["fake"]
        a = torch.rand(len(real.x), 1, 1, 1, device=real.x.device, dtype=real.x.dtype)
        between = Batch(a * real.x + (1 - a) * fake.x, real.y)
        return {"gp": self.lambda_gp * slope_penalty(seen.D, between)}


class DRAGAN(Regularizer):
    """ "DR", Kodali et al. 2017 (arXiv:1705.07215): lambda_dr * E (||grad D(x + delta)|| - 1)^2.

    The point is the one of the authors' code: x + a * (0.5 * std * u), with u ~ U[0, 1] per pixel,
    a ~ U[0, 1] per image and std the standard deviation of the whole batch, one number.
    """

    own_calls = 1

    def __init__(self, lambda_dr: NonNegative, every: Count = 1) -> None:
        super().__init__()
        self.lambda_dr = lambda_dr
        self.every = every

    def d_terms(self, seen: Seen) -> Terms:
        real = seen.views["real"]
        a = torch.rand(len(real.x), 1, 1, 1, device=real.x.device, dtype=real.x.dtype)
        # rand(shape), not rand_like: the same draws in whatever order the pixels lie in memory
        u = torch.rand(real.x.shape, device=real.x.device, dtype=real.x.dtype)
        delta = 0.5 * real.x.std(correction=0) * u
        return {
            "dragan": self.lambda_dr * slope_penalty(seen.D, real._replace(x=real.x + a * delta))
        }


class JSRegularizer(Regularizer):
    """JSR, Roth et al. 2017 (arXiv:1705.09367) eq. 20, Algorithm 1: at the images themselves.

    gamma/2 * ( E (1 - s(D(x)))^2 ||grad D(x)||^2 + E s(D(G(z)))^2 ||grad D(G(z))||^2 )

    with s the sigmoid. The weights (1 - s)^2 and s^2 carry gradient, as in the authors' code.
    """

    own_calls = 2

    def __init__(self, gamma: NonNegative, every: Count = 1) -> None:
        super().__init__()
        self.gamma = gamma
        self.every = every

    def d_terms(self, seen: Seen) -> Terms:
        real, real_slope = input_gradient(seen.D, seen.views["real"])
        fake, fake_slope = input_gradient(seen.D, seen.views["fake"])
        on_real = logsigmoid(-real).mul(2).exp() * squared_norm(real_slope)
        on_fake = logsigmoid(fake).mul(2).exp() * squared_norm(fake_slope)
        return {
            "jsr/real": 0.5 * self.gamma * on_real.mean(),
            "jsr/fake": 0.5 * self.gamma * on_fake.mean(),
        }


class R1(Regularizer):
    """R1, Mescheder et al. 2018 (arXiv:1801.04406) eq. 9, whose gamma is lambda_r1 here.

    lambda_r1/2 * E ||grad D(x)||^2 on real images.
    """

    own_calls = 1

    def __init__(self, lambda_r1: NonNegative, every: Count = 1) -> None:
        super().__init__()
        self.lambda_r1 = lambda_r1
        self.every = every

    def d_terms(self, seen: Seen) -> Terms:
        _, gradient = input_gradient(seen.D, seen.views["real"])
        return {"r1": 0.5 * self.lambda_r1 * squared_norm(gradient).mean()}
