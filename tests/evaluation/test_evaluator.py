"""The evaluator and its reference cache, with a random projection as the extractor."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from support.evaluators import make_evaluator
from torch import Tensor, nn

from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics import classifier
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.frechet import frechet_distance
from crgan_cli.evaluation.metrics.kid import KID, kernel_distance
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.evaluation.reference_images import random_subset
from crgan_cli.system.cache import load_cached, save_cached

PIXELS = 3 * 8 * 8


class Projection(Extractor):
    """Eight random directions of 8x8 images."""

    name = "projection"
    sha256 = "ab" * 32
    dims = 8
    resize = "none"
    has_logits = True

    def __init__(self, standard: bool = False) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Linear(PIXELS, self.dims))
        self.standard = standard
        self.seen = 0

    def features(self, rgb: Tensor) -> Features:
        self.seen += len(rgb)
        pool = self.net(rgb.flatten(1).float() / 255)
        return Features(pool, 10 * pool)


class Noise(Dataset):
    """Grey noise, darker in the upper half."""

    def __init__(self, test: int = 40, train: int = 60, seed: int = 0) -> None:
        super().__init__(resolution=8, channels=1, classes=2)
        self.sizes, self.seed = {"test": test, "train": train}, seed

    def read(self, split: Split) -> Images:
        generator = torch.Generator().manual_seed(self.seed + (split == "test"))
        n = self.sizes[split]
        x = torch.randint(0, 200, (n, 1, 8, 8), generator=generator)
        x[:, :, :4] //= 2
        return Images(x.to(torch.uint8), torch.arange(n) % 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path))
    return tmp_path / "reference"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that learns less."""
    monkeypatch.setattr(classifier, "STEPS", 60)
    monkeypatch.setattr(classifier, "BATCH", 32)


def evaluator(extractor: Extractor | None = None, **changes: object) -> Evaluator:
    settings = {"measures": ["fid", "kid"], "num_samples": 40, "floor": True, "is_splits": 4}
    given = {**settings, "batch_size": 16} | changes
    return make_evaluator(extractor or Projection(), **given)


def replay(images: Tensor, y: Tensor | None = None) -> Fakes:
    """A generator of these uint8 images."""
    return Fakes(lambda start, n: to_float(images[start : start + n]), y)


def standard(**changes: object) -> Evaluator:
    """An evaluator that takes the projection for the standard Inception."""
    settings = {"measures": ["fid", "is", "kid"], "floor": False}
    return evaluator(Projection(standard=True), **(settings | changes))


def random_states() -> list[object]:
    numpy = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2]]


def test_scores_are_the_formula_on_the_extractors_features():
    data, scorer = Noise(), evaluator()
    scorer.prepare(data)
    fakes = data.read("train").x[:40] // 2
    scores = scorer(replay(fakes))
    real, fake = (Projection()(x).pool for x in (data.read("test").x, fakes))
    expected = frechet_distance(Moments.from_features(real), Moments.from_features(fake))
    assert scores["fd_projection_n40"] == pytest.approx(expected)
    assert scores["kid_projection_n40"] == pytest.approx(
        kernel_distance(fake, real, subsets=1, size=40).mean
    )
    assert set(scores) == {"fd_projection_n40", "fd_projection_n40_floor", "kid_projection_n40"}
    assert scorer.headline == "fd_projection_n40"
    assert 0 < scores["fd_projection_n40_floor"] < expected / 2


def test_the_reference_images_themselves_score_zero():
    scorer = evaluator()
    scorer.prepare(Noise())
    scores = scorer(replay(Noise().read("test").x))
    assert scores["fd_projection_n40"] == pytest.approx(0, abs=1e-9)


def test_the_names_fid_and_is_belong_to_the_standard_network():
    scorer = standard()
    scorer.prepare(Noise())
    scores = scorer(replay(Noise().read("train").x))
    assert set(scores) == {"fid", "is", "is_std", "is_single", "kid"}
    assert scorer.headline == "fid"
    assert 1 < scores["is"] <= 8


def test_no_global_random_state_is_touched():
    scorer, data = evaluator(num_samples=30), Noise()
    before = random_states()
    scorer.prepare(data)
    scorer(replay(data.read("train").x))
    assert random_states() == before


