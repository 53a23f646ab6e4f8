"""The numbers of a turn for the log, which stay on the device; and the clipping by one of them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from crgan_cli.gan.types import TurnLog
from crgan_cli.system.distributed.tensors import all_reduce_mean


def mean_numbers(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means over the parts of a batch."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def turn_log(named: Mapping[str, Tensor]) -> TurnLog:
    """Return all numbers of a turn in one tensor, averaged over the ranks."""
    return TurnLog(tuple(named), all_reduce_mean(torch.stack(list(named.values())).float()))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the Euclidean norm of a player's whole gradient, ()."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    # foreach=False: `torch._foreach_norm` may copy a table of addresses from the host, and a graph
    # that is replayed would read that memory after it has been freed
    return get_total_norm(gradients, foreach=False)


@torch.no_grad()
def bound_gradient(
    who: str, parameters: Sequence[nn.Parameter], largest: float | None, *, measure: bool
) -> dict[str, Tensor]:
    """Shorten a player's gradient to the norm `largest`, unless None; see `Optimization`.

    Return for the log: with `measure` the norm, as it was; and 1 if it was longer, else 0, so that
    the mean over turns is the share of those clipped. All stays on the device. A norm that is not
    finite makes the whole gradient NaN, which the losses to come tell.
    """
    if largest is None:
        return {f"gradient_norm/{who}": gradient_norm(parameters)} if measure else {}
    norm = gradient_norm(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale.where(norm.isfinite(), norm * torch.nan))  # type: ignore
    clipped = {f"clipped/{who}": (norm > largest).float()}
    return ({f"gradient_norm/{who}": norm} if measure else {}) | clipped
