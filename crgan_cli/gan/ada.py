"""ADA: what D sees in both turns is augmented, as strongly as D overfits."""

import math

import torch
from torch import Tensor

from crgan_cli.config.bounds import PositiveInt, Probability
from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.types import Terms
from crgan_cli.gan.warp import like_layout, matrices, rotations, warp_images
from crgan_cli.networks.fast.bf16_weights import full_precision
from crgan_cli.system import rng
from crgan_cli.system.distributed.tensors import all_reduce_mean
from crgan_cli.system.distributed.world import world

LUMA = 1 / math.sqrt(3)  # each coordinate of the grey axis v of RGB, |v| = 1


class ADA(Augment):
    """Adaptive discriminator augmentation, Karras et al. 2020 (arXiv:2006.06676) section 3.

    Each transform of appendix B acts with probability p on each image: flips, turns by 90 degrees
    and whole-pixel shifts ("blit"); scaling, rotation, anisotropic scaling and shifts ("geometry");
    brightness, contrast, luma flip, hue and saturation ("colour"). The paper's "bgc" is all three.

    p follows eq. 1: r_t = E sign(D(x)) over the real images x of `adjust_every` D steps; p rises if
    r_t > `target`, else falls, so that it takes `ramp_images` real images from 0 to 1. p begins
    with 0, stays within [0, 1], and is saved and logged.

    Unlike in the authors' code, images are sampled bilinearly, without their wavelet filter, and
    once for blit and geometry together.
    """

    p: Tensor
    signs: Tensor
    steps: Tensor
    cross: Tensor
    grey: Tensor

    def __init__(
        self,
        target: Probability,
        ramp_images: PositiveInt,
        adjust_every: PositiveInt,
        blit: bool,
        geometry: bool,
        colour: bool,
    ) -> None:
        super().__init__()
        self.target = target
        self.ramp_images = ramp_images
        self.adjust_every = adjust_every
        self.blit = blit
        self.geometry = geometry
        self.colour = colour
        for name in ("p", "signs", "steps"):
            self.register_buffer(name, torch.zeros(()))
        cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * LUMA  # v x, as a matrix
        self.register_buffer("cross", cross, persistent=False)
        self.register_buffer("grey", torch.full((3, 3), LUMA**2), persistent=False)  # v v^T

    def require_channels(self, channels: int) -> None:
        if self.colour and channels not in (1, 3):
            raise UserError(
                f"augment_both=ada changes the colours of grey and RGB images, and D sees "
                f"{channels} channels. Type augment_both.colour=false"
            )

    def transform(self, x: Tensor) -> Tensor:
        with full_precision(self, x.device):
            if self.blit or self.geometry:
                x = warp_images(x, self.draw_source(x))
            return self.change_colours(x) if self.colour else x

    @torch.no_grad()
    def observe(self, real: Tensor) -> None:
        """Adapt p to D's logits (N,) of the real images of a D step."""
        self.signs += all_reduce_mean(real.sign().mean()).to(self.signs)
        self.steps += 1
        due = self.steps >= self.adjust_every
        images = self.adjust_every * len(real) * world().world_size
        direction = (self.signs / self.steps - self.target).sign()
        adapted = (self.p + direction * (images / self.ramp_images)).clamp_(0, 1)
        self.p.copy_(torch.where(due, adapted, self.p))
        for sums in (self.signs, self.steps):
            sums.mul_(~due)

    def diagnostics(self) -> Terms:
        return {"ada/p": self.p.clone()}

    def draw_source(self, x: Tensor) -> Tensor:
        """Where the pixels of each image come from, for `warp_images`: (N, 3, 3)."""
        n, _, h, w = x.shape
        source = torch.eye(3, device=x.device).repeat(n, 1, 1)
        one, zero = torch.ones(n, device=x.device), torch.zeros(n, device=x.device)

        def scaled(sx: Tensor, sy: Tensor) -> Tensor:
            return matrices([sx, zero, zero], [zero, sy, zero], [zero, zero, one])

        def moved(tx: Tensor, ty: Tensor) -> Tensor:
            return matrices([one, zero, tx], [zero, one, ty], [zero, zero, one])

        def turned(angle: Tensor, p: Tensor) -> Tensor:
            return rotations(self.switch(angle, zero, p))

        if self.blit:
            mirrored = self.switch(1 - 2 * self.integers(n, 2), one)
            source = source @ scaled(mirrored, one)
            source = source @ turned(self.integers(n, 4) * (math.pi / 2), self.p)
            shift = self.uniform(n, 2, 0.125)
            shift = self.switch(shift, torch.zeros_like(shift))
            source = source @ moved((shift[:, 0] * w).round(), (shift[:, 1] * h).round())
        if self.geometry:
            p_turn = 1 - (1 - self.p).sqrt()  # of each of two turns, so that one occurs with p
            scale = self.switch(self.powers(n, 0.2), one)
            source = source @ scaled(1 / scale, 1 / scale)
            source = source @ turned(self.uniform(n, 1, math.pi)[:, 0], p_turn)
            stretch = self.switch(self.powers(n, 0.2), one)
            source = source @ scaled(1 / stretch, stretch)
            source = source @ turned(self.uniform(n, 1, math.pi)[:, 0], p_turn)
            shift = self.normal(n, 2) * 0.125
            shift = self.switch(shift, torch.zeros_like(shift))
            source = source @ moved(shift[:, 0] * w, shift[:, 1] * h)
        return source

    def change_colours(self, x: Tensor) -> Tensor:
        """Brightness, contrast, luma flip, hue and saturation, each with probability p.

        Of grey images the first three.
        """
        n, channels, *_ = x.shape
        one, zero = torch.ones(n, device=x.device), torch.zeros(n, device=x.device)
        brightness = self.switch(self.normal(n, 1)[:, 0] * 0.2, zero)
        contrast = self.switch(self.powers(n, 0.5), one)
        flip = self.switch(self.integers(n, 2), zero)  # 1: the grey axis is reversed
        turn = self.switch(self.uniform(n, 1, math.pi)[:, 0], zero)
        saturation = self.switch(self.powers(n, 1.0), one)
        if channels == 1:
            sign = (1 - 2 * flip) * contrast
            return x * sign.view(n, 1, 1, 1) + (sign * brightness).view(n, 1, 1, 1)
        grey, eye = self.grey, torch.eye(3, device=x.device, dtype=self.grey.dtype)

        def each(values: Tensor) -> Tensor:
            return values.view(n, 1, 1)

        mixed = each(contrast) * (eye - each(2 * flip) * grey)
        # Rodrigues' rotation about the grey axis
        hue = each(turn.cos()) * (eye - grey) + each(turn.sin()) * self.cross + grey
        mixed = (grey + each(saturation) * (eye - grey)) @ hue @ mixed
        offset = mixed.sum(2) * brightness[:, None]  # brightness came first, on all channels
        moved = torch.einsum("nij,njhw->nihw", mixed, x) + offset.view(n, 3, 1, 1)
        return like_layout(moved, x)

    def switch(self, drawn: Tensor, neutral: Tensor, p: Tensor | None = None) -> Tensor:
        """Rows of `drawn` with probability p, else those of `neutral`."""
        on = rng.rand(len(drawn), device=drawn.device) < (self.p if p is None else p)
        return torch.where(on.view(-1, *[1] * (drawn.ndim - 1)), drawn, neutral)

    def integers(self, n: int, high: int) -> Tensor:
        """(n,) of 0 .. high - 1, as floats."""
        return rng.randint(0, high, n, device=self.p.device).float()

    def uniform(self, n: int, columns: int, most: float) -> Tensor:
        """(n, columns) in -most .. most."""
        return (2 * rng.rand(n, columns, device=self.p.device) - 1) * most

    def normal(self, n: int, columns: int) -> Tensor:
        """(n, columns) from N(0, 1)."""
        return rng.randn(n, columns, device=self.p.device)

    def powers(self, n: int, deviation: float) -> Tensor:
        """(n,) powers of 2, whose exponents are from N(0, deviation^2)."""
        return torch.exp2(self.normal(n, 1)[:, 0] * deviation)
