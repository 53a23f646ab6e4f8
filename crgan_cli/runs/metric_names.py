"""What the name of a metric says: which direction is better, and whether it may lead.

The only table of this. The metric classes and the reports both read it. It needs no torch.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple


class MetricTraits(NamedTuple):
    """What holds for a metric, whatever its extractor and its number of images."""

    higher_is_better: bool
    may_lead: bool  # may be the primary metric, which picks the best checkpoint
    of_features: bool = True  # whether it depends on the extractor
    counted: bool = False  # if not: whether its name says the number of images


DISTANCE = MetricTraits(higher_is_better=False, may_lead=True)
SCORE = MetricTraits(higher_is_better=True, may_lead=False)
UNKNOWN_METRIC = MetricTraits(higher_is_better=False, may_lead=False)

TRAITS = {
    "fid": DISTANCE,
    "fd": DISTANCE,  # fid with another extractor than the standard Inception
    "fid_infinity": DISTANCE,
    "fd_infinity": DISTANCE,
    "class_fid": DISTANCE,
    "class_fd": DISTANCE,
    "class_accuracy": SCORE._replace(of_features=False),
    "domain_accuracy": SCORE._replace(of_features=False),
    "cycle_error": MetricTraits(higher_is_better=False, may_lead=False, of_features=False),
    "identity_error": MetricTraits(higher_is_better=False, may_lead=False, of_features=False),
    "kid": DISTANCE,
    "is": SCORE,
    "precision": SCORE,
    "recall": SCORE,
    "density": SCORE,
    "coverage": SCORE,
    "l1": MetricTraits(higher_is_better=False, may_lead=False),
    "ppl": MetricTraits(higher_is_better=False, may_lead=False),
    "psnr": SCORE,
    "ssim": SCORE,
    "swd": DISTANCE._replace(of_features=False, counted=True),
    "ms_ssim": MetricTraits(
        higher_is_better=False, may_lead=False, of_features=False, counted=True
    ),
}
"""Beginning of a metric's name, up to a "_" or its end -> the traits of the metric."""

OWN: dict[str, MetricTraits] = {}
"""The same for measures of users, as far as this process knows them: `Metric` and the reports add
them. A run's record of its protocol has them, for reports do not import the user's code."""


def learn_measures(protocol: Mapping[str, object]) -> None:
    """Remember the measures of users in the record of a protocol."""
    measures = protocol.get("own_measures")
    for key, traits in measures.items() if isinstance(measures, Mapping) else ():
        if key not in TRAITS and isinstance(traits, Mapping):
            OWN[key] = MetricTraits(
                higher_is_better=bool(traits.get("higher_is_better")),
                may_lead=False,
                of_features=bool(traits.get("of_features")),
                counted=True,
            )


BASELINES = {
    "_of_input": "the input itself as the answer",
    "_of_mean": "the mean training target as the answer",
}
"""End of the name of what an answer without learning scores -> which answer."""

TO = "_to_"
"""Before the name of what images are translated to, at the end of a number's name."""

SECONDARY = re.compile(
    rf"_(sd|std|single|floor|real)(_|$)|({'|'.join(BASELINES)})$|^class_fi?d_\d+(_|$)"
    rf"|^swd_\d+(_|$)|{TO}"
)


def higher_is_better(name: str) -> bool:
    """Return whether a higher value of this metric means a better model.

    `name` is as reported (`recall_dinov2_n5000`) or as in `metrics.measures`
    (`precision_recall`).
    """
    return find_traits(name).higher_is_better


def may_lead(name: str) -> bool:
    """Return whether this metric may be the primary metric. `name` as in `higher_is_better`."""
    return find_traits(name).may_lead and not is_secondary(name)


def is_secondary(name: str) -> bool:
    """Return whether a number only comes with another one.

    These are its spread, its real-vs-real distance, its value for one class, for one scale, for one
    translation of several or for real images, and its baselines.
    """
    return bool(SECONDARY.search(name))


def make_word(name: str) -> str:
    """Return a name with only the letters that file names and tags allow."""
    return re.sub(r"[^\w.+-]+", "-", name)


def find_traits(name: str) -> MetricTraits:
    """Return the traits of the metric that a number is of, or `UNKNOWN_METRIC`."""
    metric = find_metric(name)
    return TRAITS.get(metric) or OWN.get(metric, UNKNOWN_METRIC)


def find_metric(name: str) -> str:
    """Return the longest start of `name` that is a metric; `name` if there is none."""
    words = name.split("_")
    starts = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((start for start in starts if start in TRAITS or start in OWN), name)
