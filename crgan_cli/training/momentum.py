"""Gradient descent with a momentum that may change inside a CUDA graph."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from crgan_cli.training.plain_optimizer import PlainOptimizer


class MomentumSGD(PlainOptimizer):
    """v <- momentum * v - lr * gradient; w <- w + v.

    The classical form (Polyak 1964; Sutskever et al. 2013, eq. 1 and 2), which pylearn2 has too.
    torch.optim.SGD has lr outside of v, which differs while lr changes, and takes the momentum as a
    Python number, which a captured turn would keep for ever. Here both are tensors, ().
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: Tensor, momentum: Tensor) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "a turn computes its loss once"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            velocities = [self.velocity(p) for p in parameters]
            torch._foreach_mul_(velocities, group["momentum"])  # type: ignore
            steps = torch._foreach_mul([p.grad for p in parameters], group["lr"])  # type: ignore
            torch._foreach_sub_(velocities, steps)  # type: ignore
            torch._foreach_add_(parameters, velocities)  # type: ignore

    def velocity(self, parameter: nn.Parameter) -> Tensor:
        """Return v of a parameter, which is 0 at first."""
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        return state["velocity"]