def test_progress_counts_images_and_stop_ends_between_batches():
    scorer, seen = evaluator(), []
    scorer.prepare(Noise())
    x = Noise().read("train").x
    scorer(replay(x), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 40), (32, 40), (40, 40)]

    class Interrupted(Exception):
        pass

    def stop() -> None:
        if scorer.extractor.seen >= 16:
            raise Interrupted

    scorer.extractor.seen = 0
    with pytest.raises(Interrupted):
        scorer(replay(x), stop=stop)
    assert scorer.extractor.seen == 16


def test_batch_size_has_no_effect():
    x = Noise(seed=3).read("train").x
    scores = []
    for size in (7, 40):
        scorer = evaluator(batch_size=size)
        scorer.prepare(Noise())
        scores.append(scorer(replay(x)))
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_reference_is_measured_once_and_gives_the_same_bits(cache: Path):
    first, second = evaluator(), evaluator()
    first.prepare(Noise())
    assert first.extractor.seen == 80  # the reference and the floor's images
    second.prepare(Noise())
    assert second.extractor.seen == 0
    x = Noise(seed=3).read("train").x
    assert first(replay(x)) == second(replay(x))
    assert [path.suffix for path in cache.iterdir()] == [".pt"]


def test_other_images_weights_or_counts_are_another_reference():
    evaluator().prepare(Noise())
    others = Projection()
    others.sha256 = "cd" * 32
    for scorer, data in [
        (evaluator(), Noise(seed=5)),
        (evaluator(others), Noise()),
        (evaluator(num_samples=39), Noise()),
    ]:
        scorer.prepare(data)
        assert scorer.extractor.seen > 0


@pytest.mark.parametrize("damage", ["flipped", "truncated", "foreign"])
def test_a_damaged_reference_is_measured_again(
    cache: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    evaluator().prepare(Noise())
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {"flipped": bytes(content), "truncated": bytes(content[:900]), "foreign": b"hello"}[damage]
    )
    again = evaluator()
    again.prepare(Noise())
    assert again.extractor.seen == 80
    assert "it will be computed again" in caplog.text
    third = evaluator()
    third.prepare(Noise())
    assert third.extractor.seen == 0


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "file"))
    scorer = evaluator()
    scorer.prepare(Noise())
    assert "Cannot cache " in caplog.text
    assert scorer(replay(Noise().read("train").x))


def test_too_few_real_images_is_an_error_with_the_numbers():
    said = "metrics.{0}=41 is more than the 40 images .* Give metrics.{0}=40 or less"
    with pytest.raises(UserError, match=said.format("num_samples")):
        evaluator(num_samples=41).prepare(Noise())
    with pytest.raises(UserError, match=said.format("num_real")):
        evaluator(num_samples=20, num_real=41).prepare(Noise())


def test_features_of_real_images_are_said_and_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "crgan_cli")
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        evaluator().prepare(Noise(), progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 80) for done in (16, 32, 40, 56, 72, 80)]  # 40, and 40 for the floor
    assert caplog.messages.count("features of 80 real images: once, then from the cache") == 1


def test_without_further_real_images_there_is_no_floor(caplog: pytest.LogCaptureFixture):
    scorer = evaluator()
    scorer.prepare(Noise(train=10))
    assert "no real-vs-real distance is reported" in caplog.text
    assert "fd_projection_n40_floor" not in scorer(replay(Noise().read("train").x))


def test_the_floors_images_are_not_in_the_reference():
    scorer = evaluator(reference="train", num_samples=30)
    scorer.prepare(Noise())  # 60 training images: 30 and the 30 others
    a = random_subset(30, torch.arange(60))
    b = torch.tensor([i for i in range(60) if i not in set(a.tolist())])
    x, net = Noise().read("train").x, Projection()
    expected = frechet_distance(
        Moments.from_features(net(x[a]).pool), Moments.from_features(net(x[b]).pool)
    )
    scores = scorer(replay(x[b]))
    assert scores["fd_projection_n30_floor"] == pytest.approx(expected)


