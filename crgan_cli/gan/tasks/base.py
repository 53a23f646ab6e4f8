"""The interface of a task to the trainer, the engine and the evaluation."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from crgan_cli.gan.types import Batch, PlayerLoss, Views

Kind = Literal["generator", "discriminator"]


class Part(NamedTuple):
    """One network of a player: its class in the architecture, and what the task adds."""

    kind: Kind
    settings: Mapping[str, object] = {}  # constructor parameters, such as in_channels


Casting = dict[str, dict[str, Part]]
"""Player -> name -> network. A player with one network has the name ""."""


class GeneratedView(NamedTuple):
    """Images that G makes for grids and metrics, and the real images that they are compared with.

    `source` is "z" for latents, or else the view of the data set that G translates. `draw` takes
    latents or images as the x of a batch, and their labels.
    """

    draw: Callable[[nn.Module, Batch], Tensor]  # (player G, batch) -> (N, C, H, W) in [-1, 1]
    source: str = "z"
    target: str = "real"


class Task(nn.Module):
    """The players, the order of their turns, and their losses.

    A turn is one update of one player. It has fixed shapes and no host-device synchronisation. A
    player is a network, or an `nn.ModuleDict` of several that one optimizer updates together.
    """

    turns: tuple[str, ...]
    """The players whose turns make up one step, in order."""

    roles: ClassVar[tuple[str, ...]] = ("real", "fake")
    """The views that a regularizer can have scored, besides those from latents of its own."""

    needs: ClassVar[str] = ""
    """What to type if the architecture does not fit, as a sentence."""

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        """The networks of each player, for a run's whole configuration. Raise UserError if its data
        set has no images for this task."""
        return {"g": {"": Part("generator")}, "d": {"": Part("discriminator")}}

    @classmethod
    def draws(cls) -> dict[str, GeneratedView]:
        """Name -> what is drawn and scored. "" if it is one kind of images only."""
        raise NotImplementedError

    @classmethod
    def has_latents(cls) -> bool:
        """Whether images are drawn from latents."""
        return all(drawing.source == "z" for drawing in cls.draws().values())

    def player(self, who: str) -> nn.Module:
        """What is updated in the turns of `who`: a network, or an nn.ModuleDict of several."""
        raise NotImplementedError

    def networks(self, who: str) -> list[nn.Module]:
        """The networks of a player."""
        player = self.player(who)
        return list(player.values()) if isinstance(player, nn.ModuleDict) else [player]

    def players_run(self, who: str) -> tuple[str, ...]:
        """The players whose networks run in a turn of `who`."""
        return tuple(dict.fromkeys(self.turns))

    def set_turn(self, who: str, turn: int) -> None:
        """Prepare for turn number `turn` of `who`, counted from 0 over the whole run."""

    def signature(self) -> Hashable:
        """What decides, besides the player, which operations the coming turn consists of."""
        return ()

    def players_with_double_backward(self) -> tuple[str, ...]:
        """The players whose backward pass is differentiated again, by a penalty."""
        return ()

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        """The loss of `who` in this turn, on the turn's real images."""
        raise NotImplementedError

    def describe_turns(self) -> list[str]:
        """One line per player for the log: what one of its turns computes."""
        raise NotImplementedError
