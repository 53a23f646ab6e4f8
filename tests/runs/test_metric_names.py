"""A metric's name says which direction is better, and whether it may pick the best step."""

import pytest

from crgan_cli.runs.metric_names import higher_is_better, is_secondary, may_lead


@pytest.mark.parametrize(
    ("metric", "higher", "secondary", "lead"),
    [
        ("fid", False, False, True),
        ("fid_sd", False, True, False),
        ("fid_infinity", False, False, True),
        ("is", True, False, False),
        ("is_std", True, True, False),
        ("is_single", True, True, False),
        ("fd_effnetlite0_224_n500", False, False, True),
        ("fd_infinity_effnetlite0_224_n500", False, False, True),
        ("fd_effnetlite0_224_n500_floor", False, True, False),
        ("kid", False, False, True),
        ("kid_std_effnetlite0_224_n500", False, True, False),
        ("recall_dinov2_n5000", True, False, False),
        ("precision_recall", True, False, False),  # as in metrics.measures
        ("density_coverage", True, False, False),
        ("class_fid", False, False, True),
        ("class_fid_3", False, True, False),
        ("class_fd_effnetlite0_224_n500", False, False, True),
        ("class_fd_3_effnetlite0_224_n500", False, True, False),
        ("class_accuracy", True, False, False),
        ("class_accuracy_real", True, True, False),
        ("kid_effnetlite0_224_n100-120", False, False, True),
        ("kid_effnetlite0_224_n100_to_b", False, True, False),
        ("kid_effnetlite0_224_n100_of_input_to_b", False, True, False),
        ("cycle_error", False, False, False),
        ("identity_error_to_a", False, True, False),
        ("domain_accuracy", True, False, False),
        ("domain_accuracy_real", True, True, False),
        ("swd_n1000", False, False, True),
        ("swd_16_n1000", False, True, False),  # one scale
        ("swd_n1000_floor", False, True, False),
        ("ms_ssim_n1000", False, False, False),
        ("ms_ssim_n1000_real", False, True, False),
        ("isolation", False, False, False),  # not `is`: a name starts with whole words
        ("step", False, False, False),
    ],
)
def test_a_name_says_direction_and_role(
    metric: str, higher: bool, secondary: bool, lead: bool
) -> None:
    assert (higher_is_better(metric), is_secondary(metric), may_lead(metric)) == (
        higher,
        secondary,
        lead,
    )
