"""What acts on the weights themselves: orthogonal regularization and weight clipping."""

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NonNegative, Positive, PositiveInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Terms
from crgan_cli.networks.fast.bf16_weights import full_precision


class Orthogonal(Regularizer):
    """Brock et al. 2019 (arXiv:1809.11096) eq. 3, on G: beta * sum_W ||W^T W (1 - I)||_F^2.

    The columns of W are the filters of a layer; (1 - I) leaves out their own norms, so that only
    angles between them count. Of all convolutions and linear layers of G, as they are before
    spectral norm; not of embeddings, as in BigGAN-PyTorch, whose gradient is half of this one.
    """

    needs_G = True

    def __init__(self, beta: NonNegative, every: PositiveInt = 1) -> None:
        super().__init__()
        self.beta = beta
        self.every = every

    def g_terms(self, scored: ScoredViews) -> Terms:
        assert scored.origin is not None, "checked when the run was built"
        G = scored.origin.G
        assert isinstance(G, nn.Module)
        with full_precision(G, next(G.parameters()).device):
            penalties = [non_orthogonality(filters) for filters in filter_matrices(G)]
        return {"orthogonal": self.beta * torch.stack(penalties).sum()}


def filter_matrices(network: nn.Module) -> list[Tensor]:
    """The weights of each convolution and linear layer, (filters, inputs of a filter)."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            weights = {name: each for name, each in layer.named_parameters() if each.ndim > 1}
            assert len(weights) == 1, "a layer has one weight, maybe under spectral norm"
            (weight,) = weights.values()
            transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            found.append((weight.transpose(0, 1) if transposed else weight).flatten(1))
    return found


def non_orthogonality(filters: Tensor) -> Tensor:
    """||W^T W (1 - I)||_F^2 of filters as rows (f, n), ()."""
    products = filters @ filters.T
    return products.square().sum() - products.diagonal().square().sum()


class WeightClipping(Regularizer):
    """WGAN, Arjovsky et al. 2017 (arXiv:1701.07875) Algorithm 1: D's weights stay in [-clip, clip].

    They are clamped before each turn of D and of G, so D never scores with others. For
    loss=wasserstein; spectral norm in D would undo it.
    """

    def __init__(self, clip: Positive) -> None:
        super().__init__()
        self.clip = clip

    @torch.no_grad()
    def prepare(self, D: nn.Module) -> None:
        for parameter in D.parameters():
            parameter.clamp_(-self.clip, self.clip)
