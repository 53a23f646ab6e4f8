"""Networks that grow while they play the game of `Generation`."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import nn

from crgan_cli.config.bounds import NonNegativeInt, Positive, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.generation import Generation, Prior
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.growth import Growth, double, halve


class Progressive(Generation):
    """Progressive growing, Karras et al. 2018 (arXiv:1710.10196) sections 2 and 3, appendix A.1.

    G and D begin at `first_resolution`. After `stable_images` the next one, twice as large, fades
    in: over `fade_images` its layers' weight alpha rises from 0 to 1, in G, in D and in the real
    images. Then it is trained for `stable_images`, and so on; the last one to the end of the run.
    Images are those that D sees, counted by batches. Adam begins anew with each resolution, as in
    the authors' code.

    `batch_sizes` and `rates` (factors of the learning rates) have a number per resolution, from the
    first on; a smaller image uses the first ones. null: batch_size, and 1.
    """

    needs = (
        "task=progressive trains networks that grow: type architecture=pggan, or task=generation "
        "for another architecture."
    )

    def __init__(
        self,
        G: nn.Module,
        adversary: Adversary,
        prior: Prior,
        stages: Stages,
        *,
        n_dis: PositiveInt,
        first_resolution: PositiveInt,
        fade_images: NonNegativeInt,
        stable_images: NonNegativeInt,
        batch_sizes: list[PositiveInt] | None,
        rates: list[Positive] | None,
    ) -> None:
        super().__init__(G, adversary, prior, n_dis=n_dis)
        growth = getattr(G, "growth", None)
        if not isinstance(growth, Growth) or not hasattr(adversary.D, "growth"):
            raise UserError(f"{type(G).__name__} cannot grow. {self.needs}")
        self.growth = adversary.D.growth = growth  # one of both
        self.schedule = stages
        self.full = stages.stages[-1].resolution
        smallest = growth.find_side(0, self.full)
        if first_resolution < smallest:
            raise UserError(
                f"task.first_resolution is {first_resolution}, and {type(G).__name__} begins at "
                f"{smallest} pixels. Type task.first_resolution={smallest}"
            )
        self.set_turn("d", 0)

    @classmethod
    def arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().arguments(config), "stages": Stages.from_settings(config)}

    def set_turn(self, who: str, turn: int) -> None:
        super().set_turn(who, turn)
        step = turn // self.turns.count(who)
        stage = self.schedule.at(step)
        level = self.growth.find_level(stage.resolution, self.full)
        self.growth.follow(level, stage.alpha(step))

    def signature(self) -> Hashable:
        return self.growth.level, self.growth.mixes, super().signature()

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        return super().player_loss(who, {"real": self.fade(reals["real"])})

    def fade(self, real: Batch) -> Batch:
        """Real images that fade like G's: from those of half the size to themselves."""
        if not self.growth.mixes:
            return real
        return real._replace(x=self.growth.fade(double(halve(real.x)), real.x))

    def describe_turns(self) -> list[str]:
        sides = " ".join(str(stage.resolution) for stage in self.schedule)
        return [
            *super().describe_turns(),
            f"growing: {sides} pixels, the last in full from step {self.schedule.grown_at} on",
        ]
