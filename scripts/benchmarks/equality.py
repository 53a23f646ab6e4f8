"""Whether both sides of a comparison pay the same, and are pulled the same way."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.types import Terms

LOSSES = 1e-4  # by which terms may differ, relative to 1 or to themselves where that is more
GRADIENTS = 1e-3  # by which a player's gradient may differ, relative to its length


class Mirror(Augment):
    """A T without chance, to compare two sides by."""

    def transform(self, x: Tensor) -> Tensor:
        return x.flip(3).roll(1, 2)


def make_repeatable(network: nn.Module) -> None:
    """Without dropout, and with spectral norm standing still."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, parametrize.ParametrizationList):
            module.eval()


def compare(who: str, ours: Terms, mine: nn.Module, theirs: Terms, other: nn.Module) -> None:
    """Raises UserError where the terms differ, or the gradients of the player who pays them."""
    compare_terms(ours, theirs)
    compare_gradients(who, gradients(ours, mine), gradients(theirs, other))


def gradients(terms: Terms, player: nn.Module) -> dict[str, Tensor]:
    """Of the sum of the terms, by the parameter's name; zeros where it takes no part."""
    named = dict(player.named_parameters())
    total = torch.stack(list(terms.values())).sum()
    found = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def refuse(what: str) -> UserError:
    return UserError(
        f"The two sides do not play the same game: {what}. A ratio of their times would say "
        "nothing, so none is measured. Time crgan alone with --against none, and tell us."
    )


def compare_terms(ours: Terms, theirs: Terms) -> None:
    """Raises UserError where a term is not the same on both sides."""
    if ours.keys() != theirs.keys():
        raise refuse(f"crgan's terms are {sorted(ours)} and the others' {sorted(theirs)}")
    for name, term in ours.items():
        mine, other = term.item(), theirs[name].item()
        if not abs(mine - other) <= LOSSES * max(1.0, abs(mine)):
            raise refuse(f"{name} is {mine:.6g} for crgan and {other:.6g} for the others")


def compare_gradients(who: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raises UserError where a player is not pulled the same way on both sides."""
    apart = length([ours[name] - theirs[name] for name in ours])
    whole = length(list(ours.values()))
    if not apart <= GRADIENTS * whole:
        raise refuse(f"{who.upper()}'s gradients lie {apart / whole:.2g} of their length apart")


def length(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm of all numbers together."""
    return torch.stack([each.norm() for each in tensors]).norm().item()