def test_bad_generated_images_are_told_apart():
    scorer = evaluator()
    scorer.prepare(Noise())
    with pytest.raises(RunFailed, match="not finite"):
        scorer(Fakes(lambda start, n: torch.full((n, 1, 8, 8), float("nan"))))
    with pytest.raises(UserError, match=r"\(3, 8, 8\) .* the real ones \(1, 8, 8\)"):
        scorer(Fakes(lambda start, n: torch.zeros(n, 3, 8, 8)))


class Overflowing(Projection):
    """As in half precision: infinite for images that are bright in their first pixel."""

    def __init__(self, part: str = "pool") -> None:
        super().__init__()
        self.part = part

    def features(self, rgb: Tensor) -> Features:
        found = super().features(rgb)
        bright = rgb[:, 0, 0, 0] >= 210  # brighter than the real ones
        getattr(found, self.part)[bright, 0] = float("inf")
        return found


@pytest.mark.parametrize("part", ["pool", "logits"])
def test_features_that_are_not_finite_name_the_extractor_and_the_images(part: str) -> None:
    scorer = evaluator(Overflowing(part), measures=["fid", "kid", "is"])
    scorer.prepare(Noise())
    images = Noise().read("train").x[:40]
    images[20:23, :, 0, 0] = 255
    with pytest.raises(
        RunFailed,
        match=r"extractor projection gives .* not finite numbers for 3 of 16 generated images from "
        r"number 16 on, of 40, .*half precision.*\.float\(\)",
    ):
        scorer(replay(images))


class Bright(Noise):
    """Two images are bright."""

    def read(self, split: Split) -> Images:
        images = super().read(split)
        images.x[:2] = 255
        return images


def test_real_images_whose_features_are_not_finite_are_the_users_to_mend(cache: Path) -> None:
    with pytest.raises(UserError, match=r"for 2 of 16 real images from number 0 on, of 40, "):
        evaluator(Overflowing(), floor=False, num_real=40).prepare(Bright())
    assert not cache.exists(), "nothing of it is kept"


