"""What a step costs, in the log."""

from crgan_cli.training.step_cost import StepCost


def test_the_speed_of_steps_has_units_that_fit() -> None:
    cost = StepCost(9.07e9, 442e9, "the 442 GFLOP/s of this CPU")
    assert cost.describe(15.0) == "136 GFLOP/s, 30.8% of the 442 GFLOP/s of this CPU"
    assert cost._replace(peak=None).describe(1000.0) == "9.07 TFLOP/s"
