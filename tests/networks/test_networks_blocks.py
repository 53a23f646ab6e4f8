"""Residual blocks: the ways up and down, and the skip."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks import blocks
from crgan_cli.networks.fast.folding import PooledConv3, ZeroInsertionConv3, insert_zeros
from crgan_cli.networks.layers import PlainBatchNorm


def test_a_1x1_before_upsampling_equals_one_after() -> None:
    shortcut = blocks.up_shortcut_1x1(3, 5).double()
    x = torch.randn(2, 3, 4, 4).double()
    by_hand = shortcut[0](x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(shortcut(x), by_hand)


def test_a_1x1_after_pooling_equals_one_before() -> None:
    shortcut = blocks.down_shortcut_1x1(3, 5, nn.AvgPool2d(2)).double()
    x = torch.randn(2, 3, 4, 4).double()
    torch.testing.assert_close(shortcut(x), F.avg_pool2d(shortcut[1](x), 2))


def test_a_generators_block_is_the_table() -> None:
    shortcut = blocks.up_shortcut_3x3(3, 4)
    block = blocks.UpBlock(3, 4, PlainBatchNorm, ZeroInsertionConv3, shortcut).double()
    x = torch.randn(2, 3, 4, 4).double()

    def normed(h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True)

    h = F.conv2d(
        insert_zeros(normed(x).clamp_min(0)), block.conv1.weight, block.conv1.bias, padding=1
    )
    h = F.conv2d(normed(h).clamp_min(0), block.conv2.weight, block.conv2.bias, padding=1)
    conv = block.shortcut[0]
    by_hand = h + F.conv2d(insert_zeros(x), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x, None), by_hand)


def test_a_discriminators_block_is_the_table() -> None:
    through, shortcut = blocks.body(3, 4, PooledConv3), blocks.down_shortcut_3x3(3, 4, PooledConv3)
    block = blocks.Residual(through, shortcut).double()
    x = torch.randn(2, 3, 4, 4).double()
    conv1, conv2, conv = block.body[1], block.body[3], block.shortcut[0]
    h = F.conv2d(x.clamp_min(0), conv1.weight, conv1.bias, padding=1)
    h = F.conv2d(h.clamp_min(0), conv2.weight, conv2.bias, padding=1)
    by_hand = F.avg_pool2d(h + F.conv2d(x, conv.weight, conv.bias, padding=1), 2)
    torch.testing.assert_close(block(x), by_hand)


@pytest.mark.parametrize("shortcut", [nn.Identity(), blocks.conv3(4, 4)])
def test_the_skip_carries_x_and_not_its_relu(shortcut: nn.Module) -> None:
    block = blocks.Residual(blocks.body(4, 4, blocks.conv3), shortcut)
    last = block.body[3]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(2, 4, 4, 4)
    kept = x.clone()
    assert torch.equal(block(x), shortcut(kept))
    assert torch.equal(x, kept)
