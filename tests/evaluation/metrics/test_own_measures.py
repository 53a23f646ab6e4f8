"""Measures of users: what names, reports and records say of them."""

import pytest

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.evaluation import FeatureSet, Metric
from crgan_cli.evaluation.load import build_evaluator
from crgan_cli.runs import metric_names
from crgan_cli.runs.metric_names import find_traits, higher_is_better, learn_measures, may_lead


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_names, "OWN", {})


def test_a_class_outside_of_crgan_says_its_direction_itself() -> None:
    class Contrast(Metric):
        name = key = "contrast"
        higher_is_better = True
        of_features = False

        def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
            return {"contrast": 1.0}

    assert higher_is_better("contrast_n500")
    assert not find_traits("contrast_n500").of_features
    assert not may_lead("contrast")
    path = f"{__name__}.{Contrast.__qualname__}"
    assert Contrast().describe_own() == {
        "contrast": {"class": path, "higher_is_better": True, "of_features": False}
    }


def test_a_report_learns_them_from_the_record_and_changes_no_metric_of_crgan() -> None:
    assert not higher_is_better("edges_max_n500")
    learn_measures({"own_measures": {"edges": {"higher_is_better": True}, "fid": {}}})
    assert higher_is_better("edges_max_n500")
    assert find_traits("fid") == metric_names.DISTANCE
    learn_measures({"own_measures": "damaged"})
    learn_measures({})


class Base(Metric):
    """Of several measures: it has no key."""

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return {self.key: 1.0}


class Edges(Base):
    """One of them."""

    name = key = "edges"


def test_a_measure_without_metrics_or_with_anothers_key_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose(["metrics=none"])
    config.measure = {"_target_": {"edges": "crgan_cli.evaluation.NoExtractor"}}
    with pytest.raises(UserError, match=r"NoExtractor is no crgan_cli\.evaluation\.Metric"):
        build_evaluator(config)
    config.measure = {"_target_": {"fid": "crgan_cli.evaluation.metrics.frechet.FrechetDistance"}}
    with pytest.raises(UserError, match="measure=fid: another metric is called fd"):
        build_evaluator(config)
    config.measure = {"_target_": {"edges": f"{__name__}.Edges"}}
    monkeypatch.setenv("CRGAN_PLUGINS", __name__)
    with pytest.raises(UserError, match="measure=edges is measured with the metrics, and metrics="):
        build_evaluator(config)
