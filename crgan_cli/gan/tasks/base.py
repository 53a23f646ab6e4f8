"""The interface of a task to the trainer, the engine and the evaluation."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.stored_values import StoredValues
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
    paired: bool = False  # image i of the target is what image i of the source should become
    choose: Callable[[Tensor], Tensor] | None = None
    """The labels of the target's images -> (N,) bool, those to compare with. None: all."""
    back: Callable[[nn.Module, Batch], Tensor] | None = None
    """(player G, translated images with the labels of their inputs) -> the inputs again."""
    in_channels: int = 0
    """Channels of the images of `source`; 0 for latents."""
    network: str = ""
    """The network of the player G that `draw` calls; "" if G is one network."""
    needs_labels: bool = False
    """Whether `draw` needs the labels of its inputs. Those of files are estimated by D."""


class Task(nn.Module):
    """The players, the order of their turns, and their losses.

    A turn is one update of one player. It has fixed shapes and no host-device synchronisation. A
    player is a network, or an `nn.ModuleDict` of several that one optimizer updates together.
    """

    turns: tuple[str, ...]
    """The players whose turns make up one step, in order."""

    roles: ClassVar[tuple[str, ...]] = ("real", "fake")
    """The views that a regularizer can have scored, besides those from latents of its own."""

    has_latents: ClassVar[bool] = False
    """Whether images are drawn from latents."""

    accumulates: ClassVar[bool] = False
    """Whether a turn can be computed in parts of its batch: nothing is kept from turn to turn."""

    stored_values: ClassVar[StoredValues] = {}
    """What a checkpoint must tell of its data set, for networks that translate. Nothing else of
    that group is read: the data need not be there, and a stranger may have written it."""

    needs: ClassVar[str] = ""
    """What to type if the architecture does not fit, as a sentence."""

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        """The networks of each player, for a run's whole configuration. Raise UserError if its data
        set has no images for this task."""
        return {"g": {"": Part("generator")}, "d": {"": Part("discriminator")}}

    @classmethod
    def arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor that come from other groups of a run's configuration."""
        return {"n_dis": config["optimizer"]["n_dis"]}

    @classmethod
    def draws(
        cls, config: Mapping[str, Any], class_names: Sequence[str] = ()
    ) -> dict[str, GeneratedView]:
        """Name -> what is drawn and scored, for a run's whole configuration.

        The name is "" if there is one kind of images only, else what images are translated to.
        `class_names` are those of the data set, if it has classes and they are known.
        """
        raise NotImplementedError

    @classmethod
    def choose_translation(
        cls, config: Mapping[str, Any], to: str | None, class_names: Sequence[str] = ()
    ) -> GeneratedView:
        """What `--to` asks for; None if it was not typed. Raise UserError if there is none."""
        draws = cls.draws(config, class_names)
        if to is None and len(draws) == 1:
            return next(iter(draws.values()))
        if to and to in draws:
            return draws[to]
        names = [f"--to {name}" for name in draws if name]
        problem = f"there is no translation --to {to}" if to else "there are several translations"
        advice = f"Type {' or '.join(names)}" if names else "Leave out --to"
        raise UserError(f"{problem}. {advice}.")

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

    def prepare_turn(self) -> None:
        """Change weights in place before the turn's networks run; part of the turn."""

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


def require_one_d_step(task: str, n_dis: int) -> None:
    """Raise UserError unless a G step has one D step, on the images that G has made in it."""
    if n_dis != 1:
        raise UserError(
            f"task={task} takes one D step per G step, and optimizer.n_dis is {n_dis}. Type "
            "optimizer.n_dis=1"
        )


@torch.no_grad()
def hold(place: Tensor | None, x: Tensor) -> Tensor:
    """Copy x to the place of the last turn, where the turns of a CUDA graph read it. Return it."""
    if place is None or place.shape != x.shape:
        place = torch.empty_like(x)
    return place.copy_(x)


def l1_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference, ()."""
    return (x - y).abs().mean()
