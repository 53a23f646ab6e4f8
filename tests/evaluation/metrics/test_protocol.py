"""What a protocol is called, and which numbers may be compared."""

import pytest

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.protocol import Protocol
from crgan_cli.runs.protocol import differences, require_comparable

PLAIN = Protocol(
    reference="test",
    num_real=10000,
    num_samples=10000,
    repeats=1,
    rounding="uint8",
    weights="auto",
    batch_norm="running",
    truncation=None,
    batch_size=50,
)
RECORD = {"protocol": "cifar10_10k_test", "extractor": "inception", **PLAIN.record()}


def protocol_of(name: str) -> Protocol:
    metrics = compose([f"metrics={name}"]).metrics
    chosen = {key: metrics[key] for key in Protocol._fields if key in metrics}
    return Protocol(**{**chosen, "num_real": chosen["num_real"] or chosen["num_samples"]})


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("fid10k_test", "cifar10_10k_test"),
        ("cifar10_10k_test", "cifar10_10k_test_x3_unrounded"),
        ("fid50k_train", "cifar10_50k_train"),
        ("fid1k_train", "cifar10_1k_train"),
        ("demo", "cifar10_500_test"),
        ("pggan", "cifar10_16384_train"),
        ("pggan_small", "cifar10_1k_train"),
    ],
)
def test_the_protocols_of_conf_have_labels_of_their_own(name: str, label: str):
    assert protocol_of(name).label("cifar10") == label


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"num_real": 5000}, "cifar10_10k_test_of5k"),
        ({"num_samples": 1234}, "cifar10_1234_test_of10k"),
        ({"batch_norm": "standing"}, "cifar10_10k_test_bn-standing"),
        ({"truncation": 0.5}, "cifar10_10k_test_psi0.5"),
    ],
)
def test_a_label_tells_of_every_departure(change: dict, label: str):
    changed = PLAIN._replace(**change)
    assert changed.label("cifar10") == label
    assert differences(PLAIN.record(), changed.record())


def test_the_batch_of_batch_statistics_counts_unless_a_record_says_it_has_no_effect():
    three, four = (PLAIN._replace(batch_norm="batch", batch_size=n).record() for n in (3, 4))
    assert differences(three, four) == ["batch_size: 3, 4"]
    translated = {key: value for key, value in three.items() if key != "batch_size"}
    assert not differences(three, translated)  # a record from before it was left out
    running = PLAIN.record()
    assert differences(three, running) == ["batch_norm: batch, running"]


def weighed(weights: str, found: str) -> dict[str, object]:
    return {**PLAIN._replace(weights=weights).record(), "generator_weights": found}


def test_auto_compares_with_itself_and_with_the_weights_that_it_was():
    averaged, plain = weighed("auto", "ema"), weighed("auto", "raw")
    ema, raw = weighed("ema", "ema"), weighed("raw", "raw")
    assert PLAIN._replace(weights="raw").label("cifar10") == "cifar10_10k_test_raw"
    assert differences(averaged, plain) == []  # two methods, one with an average
    assert differences(averaged, ema) == differences(raw, plain) == []
    assert differences(averaged, raw) == differences(ema, raw) == ["weights: ema, raw"]
    assert differences(ema, plain) == ["weights: ema, raw"]


def test_weights_that_an_older_record_does_not_name_are_no_difference():
    old = PLAIN.record()
    assert differences(old, weighed("raw", "raw")) == differences(weighed("ema", "ema"), old) == []


def test_no_order_of_records_hides_two_that_differ():
    records = [("A", weighed("auto", "raw")), ("B", weighed("auto", "ema"))]
    with pytest.raises(UserError, match=r"of B and C .*\n  weights: ema, raw"):
        require_comparable([*records, ("C", weighed("raw", "raw"))], force="--force")


def test_what_is_not_known_of_foreign_images_is_no_difference():
    foreign = {**PLAIN.record(), "truncation": "not known", "batch_norm": "not known"}
    assert differences(PLAIN._replace(truncation=0.5).record(), foreign) == []


def test_the_batch_is_part_of_the_protocol_where_images_depend_on_it():
    small = PLAIN._replace(batch_size=10)
    assert small.record() == PLAIN.record()
    batch, other = (each._replace(batch_norm="batch") for each in (PLAIN, small))
    assert differences(batch.record(), other.record()) == ["batch_size: 50, 10"]


def test_the_same_protocol_may_differ_in_what_does_not_bear_on_the_numbers():
    one = {**RECORD, "precision": "float32", "generator_weights": "ema", "measures": {"a": 1}}
    other = {**RECORD, "precision": "TF32", "generator_weights": "raw", "measures": {"b": 2}}
    require_comparable([("A", one), ("B", other)], force="--force")


def test_a_setting_of_a_measure_that_both_have_must_be_the_same():
    one, other = ({**RECORD, "measures": {"is_splits": n, "own": n}} for n in (10, 1))
    assert differences(one, {**RECORD, "measures": {"is_splits": 10}}) == []
    assert sorted(differences(one, other)) == ["is_splits: 10, 1", "own: 10, 1"]


def test_numbers_of_different_protocols_are_refused_with_what_differs():
    other = {**RECORD, **PLAIN._replace(reference="train").record()}
    with pytest.raises(UserError, match=r"A and C .*\n  reference_split: test, train\n.*--force"):
        require_comparable([("A", RECORD), ("B", RECORD), ("C", other)], force="--force")
