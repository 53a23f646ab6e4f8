"""The interface of a task to the trainer and the engine."""

from collections.abc import Hashable

from torch import nn

from crgan_cli.gan.types import Batch, PlayerLoss


class Task(nn.Module):
    """The players, the order of their turns, and their losses.

    A turn is one update of one player. It has fixed shapes and no host-device synchronisation.
    """

    turns: tuple[str, ...]
    """The players whose turns make up one step, in order."""

    def player(self, who: str) -> nn.Module:
        """The network that is updated in the turns of `who`."""
        raise NotImplementedError

    def set_turn(self, who: str, turn: int) -> None:
        """Prepare for turn number `turn` of `who`, counted from 0 over the whole run."""

    def signature(self) -> Hashable:
        """What decides, besides the player, which operations the coming turn consists of."""
        return ()

    def players_with_double_backward(self) -> tuple[str, ...]:
        """The players whose backward pass is differentiated again, by a gradient penalty."""
        return ()

    def player_loss(self, who: str, batch: Batch) -> PlayerLoss:
        """The loss of `who` in this turn."""
        raise NotImplementedError

    def describe_turns(self) -> list[str]:
        """One line per player for the log: what one of its turns computes."""
        raise NotImplementedError
