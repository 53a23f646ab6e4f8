"""What the tasks with one generator and one discriminator share."""

from collections.abc import Hashable

from torch import nn

from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.tasks.base import Task


class TwoPlayers(Task):
    """G against the D of one adversary, whose regularizers may be lazy."""

    def __init__(self, G: nn.Module, adversary: Adversary) -> None:
        super().__init__()
        self.G = G
        self.adversary = adversary

    def player(self, who: str) -> nn.Module:
        return {"d": self.adversary.D, "g": self.G}[who]

    def set_turn(self, who: str, turn: int) -> None:
        self.adversary.regularizer.set_turn(who, turn)

    def signature(self) -> Hashable:
        return self.adversary.regularizer.signature()

    def prepare_turn(self) -> None:
        self.adversary.prepare_turn()

    def players_with_double_backward(self) -> tuple[str, ...]:
        return self.adversary.players_with_double_backward
