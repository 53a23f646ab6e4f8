"""What the trainer and the engine know of a task."""

from collections.abc import Hashable

from torch import nn

from crgan_cli.gan.types import Batch, PlayerLoss


class Task(nn.Module):
    """The players, their order, and what each pays. A turn has fixed shapes and never syncs."""

    turns: tuple[str, ...]
    """Who moves within one step, in order."""

    def player(self, who: str) -> nn.Module:
        """The network whose parameters `who` updates."""
        raise NotImplementedError

    def set_turn(self, who: str, turn: int) -> None:
        """Called before turn number `turn` of `who`, counted from 0 over the whole run."""

    def signature(self) -> Hashable:
        """What, besides the player, decides which operations the coming turn consists of."""
        return ()

    def players_with_double_backward(self) -> tuple[str, ...]:
        """The players through whose backward pass a penalty is differentiated once more."""
        return ()

    def player_loss(self, who: str, batch: Batch) -> PlayerLoss:
        """The terms that `who` pays in this turn."""
        raise NotImplementedError

    def describe_turns(self) -> list[str]:
        """One line a player: what a turn of theirs does, for the log."""
        raise NotImplementedError
