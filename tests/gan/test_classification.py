"""Labels, the classification terms of StarGAN, and consistency of class logits."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.build import build_networks, build_task
from crgan_cli.gan.labels import LabelGroup, Labels
from crgan_cli.gan.losses import Wasserstein
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.classification import Classification
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, ConsistencyRegularization
from crgan_cli.gan.scoring import score
from crgan_cli.gan.types import Batch, Terms
from crgan_cli.networks.stargan import StarGANDiscriminator

ATTRIBUTES = LabelGroup("attributes", ("dark", "young", "hat"))
CLASSES = LabelGroup("classes", ("angry", "happy"))
JOINT = Labels([ATTRIBUTES, CLASSES])
Y = torch.tensor(
    [
        # dark young hat | angry happy | knows attributes, knows classes
        [1, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 1],
        [0, 1, 1, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 1],
    ]
)


@pytest.fixture(autouse=True)
def _seeded(float64: None) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def binary(logit: Tensor, target: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-logit))
    return -(target * p.log() + (1 - target) * (1 - p).log())


def of_classes(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * (logits.exp() / logits.exp().sum()).log()).sum()


def assert_same_with_gradient(loss: Tensor, by_hand: Tensor, logits: Tensor) -> None:
    torch.testing.assert_close(loss, by_hand)
    found, wanted = (torch.autograd.grad(v, logits)[0] for v in (loss, by_hand))
    torch.testing.assert_close(found, wanted)


def test_class_ids_become_rows_and_the_loss_is_the_cross_entropy() -> None:
    labels = Labels([CLASSES])
    y = labels.encode(torch.tensor([1, 0, 1]))
    assert y.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert (labels.size, labels.planes, y.dtype) == (2, 2, torch.float32)
    logits = torch.randn(3, 2, requires_grad=True)
    by_hand = sum(of_classes(*pair) for pair in zip(logits, y, strict=True)) / 3
    assert isinstance(by_hand, Tensor)
    assert_same_with_gradient(labels.loss(logits, y.double()), by_hand, logits)


def test_attributes_stay_and_the_loss_sums_over_them_and_is_the_mean_over_images() -> None:
    labels = Labels([ATTRIBUTES])
    stored = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8)
    y = labels.encode(stored)
    assert y.tolist() == stored.tolist()
    assert (labels.size, labels.planes, y.dtype) == (3, 3, torch.float32)
    logits = torch.randn(2, 3, requires_grad=True)
    assert_same_with_gradient(labels.loss(logits, y.double()), binary(logits, y).sum() / 2, logits)


def test_joint_labels_are_masked_by_what_a_row_knows() -> None:
    assert (JOINT.size, JOINT.planes) == (5, 7)
    y = JOINT.encode(Y)
    assert y.tolist() == Y.tolist()
    logits = torch.randn(4, 5, requires_grad=True)
    by_hand = (
        binary(logits[0, :3], y[0, :3]).sum()
        + of_classes(logits[1, 3:], y[1, 3:5])
        + binary(logits[2, :3], y[2, :3]).sum()
        + of_classes(logits[3, 3:], y[3, 3:5])
    ) / 4
    assert_same_with_gradient(JOINT.loss(logits, y.double()), by_hand, logits)


def test_an_unknown_label_changes_no_bit_of_a_gradient() -> None:
    """Neither what G sees of it, nor D's classification loss."""
    other = Y.clone()
    other[0, 3:5] = torch.tensor([1, 1])
    other[1, :3] = torch.tensor([1, 0, 1])
    assert torch.equal(JOINT.encode(Y), JOINT.encode(other))
    D = StarGANDiscriminator(8, 3, JOINT.size, None, 0.05, spectral_norm=False)
    part, x = Classification(1.0, labels=JOINT), torch.rand(4, 3, 8, 8)
    gradients = []
    for stored in (Y, other):
        views = {role: Batch(x, JOINT.encode(stored).double()) for role in ("real", "fake")}
        (term,) = part.d_terms(score(D, views, jointly=True)).values()
        gradients.append(torch.autograd.grad(term, list(D.parameters()), allow_unused=True))
    for one, two in zip(*gradients, strict=True):
        assert one is two is None or torch.equal(one, two)


# --- terms ----------------------------------------------------------------------------------------


def adversary(*parts: Regularizer, classifies: bool = True) -> Adversary:
    D: nn.Module = StarGANDiscriminator(8, 3, JOINT.size, None, 0.05, spectral_norm=False)
    if not classifies:
        D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1))
    named = {type(part).__name__: part for part in parts}
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    return Adversary(D, Wasserstein(), CombinedRegularizer(**named), T)


def views() -> dict[str, Batch]:
    target = JOINT.encode(Y.flip(0)).double()
    return {
        "real": Batch(torch.rand(4, 3, 8, 8) * 2 - 1, JOINT.encode(Y).double()),
        "fake": Batch(torch.rand(4, 3, 8, 8, requires_grad=True) * 2 - 1, target),
    }


