"""Watches the operations of a training step, as a GPU and a CUDA graph would meet them."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

WAITS = (
    "_local_scalar_dense",  # item(), float(tensor), if tensor:
    "nonzero",  # x[mask]
    "masked_select",
    "_unique2",
    "unique_dim",
    "_foreach_norm",  # may copy a table from host memory
)
"""What would make a GPU wait for the host, give shapes that depend on values, or read memory of the
host that is gone when a CUDA graph is replayed."""


class NoSync(TorchDispatchMode):
    """Fails on what is in WAITS, and notes every operation with the shapes that it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[tuple[int, ...], ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITS, name
        out = func(*args, **(kwargs or {}))
        shapes = tuple(tuple(x.shape) for x in tree_flatten(out)[0] if isinstance(x, Tensor))
        self.seen.append((name, shapes))
        return out
