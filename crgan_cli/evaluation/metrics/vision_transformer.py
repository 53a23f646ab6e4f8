"""The network of DINOv2 (Oquab et al. 2023, arXiv:2304.07193), for images of one size.

torch-fidelity runs the code that torch hub downloads from facebookresearch/dinov2. The network is
small enough to write down here, so that only a file of tensors has to be trusted.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of layer normalisation [code: dinov2/models/vision_transformer.py]
HEAD = 64  # channels of an attention head, in all published sizes [code: the same]
PATCH = 14  # pixels [code: dinov2/hub/backbones.py]


class Attention(nn.Module):
    """Multi-head self-attention; one product computes queries, keys and values of all heads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = dim // HEAD
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, dim) -> the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A learned factor per channel, Touvron et al. 2021 (arXiv:2103.17239)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + scale * attention(norm(x)), then the same with the MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = Attention(dim)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(dim, 4 * dim), gelu=nn.GELU(), fc2=nn.Linear(4 * dim, dim))
        )
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """(N, 3, 14 grid, 14 grid) -> (N, dim), the normalised class token."""

    def __init__(self, dim: int, depth: int, grid: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, dim))
        self.patch_embed = nn.Sequential(
            OrderedDict(proj=nn.Conv2d(3, dim, PATCH, stride=PATCH), flatten=nn.Flatten(2))
        )
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        return self.norm(self.blocks(tokens)[:, 0])


def positions_at(pos_embed: Tensor, grid: int) -> Tensor:
    """(1, 1 + g^2, dim) position embeddings -> (1, 1 + grid^2, dim), bicubic.

    The class token's stays. The factor is (grid + 0.1) / g as in [code: interpolate_pos_encoding].
    The 0.1 protects against rounding, but also moves the embeddings a little, so it is part of the
    function.
    """
    side = round((pos_embed.shape[1] - 1) ** 0.5)
    if side == grid:
        return pos_embed
    patches = pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factor = (grid + 0.1) / side
    moved = F.interpolate(patches, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([pos_embed[:, :1], moved.flatten(2).transpose(1, 2)], 1)
