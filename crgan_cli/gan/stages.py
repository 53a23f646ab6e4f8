"""The stages of a run: stretches of steps with one resolution and one batch size.

Most runs have one. Those that grow have one per resolution: Karras et al. 2018 (arXiv:1710.10196)
appendix A.1. All of it follows from the settings and the number of the step, so a run resumes by
counting. Imports no torch.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError


class Stage(NamedTuple):
    """Steps with one resolution. The last stage ends with the run."""

    sides: Sides
    first: int  # its first step
    fade_steps: int  # over which the resolution fades in, from `first` on
    batch_size: int
    rate: float = 1.0  # factor of the learning rates
    images_before: int = 0  # real images that D has seen in earlier stages

    @property
    def resolution(self) -> int:
        """The side of squares; only these grow."""
        assert self.sides.is_square
        return self.sides.height

    def alpha(self, step: int) -> float:
        """How far the resolution has faded in at a step, in [0, 1]: the share of the images of the
        fade that D has seen before."""
        return min(1.0, (step - self.first) / self.fade_steps) if self.fade_steps else 1.0


class Stages:
    """The stages of a run, in order."""

    def __init__(self, stages: Sequence[Stage], n_dis: int) -> None:
        self.stages = tuple(stages)
        self.firsts = [stage.first for stage in stages]
        self.n_dis = n_dis

    @classmethod
    def from_settings(cls, config: Mapping[str, Any]) -> Self:
        """The stages of a run, for its whole configuration: a task with a schedule has several."""
        task, n_dis = config["task"], config["optimizer"]["n_dis"]
        resolution, batch_size = config["dataset"]["resolution"], config["batch_size"]
        if "first_resolution" not in task:
            return cls.single(resolution, batch_size, n_dis)
        if not (sides := Sides.read(resolution)).is_square:
            raise UserError(
                f"dataset.resolution is {sides.typed}, and images that grow are squares. Type "
                f"dataset.resolution={max(sides)}, or architecture=sndcgan task=generation."
            )
        most = resolution.bit_length()
        return cls.growing(
            first_resolution=task["first_resolution"],
            resolution=resolution,
            fade_images=task["fade_images"],
            stable_images=task["stable_images"],
            batch_sizes=task["batch_sizes"] or [batch_size] * most,
            rates=task["rates"] or [1.0] * most,
            n_dis=n_dis,
        )

    @classmethod
    def single(cls, resolution: int | Sequence[int], batch_size: int, n_dis: int) -> Self:
        """A run that does not grow."""
        return cls([Stage(Sides.read(resolution), 0, 0, batch_size)], n_dis)

    @classmethod
    def growing(
        cls,
        *,
        first_resolution: int,
        resolution: int,
        fade_images: int,
        stable_images: int,
        batch_sizes: Sequence[int],
        rates: Sequence[float],
        n_dis: int,
    ) -> Self:
        """A stage per resolution, each twice the one before.

        The first is trained for `stable_images`. Each further one fades in over `fade_images`, then
        goes on for `stable_images`, the last one to the end of the run. `batch_sizes` and `rates`
        have a number per stage, at least.

        Raise UserError if there are no such resolutions, or a stage has no images.
        """
        count = (resolution // first_resolution).bit_length()
        if count == 0 or first_resolution << (count - 1) != resolution:
            raise UserError(
                f"task.first_resolution is {first_resolution} and dataset.resolution {resolution}: "
                f"images grow by doubling, and {resolution} is not {first_resolution} times a "
                "power of two. Type task.first_resolution=4 with dataset.resolution=32, 64 or "
                "another power of two."
            )
        for name, given in (("batch_sizes", batch_sizes), ("rates", rates)):
            if len(given) < count:
                raise UserError(
                    f"task.{name} has {len(given)} numbers, and from {first_resolution} to "
                    f"{resolution} pixels there are {count} stages. Give a number for each, or "
                    f"task.{name}=null."
                )
        if stable_images == 0:
            raise UserError(
                "task.stable_images=0 leaves no images for the first resolution, which has nothing "
                "to fade in. Give task.stable_images=1 or more; the paper has 600000."
            )
        stages, step, images = [], 0, 0
        for number in range(count):
            per_step = batch_sizes[number] * n_dis
            fade_steps = -(-fade_images // per_step) if number else 0
            stages.append(
                Stage(
                    Sides.read(first_resolution << number),
                    step,
                    fade_steps,
                    batch_sizes[number],
                    rates[number],
                    images,
                )
            )
            steps = fade_steps + -(-stable_images // per_step)
            step, images = step + steps, images + steps * per_step
        return cls(stages, n_dis)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    @property
    def grown_at(self) -> int:
        """The step from which on the last resolution is there in full."""
        last = self.stages[-1]
        return last.first + last.fade_steps

    def at(self, step: int) -> Stage:
        """The stage of a step, counted from 0."""
        return self.stages[bisect_right(self.firsts, step) - 1]

    def describe_growth(self, step: int) -> str:
        """How far networks have grown after so many steps, as `describe_side` says it."""
        if len(self) == 1:
            return ""
        stage = self.at(last := max(step - 1, 0))
        return describe_side(stage.resolution, self.stages[-1].resolution, stage.alpha(last))

    def images(self, step: int) -> int:
        """Real images that D has seen before a step, repeats counted."""
        stage = self.at(step)
        return stage.images_before + (step - stage.first) * stage.batch_size * self.n_dis

    def between(self, first: int, end: int) -> Iterator[tuple[Stage, int, int]]:
        """The stages of the steps from `first` to before `end`, each with its own part of them."""
        ends = [*self.firsts[1:], end]
        for stage, stage_end in zip(self.stages, ends, strict=True):
            low, high = max(first, stage.first), min(end, stage_end)
            if low < high:
                yield stage, low, high


def describe_side(side: int, full: int, alpha: float) -> str:
    """What networks that have not grown up work at: "8 of 32 pixels (alpha 0.4)"; "" for others."""
    fading = f" (alpha {alpha:g})" if alpha < 1 else ""
    return f"{side} of {full} pixels{fading}" if side < full or fading else ""