def test_d_learns_the_labels_of_real_images_and_g_those_that_it_was_to_give() -> None:
    game, seen = adversary(Classification(2.0, labels=JOINT)), views()
    real, fake = seen["real"], seen["fake"]
    assert real.y is not None
    assert fake.y is not None
    d_terms: Terms = game.discriminator_loss(real, {"fake": fake}).terms
    g_terms: Terms = game.generator_loss(real, {"fake": fake}).terms
    assert d_terms.keys() == {"adversarial/d", "classification/d"}
    assert g_terms.keys() == {"adversarial/g", "classification/g"}
    D = game.D
    torch.testing.assert_close(
        d_terms["classification/d"], 2 * JOINT.loss(D(real.x, None).classes, real.y)
    )
    torch.testing.assert_close(
        g_terms["classification/g"], 2 * JOINT.loss(D(fake.x, None).classes, fake.y)
    )
    maps = {role: D(batch.x, None).logits for role, batch in seen.items()}
    torch.testing.assert_close(d_terms["adversarial/d"], maps["fake"].mean() - maps["real"].mean())
    assert torch.autograd.grad(g_terms["classification/g"], fake.x)[0].any()


@pytest.mark.parametrize("classes", [False, True])
def test_consistency_of_class_logits_has_the_weight_of_the_logits(classes: bool) -> None:
    cr = ConsistencyRegularization(10.0, classes=classes)
    bcr = BalancedConsistency(10.0, 7.0, classes=classes)
    game, seen = adversary(cr, bcr), views()
    torch.manual_seed(3)
    terms = game.discriminator_loss(seen["real"], {"fake": seen["fake"]}).terms
    torch.manual_seed(3)
    both = torch.cat([seen["real"].x, seen["fake"].x.detach()])
    before, after = game.D(both, None), game.D(game.T(Batch(both)).x, None)
    kinds = {"": (before.logits, after.logits)}
    if classes:
        kinds["_classes"] = before.classes, after.classes
    expected = {}
    for kind, (a, b) in kinds.items():
        gaps = [each.square().mean() for each in (a - b).split(4)]
        expected |= {f"cr/real{kind}": 10 * gaps[0], f"bcr/real{kind}": 10 * gaps[0]}
        expected |= {f"bcr/fake{kind}": 7 * gaps[1]}
    del terms["adversarial/d"]
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


# --- refused when the run is built ----------------------------------------------------------------

PGGAN = ("architecture.fmap_base=64", "architecture.fmap_max=8", "architecture.z_dim=4")
SMALL = ("architecture=mlp", "architecture.width=0.01", "dataset=demo")


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["regularizer=classification"], "or another regularizer"),
        (["regularizer=[cr,classification]"], "or another regularizer"),
        (["regularizer=cr", "regularizer.classes=true"], r"or regularizer\.classes=false"),
        (["regularizer=bcr", "regularizer.classes=true"], r"or regularizer\.classes=false"),
    ],
)
def test_class_logits_are_refused_where_d_gives_none(overrides: list[str], remedy: str) -> None:
    config = compose([*SMALL, *overrides])
    networks = build_networks(config)
    words = rf"works on class logits, and MLPDiscriminator gives .*architecture=stargan, {remedy}"
    with pytest.raises(UserError, match=words):
        build_task(config, networks)


AC = ("architecture=pggan", "architecture.labels=ac", "dataset=demo", "loss=wasserstein")


@pytest.mark.parametrize("regularizer", ["gp_drift", "none", "bcr"])
def test_classes_that_nothing_teaches_are_refused(regularizer: str) -> None:
    config = compose([*AC, *PGGAN, f"regularizer={regularizer}"])
    networks = build_networks(config)
    with pytest.raises(UserError, match=r"no regularizer teaches .* regularizer=\[gp_drift,ac\]"):
        build_task(config, networks)


def test_class_logits_that_are_only_compared_teach_nothing() -> None:
    config = compose([*AC, *PGGAN, "regularizer=cr", "regularizer.classes=true"])
    with pytest.raises(UserError, match="no regularizer teaches it the classes"):
        build_task(config, build_networks(config))


def test_each_kind_of_classes_has_its_regularizer() -> None:
    config = compose([*AC, *PGGAN, "regularizer=[gp_drift,classification]"])
    with pytest.raises(UserError, match=r"from images, and this one .* latents. Type ac in its"):
        build_task(config, build_networks(config))
    stargan = ["task=stargan", "architecture=stargan", "architecture.width=0.1", "metrics=none"]
    config = compose([*stargan, "dataset=demo_attributes", "regularizer=ac"])
    with pytest.raises(UserError, match=r"from latents, and .* images. Type classification in its"):
        build_task(config, build_networks(config))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["regularizer=gp"], r"Type regularizer=\[classification,gp\]"),
        (["regularizer=bcr", "regularizer.classes=true"], r"Type .*\[classification,bcr\]"),
        (["regularizer=none", "dataset=demo_traits"], r"Type regularizer=\[classification\]"),
    ],
)
def test_a_stargan_whose_classes_nothing_teaches_is_refused(typed: list[str], said: str) -> None:
    config = compose(["experiment=demo_stargan", "architecture.width=0.1", *typed])
    networks = build_networks(config)
    with pytest.raises(UserError, match=rf"no regularizer teaches .* {said}"):
        build_task(config, networks)


def test_a_d_that_classifies_is_not_refused() -> None:
    adversary(Classification(1.0, labels=JOINT)).require_classes(latents=False)
    with pytest.raises(UserError, match="regularizer=Classification works on class logits"):
        adversary(Classification(1.0, labels=JOINT), classifies=False).require_classes(
            latents=False
        )
