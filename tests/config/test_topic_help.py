"""`crgan train --help GROUP` and `--help GROUP=CHOICE`."""

import pytest
from support.runs import Crgan, refused

from crgan_cli.config.choices import Choices
from crgan_cli.config.topic_help import describe_topic, gather_settings, list_choices

CHOICES = Choices()
SETTINGS_OF = [
    (group, name)
    for group, names in CHOICES.groups.items()
    if group != "experiment"
    for name in names
]


@pytest.mark.parametrize("group", CHOICES.groups)
def test_a_group_lists_its_choices_each_with_a_sentence(group: str) -> None:
    lines = list(list_choices(CHOICES, group))
    for name, line in zip(CHOICES.groups[group], lines, strict=False):
        assert line.startswith(f"  {group}={name}")
        assert len(line.split()) > 2, line


@pytest.mark.parametrize(("group", "name"), SETTINGS_OF)
def test_every_setting_of_a_choice_is_explained(group: str, name: str) -> None:
    plain = {
        key
        for key, value in CHOICES.settings(group, name).items()
        if not key.startswith("_target_") and not isinstance(value, dict)
    }
    found = gather_settings(CHOICES, group, name)
    assert plain <= found.keys()
    text = describe_topic(CHOICES, f"{group}={name}")
    for each in found.values():
        assert f"  {group}.{each.key}={each.default}" in text
    assert max(map(len, text.splitlines())) <= 130  # a long default may stand alone


def test_a_sum_has_the_settings_of_its_parts_with_default_range_meaning_and_source() -> None:
    text = " ".join(describe_topic(CHOICES, "regularizer=icr").split())
    assert "Zhao et al. 2021, arXiv:2002.04724" in text
    assert "regularizer.lambda_real=10.0 weight on real images" in text
    assert "regularizer.sigma=0.03 standard deviation of e (elsewhere: radius) (a number" in text
    assert "[review]" in text


def test_it_is_asked_for_on_the_command_line(crgan: Crgan) -> None:
    code, out, err = crgan("train", "--help", "loss", "augment=cutout")
    assert (code, err) == (0, "")
    assert "  loss=non_saturating*" in out
    assert "augment.size=16" in out
    code, out, _ = crgan("train", "--help", "experiment=demo")
    assert code == 0
    assert "override /regularizer: icr" in out
    refused(crgan("train", "--help", "losses"), "Unknown group 'losses'", "Did you mean 'loss'?")
    refused(crgan("train", "--help", "loss=hing"), "Did you mean 'loss=hinge'?")
