"""Top-k training of G."""

import pytest
import torch
from support.tiny import game

from crgan_cli.errors import UserError
from crgan_cli.gan.losses import Relativistic
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.top_k import TopK
from crgan_cli.gan.types import Batch

REAL = {"real": Batch(torch.rand(6, 3, 8, 8, generator=torch.manual_seed(1)).double() * 2 - 1)}


pytestmark = pytest.mark.usefixtures("float64")


def part() -> TopK:
    return TopK(gamma=0.5, nu=0.3, epoch_steps=10)


@pytest.mark.parametrize(("turn", "k"), [(0, 6), (9, 6), (10, 3), (20, 1), (500, 1)])
def test_k_falls_epoch_by_epoch_to_its_least_share(turn: int, k: int) -> None:
    top = part()
    top.set_turn("g", turn)
    scores = torch.tensor([0.1, 5.0, -2.0, 3.0, 4.0, -1.0])
    chosen = top.choose_fakes(scores)
    assert chosen is not None
    assert sorted(chosen.tolist()) == sorted(scores.argsort(descending=True)[:k].tolist())


def test_of_a_map_the_mean_counts() -> None:
    top = part()
    top.set_turn("g", 10)
    maps = torch.tensor([[9.0, -9.0], [1.0, 1.0]]).view(2, 1, 1, 2)
    chosen = top.choose_fakes(maps)
    assert chosen is not None
    assert chosen.tolist() == [1]


@pytest.mark.parametrize("relativistic", [False, True])
def test_g_learns_from_the_best_and_d_from_all(relativistic: bool) -> None:
    loss = Relativistic() if relativistic else None
    all_of_them, best = game(loss=loss), game(part(), loss=loss)
    for task in (all_of_them, best):
        task.set_turn("d", 10)
    torch.manual_seed(0)
    expected = all_of_them.player_loss("d", REAL).terms["adversarial/d"]
    torch.manual_seed(0)
    torch.testing.assert_close(best.player_loss("d", REAL).terms["adversarial/d"], expected)

    best.set_turn("g", 10)
    torch.manual_seed(0)
    found = best.player_loss("g", REAL).terms["adversarial/g"]
    torch.manual_seed(0)
    fake = best.G(torch.randn(6, 4), None)
    scores = best.adversary.D(fake, None)
    first = scores.argsort(descending=True)[:3]
    real = best.adversary.D(REAL["real"].x, None)
    compared = real[first] - scores[first] if relativistic else -scores[first]
    torch.testing.assert_close(found, torch.nn.functional.softplus(compared).mean())


def test_two_choices_of_images_are_refused() -> None:
    with pytest.raises(UserError, match="one and other both choose the images"):
        CombinedRegularizer(one=part(), other=part())


def test_only_g_s_turns_have_another_form_for_each_k() -> None:
    task = game(part())
    found = []
    for who, turn in (("d", 0), ("d", 30), ("g", 0), ("g", 9), ("g", 10)):
        task.set_turn(who, turn)
        found.append(task.signature())
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[3] != found[4]
