"""metrics=domains: runs that translate to several domains, on tiny images and fake tasks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.domains import (
    Halves,
    Projected,
    Shifts,
    TwoSets,
    by_labels,
    cycle,
    evaluator,
    inputs,
    paint_halves,
)
from torch import nn

from crgan_cli.data.dataset import Dataset
from crgan_cli.data.images import to_float, to_uint8
from crgan_cli.errors import UserError
from crgan_cli.evaluation.domains import DomainsEvaluator
from crgan_cli.evaluation.drawing import Draws, make_eval_sampler, make_painter
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.metrics import classifier
from crgan_cli.evaluation.metrics.kid import kernel_distance
from crgan_cli.evaluation.sampler import MARGIN
from crgan_cli.evaluation.translation import Translator
from crgan_cli.gan.labels import LabelGroup, Labels
from crgan_cli.gan.tasks.base import GeneratedView

CPU = torch.device("cpu")
ATTRIBUTES = Labels([LabelGroup("attributes", ("Top", "Left side"))])
CLASSES = Labels([LabelGroup("classes", ("none", "both"))])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(classifier, "STEPS", 60)
    monkeypatch.setattr(classifier, "BATCH", 32)


def score(
    scorer: Evaluator,
    data: Dataset,
    draws: Draws,
    G: nn.Module,
    labels: Labels | None = None,
) -> dict[str, float]:
    """Prepare, draw and score, as a run does."""
    scorer.prepare_draws(data, draws, labels)
    with make_eval_sampler(draws, data, scorer, no_prior, 1, CPU).images(G) as drawn:
        return scorer.score_draws(drawn)


def no_prior() -> None:
    raise AssertionError("there are no latents")


def test_each_direction_is_the_formula_on_its_own_images_and_the_headline_is_their_mean() -> None:
    data, scorer = TwoSets(a=12, b=9), evaluator()
    G = cycle(Shifts(0.25), Shifts(-0.5))
    values = score(scorer, data, G.draws, G)
    a, b = inputs(data, "a"), inputs(data, "b")
    there = to_uint8(to_float(a) + 0.25), to_uint8(to_float(b) - 0.5)
    features = Projected()
    for name, n, fake, real, source in (("b", 12, there[0], b, a), ("a", 9, there[1], a, b)):
        for end, images in (("", fake), ("_of_input", source)):
            pools = [features(each).pool for each in (images, real)]
            expected = kernel_distance(*pools, subsets=100).mean
            assert values[f"kid_projection_n{n}{end}_to_{name}"] == pytest.approx(expected)
        assert f"kid_std_projection_n{n}_to_{name}" in values
    assert next(iter(values)) == scorer.headline == "kid_projection_n9-12"
    for key in ("kid_projection_n{}", "fd_projection_n{}", "kid_projection_n{}_of_input"):
        mean = (values[key.format(12) + "_to_b"] + values[key.format(9) + "_to_a"]) / 2
        assert values[key.format("9-12")] == pytest.approx(mean)
    assert "kid_std_projection_n9-12" not in values


def test_cycle_and_identity_errors_by_hand() -> None:
    """There by +0.25 and back by -0.5: 0.25 off. A target image is moved by 0.25, or by 0.5."""
    data = TwoSets(a=12, b=9)
    G = cycle(Shifts(0.25), Shifts(-0.5))
    values = score(evaluator(), data, G.draws, G)
    for name, expected in (("", 0.25), ("_to_b", 0.25), ("_to_a", 0.25)):
        assert values[f"cycle_error{name}"] == pytest.approx(expected)
    found = [values[f"identity_error{name}"] for name in ("_to_b", "_to_a", "")]
    assert found == pytest.approx([0.25, 0.5, 0.375])


def test_unlike_channels_have_no_identity_error_and_grey_inputs_are_still_a_baseline() -> None:
    data = TwoSets(a=6, b=6, channels_b=3)
    G = cycle(Shifts(0.25, channels=3), Shifts(-0.25, channels=1))
    values = score(evaluator(), data, G.draws, G)
    assert not [name for name in values if name.startswith("identity")]
    assert values["kid_projection_n6_of_input_to_b"] != 0
    assert values.keys() >= {"cycle_error_to_a", "cycle_error_to_b", "kid_projection_n6"}


def test_given_counts_are_taken_and_all_real_images_of_a_domain_are_compared() -> None:
    data, scorer = TwoSets(a=12, b=9), evaluator(num_samples=4)
    G = cycle(Shifts(0), Shifts(0))
    values = score(scorer, data, G.draws, G)
    assert scorer.headline == "kid_projection_n4"
    assert "kid_projection_n4_to_a" in values
    record = scorer.describe()
    assert record["translations"] == {
        "to b": "4 translated, 9 real",
        "to a": "4 translated, 12 real",
    }
    assert record["headline_is"] == "the mean over the translations to b, a"
    assert (record["num_samples"], record["num_real"]) == (4, "9 to 12")
    assert record["headline"] == "kid_projection_n4"
    assert str(record["protocol"]).endswith("_mean-of-2")


def test_the_same_numbers_again_and_without_the_cache(tmp_path: Path) -> None:
    data = TwoSets(a=6, b=5)
    G = cycle(Shifts(0.25), Shifts(-0.5))
    first = score(evaluator(), data, G.draws, G)
    scorer = evaluator()
    assert score(scorer, data, G.draws, G) == first
    assert scorer.extractor.seen == 11  # only the translations  # pyright: ignore


def test_the_preparation_is_one_progress_over_all_directions_and_ends_where_it_says() -> None:
    """Attributes: 2 domains, their classifier and the inputs; two sets: the inputs are known."""

    def prepared(data: Dataset, draws: Draws, labels: Labels | None = None) -> list:
        seen: list[tuple[int, int]] = []
        scorer = evaluator()
        scorer.prepare_draws(data, draws, labels, progress=lambda *counts: seen.append(counts))
        return seen

    seen = prepared(Halves("attributes"), by_labels(ATTRIBUTES), ATTRIBUTES)
    domains = [int((Halves("attributes").load("test").y[:, i] == 1).sum()) for i in (0, 1)]
    total = sum(domains) + 60 + 40
    assert {of for _, of in seen} == {total}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {domains[0], sum(domains), sum(domains) + 60} < {done for done, _ in seen}
    assert seen[-1] == (total, total)
    seen = prepared(TwoSets(a=12, b=9), cycle(Shifts(0), Shifts(0)).draws)
    assert (seen[0][1], seen[-1]) == (42, (21, 21))
    assert prepared(TwoSets(a=12, b=9), cycle(Shifts(0), Shifts(0)).draws) == []


@pytest.mark.parametrize("kind", ["classes", "attributes"])
def test_domain_accuracy_of_a_perfect_and_an_idle_generator(kind: str) -> None:
    """A G that paints the label is right as often as real images; one that does nothing is as good
    as its inputs."""
    labels = {"classes": CLASSES, "attributes": ATTRIBUTES}[kind]
    data = Halves(kind)
    draws = by_labels(labels)
    perfect = score(evaluator(), data, draws, paint_halves(kind), labels)
    idle = score(evaluator(), data, draws, Shifts(0), labels)
    words = {"classes": ("none", "both"), "attributes": ("Top", "Left-side")}[kind]
    for end in ("", *(f"_to_{word}" for word in words)):
        assert perfect[f"domain_accuracy{end}"] > 0.9
        assert perfect[f"domain_accuracy_real{end}"] > 0.9
        assert idle[f"domain_accuracy{end}"] == idle[f"domain_accuracy_of_input{end}"] < 0.8
        assert idle[f"cycle_error{end}"] == 0
    assert perfect["kid_projection_n40"] < idle["kid_projection_n40"]
    assert not [name for name in perfect if name.startswith("identity")]  # the inputs have them


def test_real_images_of_a_domain_are_those_with_its_label() -> None:
    scorer, data = evaluator(), Halves("attributes")
    scorer.prepare_draws(data, by_labels(ATTRIBUTES), ATTRIBUTES)
    x, y = data.load("test")
    for column, images in enumerate(scorer.real_images(data).values()):
        assert torch.equal(images.x, x[y[:, column] == 1])
    assert "domain_classifier" in scorer.describe()


def test_the_way_back_gets_the_labels_of_the_inputs() -> None:
    data = Halves("attributes")
    images = data.load("test")
    given = []
    view = GeneratedView(
        lambda G, batch: batch.x + 1,
        source="real",
        back=lambda G, batch: given.append(batch) or batch.x - 1,
    )
    translator = Translator(images, view, CPU, 1)
    drawn = translator.draw(nn.Identity(), 3, 2)
    assert translator.cycle_error(nn.Identity(), 3, drawn).max() < 1e-6
    assert torch.equal(torch.cat([batch.y for batch in given]), images.y[3:5])
    assert torch.equal(torch.cat([batch.x for batch in given]), drawn)


def grid(data: Dataset, draws: Draws, G: nn.Module, num: int) -> torch.Tensor:
    """The cells of a painted grid, (rows, columns, 3, 8, 8)."""
    picture = make_painter(draws, data, None, no_prior, num, 1, CPU)(G)
    side = 8 + MARGIN
    assert (picture[:, :MARGIN] == 0).all()
    assert (picture[:, :, :MARGIN] == 0).all()
    cells = picture[:, MARGIN:, MARGIN:].unfold(1, side, side).unfold(2, side, side)
    return cells[..., :8, :8].permute(1, 2, 0, 3, 4)


def test_a_grid_has_input_translation_and_the_way_back_for_both_directions() -> None:
    data = TwoSets(a=12, b=2, channels_b=3)
    G = cycle(Shifts(0.25, channels=3), Shifts(-0.5, channels=1))
    cells = grid(data, G.draws, G, 3)
    assert cells.shape[:2] == (3, 6)
    for column, (view, n, change) in enumerate(
        (v, n, c)
        for v, n, changes in (("a", 3, (0, 0.25, -0.25)), ("b", 2, (0, -0.5, -0.25)))
        for c in changes
    ):
        images = inputs(data, view, n)
        expected = to_uint8(to_float(images).mean(1, keepdim=True) + change)
        if view == "a" or change:
            assert torch.equal(cells[:n, column, :1], expected)
        else:
            assert torch.equal(cells[:n, column], images)
        assert (cells[n:, column] == 0).all()


def test_a_grid_of_labels_has_the_input_and_a_column_for_each() -> None:
    data = Halves("attributes")
    cells = grid(data, by_labels(ATTRIBUTES), paint_halves("attributes"), 2)
    assert cells.shape[:2] == (2, 3)
    assert (cells[:, 1, :, :4] < 60).all()  # Top
    assert (cells[:, 2, :, :, :4] < 60).all()  # Left side


def latents() -> Draws:
    return {"": GeneratedView(lambda G, batch: G(*batch))}


def twice() -> Draws:
    return {"a b": next(iter(by_labels(CLASSES).values())), "a/b": by_labels(CLASSES)["both"]}


@pytest.mark.parametrize(
    ("scorer", "draws", "said"),
    [
        (
            lambda: evaluator(kind=Evaluator),
            by_labels(CLASSES),
            "translates to none, both. Type met",
        ),
        (evaluator, latents(), "this run draws images from latents. Type metrics=demo"),
        (evaluator, twice(), "several domains are called a-b"),
        (lambda: evaluator(measures=["kid", "class_fid"]), by_labels(CLASSES), "class_fid are for"),
        (lambda: evaluator(repeats=2), by_labels(CLASSES), "metrics.repeats=1, or metrics=pairs"),
        (lambda: evaluator(measures=["kid", "ppl"]), by_labels(CLASSES), "ppl moves the latents"),
        (
            lambda: evaluator(reference_file="x.pt"),
            by_labels(CLASSES),
            "metrics.reference_file=null",
        ),
        (lambda: evaluator(num_samples=41), by_labels(CLASSES), "metrics.num_samples=40 or less"),
        (lambda: evaluator(num_real=39), by_labels(CLASSES), "images of the split test"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(
    scorer: Callable[[], Evaluator], draws: Draws, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        score(scorer(), Halves("classes"), draws, Shifts(0), CLASSES)


def test_a_split_that_is_too_small_is_named_and_no_number_is_typed_for_it() -> None:
    """More samples of it cannot be drawn: the advice of each number was the error of another."""
    data = TwoSets(a=6, b=1)
    more = r"a larger dataset\.holdout"
    with pytest.raises(UserError, match=rf"^the split test, translations to b: 1 real .*{more}"):
        evaluator().prepare_draws(data, cycle(Shifts(0), Shifts(0)).draws)
    one_kind = evaluator(kind=Evaluator)
    with pytest.raises(UserError, match=rf"^the split test: 1 real and 1 generated .*{more}"):
        one_kind.prepare(data, "b")
    with pytest.raises(UserError, match=rf"more than the 1 images of the split test\. .*{more}"):
        evaluator(kind=Evaluator, num_samples=2).prepare(data, "b")
    with pytest.raises(UserError, match=r"type metrics\.num_samples=2"):  # where that helps
        evaluator(num_samples=1)


def test_sets_without_whole_images_are_named_where_one_kind_is_compared() -> None:
    with pytest.raises(UserError, match="only of the kinds a, b: type metrics=domains"):
        evaluator(kind=Evaluator, num_samples=4).prepare(TwoSets(a=6, b=6))


def test_files_are_refused_as_they_are_of_one_kind() -> None:
    with pytest.raises(UserError, match="crgan eval GENERATED REAL"):
        evaluator().require_images_of_one_kind()


def test_without_directions_it_scores_a_folder_like_any_protocol() -> None:
    scorer = evaluator(num_samples=4)
    scorer.prepare_images("folder", TwoSets(a=4, b=4).load_views("test")["a"])
    assert isinstance(scorer, DomainsEvaluator)
    assert scorer.headline == "kid_projection_n4"
    assert "headline_is" not in scorer.describe()