def test_a_cached_reference_that_is_not_finite_is_computed_again(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = evaluator()
    first.prepare(Noise())
    (file,) = cache.iterdir()
    content = load_cached(file)
    assert content is not None
    content["mean"][0] = float("nan")
    save_cached(file, content)
    again = evaluator()
    again.prepare(Noise())
    assert "not finite" in caplog.text
    fakes = replay(Noise().read("train").x[:40])
    assert again(fakes) == first(fakes)


def test_a_number_that_is_not_finite_fails_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = evaluator()
    scorer.prepare(Noise())
    fakes = replay(Noise().read("train").x[:40])
    with monkeypatch.context() as patch:
        patch.setattr(KID, "__call__", lambda *sets: {"kid": float("nan"), "kid_std": 1.0})
        with pytest.raises(RunFailed, match=r"^kid_projection_n40 is nan: "):
            scorer(fakes)

    def fail(*sets: FeatureSet) -> dict[str, float]:
        raise torch.linalg.LinAlgError("linalg.eigh: it did not converge\nmore")

    monkeypatch.setattr(KID, "__call__", fail)
    with pytest.raises(RunFailed, match=r"^kid cannot be computed .*: linalg.eigh: it did not con"):
        scorer(fakes)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(UserError, match="needs 2"):
        evaluator(num_samples=1)
    with pytest.raises(UserError, match=r"metrics\.is_splits"):
        standard(num_samples=5, is_splits=6)


def test_fewer_samples_than_features_works_and_is_said_once(caplog: pytest.LogCaptureFixture):
    scorer = standard(num_samples=6, is_splits=2)
    with caplog.at_level(logging.WARNING):
        scorer.prepare(Noise())
    assert caplog.text.count("6 samples are fewer than the 8 features") == 1
    assert np.isfinite(list(scorer(replay(Noise().read("train").x)).values())).all()


def test_the_description_states_the_protocol():
    scorer = evaluator()
    scorer.prepare(Noise())
    said = scorer.describe()
    assert said["protocol"] == "noise_40_test"
    assert said["extractor_sha256"] == "ab" * 32
    assert len(str(said["reference_sha256"])) == 64
    assert said["num_samples"] == 40
    assert said["precision"] == "float32 features, float64 statistics"


def test_numbers_are_the_mean_over_the_sets_of_a_protocol():
    sets = [Noise(seed=seed).read("train").x[:20] for seed in (3, 4, 5)]
    alone = []
    for images in sets:
        scorer = evaluator(num_samples=20, num_real=40)
        scorer.prepare(Noise())
        alone.append(scorer(replay(images)))
    scorer, seen = evaluator(num_samples=20, num_real=40, repeats=3), []
    scorer.prepare(Noise())
    together = scorer(
        replay(torch.cat(sets)), progress=lambda done, total: seen.append((done, total))
    )
    values = [each["fd_projection_n20"] for each in alone]
    assert together["fd_projection_n20"] == pytest.approx(np.mean(values))
    assert together["fd_projection_n20_sd"] == pytest.approx(np.std(values, ddof=1))
    assert together["kid_projection_n20"] == pytest.approx(
        np.mean([each["kid_projection_n20"] for each in alone])
    )
    assert seen[-1] == (60, 60)


def test_unrounded_images_reach_the_extractor_as_they_are():
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = {}
    for rounding in ("uint8", "none"):
        scorer = evaluator(rounding=rounding)
        scorer.prepare(Noise())
        found[rounding] = scorer(Fakes(lambda start, n: x[start : start + n]))["fd_projection_n40"]
    real = Projection()(Noise().read("test").x).pool
    fake = Projection()((x + 1) * 127.5).pool
    expected = frechet_distance(Moments.from_features(real), Moments.from_features(fake))
    assert found["none"] == pytest.approx(expected, rel=1e-6)
    assert found["none"] != found["uint8"]


def test_features_are_kept_only_for_a_measure_that_needs_them(cache: Path):
    moments_only = evaluator(measures=["fid"])
    moments_only.prepare(Noise())
    (path,) = cache.iterdir()
    small = path.stat().st_size
    again = evaluator()  # with kid, which needs the features: the same images are measured again
    again.prepare(Noise())
    assert again.extractor.seen == 80
    assert path.stat().st_size > small
    third = evaluator(measures=["fid"])
    third.prepare(Noise())
    assert third.extractor.seen == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measures": ["precision_recall"]}, "has no distance by which to choose the best"),
        ({"measures": ["fid", "class_fid"]}, "the generated images have no"),
        ({"measures": ["fid", "class_accuracy"]}, "the generated images have no"),
        ({"kid_subset_size": 41}, "metrics.kid_subset_size"),
        ({"measures": ["fid_infinity"], "num_samples": 10}, "metrics.num_samples"),
    ],
)
def test_measures_that_cannot_be_had_are_refused(changes: dict, said: str):
    def score() -> None:
        scorer = evaluator(**changes)
        scorer.prepare(Noise())
        scorer(replay(Noise().read("train").x))

    with pytest.raises(UserError, match=said):
        score()


def test_an_extractor_without_classes_has_no_inception_score():
    blind = Projection()
    blind.has_logits = False
    with pytest.raises(UserError, match=r"metrics\.measures=\[fid,kid\]"):
        evaluator(blind, measures=["fid", "is"])


def test_class_by_class_takes_the_labels_of_both_sides():
    data, scorer = Noise(), evaluator(measures=["fid", "class_fid"])
    scorer.prepare(data)
    x = data.read("test").x
    y = torch.arange(40) % 2
    assert scorer(replay(x, y))["class_fd_1_projection_n40"] == pytest.approx(0, abs=1e-9)
    assert scorer(replay(x, 1 - y))["class_fd_1_projection_n40"] > 1e-3


class Stripes(Noise):
    """Class 0 has dark columns, class 1 dark rows; one image in ten has the other label."""

    def read(self, split: Split) -> Images:
        x, _ = super().read(split)
        seen = torch.arange(len(x)) // 2 % 2
        x[seen == 0, :, :, ::2] //= 8
        x[seen == 1, :, ::2] //= 8
        wrong = torch.arange(len(x)) % 10 == 3
        return Images(x, torch.where(wrong, 1 - seen, seen))


