"""StarGAN against its formulas written out, its labels, and the whole as a game of the trainer."""

import pytest
import torch
from support.games import different, go_on, run
from support.ranks import in_processes
from support.tapes import Taped
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.labels import LabelGroup, Labels
from crgan_cli.gan.losses import Wasserstein
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.classification import Classification
from crgan_cli.gan.regularizers.penalties import GradientPenalty
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.stargan import StarGAN, make_translation, read_changes, shuffle_rows
from crgan_cli.gan.types import Batch, Verdict
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
N, C, SIDE = 4, 2, 8
CLASSES = Labels([LabelGroup("classes", ("shirt", "bag", "boot"))])
HAIR = LabelGroup("attributes", ("black", "blond", "young"), (("black", "blond"),))
ATTRIBUTES = Labels([HAIR])
JOINT = Labels([HAIR, LabelGroup("classes", ("happy", "sad"))])

KINDS = pytest.mark.parametrize(
    "labels", [CLASSES, ATTRIBUTES, JOINT], ids=["classes", "attributes", "joint"]
)


class TinyRelabeller(nn.Module):
    """Image and label planes -> convolution -> tanh -> convolution -> tanh."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(C + planes, 4, 3, padding=1)
        self.last = nn.Conv2d(4, C, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        spread = y.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.last(self.first(torch.cat([x, spread], 1)).tanh()).tanh()


class TinyJudge(nn.Module):
    """Image -> convolution -> a map of logits, and class logits."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, 4, 3, stride=2, padding=1)
        self.source = nn.Conv2d(4, 1, 3)
        self.classes = nn.Conv2d(4, labels, SIDE // 2)

    def forward(self, x: Tensor, y: Tensor | None) -> Verdict:
        h = self.conv(x).tanh()
        return Verdict(self.source(h), self.classes(h).flatten(1))


def game(labels: Labels = CLASSES, *, n_dis: int = 2) -> StarGAN:
    torch.manual_seed(0)
    parts = CombinedRegularizer(
        classification=Classification(2.0, labels=labels), gp=GradientPenalty(10)
    )
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    adversary = Adversary(TinyJudge(labels.size), Wasserstein(), parts, T)
    return StarGAN(TinyRelabeller(labels.planes), adversary, labels, n_dis=n_dis, lambda_rec=10.0)


def draw_rows(labels: Labels) -> Tensor:
    """The labels of N images as a data set stores them."""
    if labels is CLASSES:
        return torch.tensor([0, 2, 1, 2])
    y = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    if labels is ATTRIBUTES:
        return y
    return torch.cat([y, torch.zeros(N, 2), torch.tensor([[1, 0]]).expand(N, 2)], 1).long()


@KINDS
def test_the_losses_are_the_papers_formulas(labels: Labels) -> None:
    task = game(labels).double()
    x = torch.rand(N, C, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    rows = draw_rows(labels)
    reals = {"real": Batch(x, rows)}
    y = labels.encode(rows).double()

    def classify(logits: Tensor, target: Tensor) -> Tensor:
        if labels is CLASSES:
            return cross_entropy(logits, target.argmax(1))
        whole = binary_cross_entropy_with_logits(logits[:, :3], target[:, :3], reduction="none")
        return whole.sum(1).mean()

    torch.manual_seed(5)
    target = shuffle_rows(y)
    G, D = task.G, task.adversary.D
    fake = G(x, target)
    verdict = D(fake, None)
    expected = -verdict.logits.mean() + 2 * classify(verdict.classes, target)
    expected = expected + 10 * (G(fake, y) - x).abs().mean()
    torch.manual_seed(5)
    total = torch.stack(list(task.player_loss("g", reals).terms.values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    weights = list(G.parameters())
    found, wanted = (torch.autograd.grad(each, weights) for each in (total, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)

    torch.manual_seed(5)
    shuffle_rows(y)
    a = torch.rand(N, 1, 1, 1, dtype=torch.float64)
    x_hat = (a * x + (1 - a) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(D(x_hat, None).logits.sum(), x_hat, create_graph=True)
    real = D(x, None)
    d_expected = D(fake.detach(), None).logits.mean() - real.logits.mean()
    d_expected = d_expected + 2 * classify(real.classes, y)
    d_expected = d_expected + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    torch.manual_seed(5)
    d_total = torch.stack(list(task.player_loss("d", reals).terms.values())).sum()
    torch.testing.assert_close(d_total, d_expected, rtol=1e-6, atol=1e-6)
    d_weights = list(D.parameters())
    found = torch.autograd.grad(d_total, d_weights, allow_unused=True)
    wanted = torch.autograd.grad(d_expected, d_weights, allow_unused=True)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_targets_are_the_labels_of_the_batch_in_another_order() -> None:
    torch.manual_seed(0)
    y = torch.arange(12.0).view(6, 2)
    found = shuffle_rows(y)
    assert not torch.equal(found, y)
    assert torch.equal(found[found[:, 0].argsort()], y)


def shuffle_part() -> Tensor:
    """This process's part of eight shuffled rows."""
    from crgan_cli.system.distributed.world import world

    torch.manual_seed(3)
    return shuffle_rows(torch.arange(8.0)[:, None].chunk(world().world_size)[world().rank])


def test_rows_are_shuffled_over_all_processes() -> None:
    one, other = in_processes(2, shuffle_part)
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    assert torch.equal(shuffle_part(), torch.cat([one, other]))


def test_labels_are_switched_with_their_rivals() -> None:
    y = ATTRIBUTES.encode(torch.tensor([[1, 0, 1]]))
    assert ATTRIBUTES.switch(y, {"blond": True}).tolist() == [[0, 1, 1]]
    assert ATTRIBUTES.switch(y, {"blond": True, "young": False}).tolist() == [[0, 1, 0]]
    assert ATTRIBUTES.switch(y, {"black": False}).tolist() == [[0, 0, 1]]
    assert CLASSES.switch(CLASSES.encode(torch.tensor([0])), {"boot": True}).tolist() == [[0, 0, 1]]
    joint = JOINT.encode(draw_rows(JOINT)[:1])
    assert JOINT.switch(joint, {"sad": True}).tolist() == [[0, 0, 0, 0, 1, 0, 1]]
    assert JOINT.switch(joint, {"blond": True}).tolist() == [[0, 1, 1, 0, 0, 1, 0]]


def test_a_translation_is_compared_with_images_that_have_its_label() -> None:
    view = make_translation(ATTRIBUTES, {"blond": True, "young": False}, {"channels": C})
    assert view.choose
    assert view.choose(torch.tensor([[0, 1, 0], [0, 1, 1], [1, 0, 0]])).tolist() == [
        True,
        False,
        False,
    ]
    G = TinyRelabeller(3)
    x, y = torch.rand(1, C, SIDE, SIDE), torch.tensor([[1, 0, 1]])
    assert torch.equal(view.draw(G, Batch(x, y)), G(x, torch.tensor([[0, 1, 0]])))
    assert view.back
    assert torch.equal(view.back(G, Batch(x, y)), G(x, y))


def test_sets_in_turn_need_d_steps_that_end_on_each() -> None:
    config = {
        "dataset": {"channels": 3, "parts": {"a": {"classes": 2}, "b": {"attributes": ["young"]}}},
        "optimizer": {"n_dis": 4},
    }
    with pytest.raises(UserError, match=r"optimizer\.n_dis=5"):
        StarGAN.arguments(config)
    config["optimizer"]["n_dis"] = 5
    assert StarGAN.arguments(config)["labels"].planes == 5
    assert list(StarGAN.draws(config)) == ["0", "1", "young"]


def test_labels_that_two_sets_share_are_told_apart() -> None:
    """Each part has its own column, its own images to compare with, and its own --to."""
    parts = {
        "one": {"attributes": ["m", "w", "old"], "exclusive": [["m", "w"]]},
        "two": {"classes": 2},
    }
    config = {"dataset": {"channels": C, "parts": parts}}
    names = ["m", "w", "old", "w", "m"]
    draws = StarGAN.draws(config, names)
    assert list(draws) == ["one.m", "one.w", "old", "two.w", "two.m"]
    view = StarGAN.choose_translation(config, "two.m", names)
    assert view.target == draws["two.m"].target == "two"
    seen: list[Tensor] = []
    row = torch.tensor([[0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 1]])
    for each in (view, draws["one.w"]):
        each.draw(lambda x, y: seen.append(y) or x, Batch(torch.zeros(2, C, 8, 8), row))  # pyright: ignore
    assert seen[0].tolist() == [[0, 0, 0, 0, 1, 0, 1]] * 2
    assert seen[1][:, :5].tolist() == [[0, 1, 0, 0, 0]] * 2
    assert view.choose
    assert view.choose(row).tolist() == [False, True]
    with pytest.raises(
        UserError, match=r"no m\. Type --to with one of one\.m, one\.w, old, two\.w"
    ):
        StarGAN.choose_translation(config, "m", names)
    with pytest.raises(UserError, match="exclude one another"):
        StarGAN.choose_translation(config, "one.m,one.w", names)
    with pytest.raises(UserError, match="several labels are called m"):
        Labels([LabelGroup("classes", ("m", "w")), LabelGroup("attributes", ("m",))])


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (None, "several domains.*black, blond, young"),
        ("red", "there is no red"),
        ("black,blond", "exclude one another"),
    ],
)
def test_impossible_targets_are_answered_with_those_there_are(to: str | None, words: str) -> None:
    dataset = {"channels": 3, "attributes": HAIR.names, "exclusive": HAIR.exclusive}
    with pytest.raises(UserError, match=words):
        StarGAN.choose_translation({"dataset": dataset}, to)


def test_a_target_switches_several_attributes() -> None:
    dataset = {"channels": 3, "attributes": HAIR.names, "exclusive": HAIR.exclusive}
    view = StarGAN.choose_translation({"dataset": dataset}, "+blond,-young")
    assert view.needs_labels
    G, x = TinyRelabeller(3), torch.rand(1, C, SIDE, SIDE)
    y, target = torch.tensor([[1, 0, 1]]), torch.tensor([[0, 1, 0]])
    assert torch.equal(view.draw(G, Batch(x, y)), G(x, target))


@pytest.mark.parametrize(
    ("to", "changes"),
    [
        ("pears, green", {"pears, green": True}),
        ("-pears, green,+-x, young", {"pears, green": False, "-x": True, "young": True}),
        ("-x", {"-x": True}),
        ("--x,", {"-x": False}),
        ("+a,-b, c", {"a": True, "b": False, "c": True}),
        ("", {}),
    ],
)
def test_a_known_name_may_have_commas_and_signs(to: str, changes: dict[str, bool]) -> None:
    assert read_changes(to, ["pears, green", "-x", "young"]) == changes


def test_a_data_set_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset=demo_attributes"):
        StarGAN.casting({"dataset": {"classes": 0}})


def trainer(engine: Eager, labels: Labels) -> Trainer:
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (12, C, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    task = game(labels, n_dis=3)
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    y = torch.cat([draw_rows(labels)] * 3)
    batches = Batches(Images(x, y), batch_size=4, seed=1, device=CPU, flip=True, parts=(8, 4))
    return Trainer(
        task,
        engine,
        Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, 3, "none"),
        lambda stage: batches,
        Stages.single(32, 4, 3),
        ema=EMA(task.G, 0.9, start=3),
        seed=1,
        steps=20,
        log_every=3,
    )


@KINDS
def test_captured_turns_give_the_bits_of_eager_ones(labels: Labels) -> None:
    one, other = run(trainer(Eager(), labels), 9), run(trainer(Taped(), labels), 9)
    assert different(one, other) == []


def test_a_resumed_game_is_one_that_never_stopped() -> None:
    whole = run(trainer(Eager(), JOINT), 7)
    first, second = trainer(Eager(), JOINT), trainer(Eager(), JOINT)
    run(first, 3)
    go_on(first, second, 3)
    resumed = run(second, 4)
    assert different(whole, resumed) == []
