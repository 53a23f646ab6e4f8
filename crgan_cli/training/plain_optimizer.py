"""PyTorch's optimizers without torch._dynamo."""

from inspect import unwrap

from torch.optim import Optimizer


class PlainOptimizer(Optimizer):
    """PyTorch's base class, with its methods as they are written.

    Decorators import torch._dynamo (1.5 s) to keep torch.compile away from them. crgan compiles
    networks alone, so the compiler never comes to an optimizer.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)