@pytest.mark.usefixtures("quick")
def test_class_accuracy_of_right_wrong_and_shuffled_labels():
    """Right labels score as real images do, exchanged ones the opposite, shuffled ones chance."""
    data, scorer = Stripes(train=400), evaluator(measures=["fid", "class_accuracy"])
    scorer.prepare(data)
    x, y = data.read("test")
    right = scorer(replay(x, y))
    assert right["class_accuracy"] == pytest.approx(0.9)
    assert right["class_accuracy_real"] == pytest.approx(0.9, abs=0.06)  # of 40 held-out images
    assert scorer(replay(x, 1 - y))["class_accuracy"] == pytest.approx(0.1)
    half = torch.arange(40) % 2  # crosses with the stripes
    assert scorer(replay(x, half))["class_accuracy"] == pytest.approx(0.5)
    assert "class_accuracy_images_sha256" in str(scorer.describe()["measures"])


@pytest.mark.usefixtures("quick")
def test_a_classifier_is_trained_once_for_the_same_images_whatever_the_threads(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    images = Stripes(train=100).load("train")
    state, threads = random_states(), torch.get_num_threads()
    first = classifier.load_or_train_classifier(images)
    assert random_states() == state
    (file,) = (cache.parent / "classifiers").iterdir()
    loaded = classifier.load_or_train_classifier(images)
    file.unlink()
    torch.set_num_threads(threads + 1)
    try:
        again = classifier.load_or_train_classifier(images)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    for other in (loaded, again):
        assert other.accuracy == first.accuracy
        for one, two in zip(first.network.parameters(), other.network.parameters(), strict=True):
            assert torch.equal(one, two)
    monkeypatch.setattr(classifier, "VERSION", 2)
    classifier.load_or_train_classifier(images)
    classifier.load_or_train_classifier(images._replace(y=1 - images.y))
    assert len(list((cache.parent / "classifiers").iterdir())) == 3  # version 1, 2, other labels


def test_larger_images_are_shrunk_for_the_classifier(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "STEPS", 1)
    x = torch.randint(0, 256, (20, 3, 48, 48), dtype=torch.uint8)
    found = classifier.load_or_train_classifier(Images(x, torch.arange(20) % 3))
    small = torch.nn.functional.interpolate(x.float(), 32, mode="area")
    assert torch.equal(found.predict(x), found.predict(small))
    assert found.predict(x).shape == (20,)


def test_all_takes_both_splits_and_has_no_floor():
    scorer = evaluator(reference="all", num_samples=20, num_real=100)
    scorer.prepare(Noise())
    assert scorer.extractor.seen == 100
    assert not [name for name in scorer(replay(Noise().read("train").x)) if "floor" in name]


def test_a_reference_file_serves_where_everything_is_the_same(cache: Path, tmp_path: Path):
    evaluator().prepare(Noise())
    (made,) = cache.iterdir()
    carried = tmp_path / "carried.pt"
    made.rename(carried)
    scorer = evaluator(reference_file=str(carried))
    scorer.prepare(Noise())
    assert scorer.extractor.seen == 0
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_samples": 39}, r"count: 40 in the file, 39 here"),
        ({"reference": "train"}, r"split: test in the file, train here"),
        ({"floor": False}, r"floor_images"),
    ],
)
def test_a_reference_file_of_another_protocol_is_refused(
    cache: Path, changes: dict[str, object], said: str
):
    evaluator().prepare(Noise())
    (made,) = cache.iterdir()
    with pytest.raises(UserError, match=said):
        evaluator(reference_file=str(made), **changes).prepare(Noise())


def test_a_reference_file_of_other_weights_or_without_features_is_refused(
    cache: Path, tmp_path: Path
):
    evaluator(measures=["fid"]).prepare(Noise())
    (made,) = cache.iterdir()
    other = Projection()
    other.sha256 = "cd" * 32
    with pytest.raises(UserError, match=f"weights: {'ab' * 32} in the file, {'cd' * 32} here"):
        evaluator(other, reference_file=str(made)).prepare(Noise())
    with pytest.raises(UserError, match="holds moments only"):
        evaluator(reference_file=str(made)).prepare(Noise())
    (tmp_path / "no.pt").write_text("no")
    for path in ("no.pt", "absent.pt"):
        with pytest.raises(UserError, match="is not a file of reference statistics"):
            evaluator(reference_file=str(tmp_path / path)).prepare(Noise())
