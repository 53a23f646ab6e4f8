"""Residual blocks: the ways up and down, and the skip."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks import blocks
from crgan_cli.networks.layers import UnconditionalBatchNorm


def test_zero_insertion_puts_the_value_in_the_top_left_corner() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    assert blocks.ZeroInsertion()(x)[0, 0].tolist() == expected


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
    up = blocks.ZeroInsertion()
    block = blocks.UpBlock(3, 4, UnconditionalBatchNorm, up, blocks.up_shortcut_3x3(3, 4)).double()
    x = torch.randn(2, 3, 4, 4).double()

    def normed(h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True)

    h = F.conv2d(up(normed(x).clamp_min(0)), block.conv1.weight, block.conv1.bias, padding=1)
    h = F.conv2d(normed(h).clamp_min(0), block.conv2.weight, block.conv2.bias, padding=1)
    conv = block.shortcut[1]
    by_hand = h + F.conv2d(up(x), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x, None), by_hand)


def test_a_discriminators_block_is_the_table() -> None:
    pool = nn.AvgPool2d(2)
    block = blocks.Residual(blocks.body(3, 4, pool), blocks.down_shortcut_3x3(3, 4, pool)).double()
    x = torch.randn(2, 3, 4, 4).double()
    conv1, conv2, conv = block.body[1], block.body[3], block.shortcut[0]
    h = F.conv2d(x.clamp_min(0), conv1.weight, conv1.bias, padding=1)
    h = F.conv2d(h.clamp_min(0), conv2.weight, conv2.bias, padding=1)
    by_hand = F.avg_pool2d(h + F.conv2d(x, conv.weight, conv.bias, padding=1), 2)
    torch.testing.assert_close(block(x), by_hand)


@pytest.mark.parametrize("shortcut", [nn.Identity(), blocks.conv3(4, 4)])
def test_the_skip_carries_x_and_not_its_relu(shortcut: nn.Module) -> None:
    block = blocks.Residual(blocks.body(4, 4, nn.Identity()), shortcut)
    last = block.body[3]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(2, 4, 4, 4)
    kept = x.clone()
    assert torch.equal(block(x), shortcut(kept))
    assert torch.equal(x, kept)
