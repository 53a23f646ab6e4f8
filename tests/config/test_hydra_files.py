"""Files of a stranger's --config-dir: of Hydra they set what runs nothing."""

import os
from pathlib import Path

import pytest

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose, compose_unchecked, hydra_search_path
from crgan_cli.errors import UserError

GLOBAL = "# @package _global_\n"


def write(folder: Path, file: str, text: str) -> Path:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    return folder / file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hydra: {callbacks: {x: {_target_: os.system}}}", "hydra.callbacks.x._target_"),
        ("hydra: {job_logging: {handlers: {x: {class: os.system}}}}", "hydra.job_logging.handlers"),
        ("hydra: {hydra_logging: null}", "hydra.hydra_logging"),
        ("hydra: {job: {env_set: {LD_PRELOAD: /x.so}}}", "hydra.job.env_set.LD_PRELOAD"),
        ("hydra: {searchpath: ['file:///x']}", "hydra.searchpath"),
        ("hydra: {sweep: {dir: /home}}", "hydra.sweep.dir"),
        ("hydra: {launcher: {_target_: os.system}}", "hydra.launcher._target_"),
        ("hydra: {launcher: {setup: [rm -r x]}}", "hydra.launcher.setup"),
        ("hydra: {launcher: {pre_dispatch: exit()}}", "hydra.launcher.pre_dispatch"),
        ('hydra: {launcher: {partition: "gpu\\nrm -r x"}}', "hydra.launcher.partition"),
        ("hydra: {launcher: {n_jobs: '${oc.env:HOME}'}}", "hydra.launcher.n_jobs"),
        ("hydra: {sweeper: {_target_: os.system}}", "hydra.sweeper._target_"),
        ("hydra: {sweeper: {sampler: {_target_: os.system}}}", "hydra.sweeper.sampler._target_"),
        ("hydra: {sweeper: {custom_search_space: os.system}}", "custom_search_space"),
        ("hydra: {sweeper: {params: {+hydra.callbacks.x._target_: os.abort}}}", "hydra.callbacks"),
        ("hydra: {sweeper: {params: {hydra/job_logging: default}}}", "hydra/job_logging"),
        ("hydra: ${published}", "hydra,"),
        ("defaults: [override /hydra/job_logging: default]", "override /hydra/job_logging"),
        ("defaults: [/loss@hydra.callbacks.x: hinge]", "/loss@hydra.callbacks.x"),
        ("defaults: [/hydra/launcher@hydra.callbacks: basic]", "@hydra.callbacks"),
        ("defaults: [/hydra/callbacks/x]", "/hydra/callbacks/x"),
        ("defaults: [override /hydra/launcher: ../callbacks/x]", "override /hydra/launcher"),
        ("defaults: [../../elsewhere]", "../../elsewhere"),
        ("defaults: [//etc/x]", "//etc/x"),
        ("defaults: ['/${name}/callbacks/x']", "${name}"),
        ("defaults: [{'/${name}/callbacks': x}]", "${name}"),
        ("defaults: [{'/hydra/callbacks /loss': x}]", "/hydra/callbacks"),
    ],
)
def test_a_file_cannot_set_what_may_run_code(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, "experiment/theirs.yaml", f"{GLOBAL}{text}\n")
    with pytest.raises(UserError) as error:
        compose(["experiment=theirs"], str(tmp_path))
    assert str(error.value).startswith(f"{file} sets ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hydra/launcher/basic.yaml", "_target_: os.system"),  # in place of Hydra's own
        ("hydra/callbacks/x.yaml", "x: {_target_: os.system}"),
        ("hydra/sweeper/x.yaml", "# @package hydra.callbacks.x\n_target_: os.system"),
        ("hydra/launcher/x.yaml", "defaults: [/hydra/job_logging: default]"),
        ("hydra.yaml", "# @package hydra\ncallbacks: {x: {_target_: os.system}}"),
        ("all.yaml", "hydra: {callbacks: {x: {_target_: os.system}}}"),
        ("loss/x.yaml", "hydra: {callbacks: {x: {_target_: os.system}}}"),  # for loss@_global_: x
        ("loss/x.yaml", "# @package hydra.callbacks.x\n_target_: os.system"),
        ("loss/deep/x.yaml", "#@package _global_.hydra.callbacks.x\n_target_: os.system"),
    ],
)
def test_nor_can_a_file_that_nobody_chose(tmp_path: Path, file: str, text: str) -> None:
    path = write(tmp_path, file, f"{text}\n")
    with pytest.raises(UserError, match="which can run code") as error:
        compose([], str(tmp_path))
    assert str(error.value).startswith(f"{path} sets ")


def test_nor_can_a_file_behind_a_link(tmp_path: Path) -> None:
    write(tmp_path, "far/x.yaml", f"{GLOBAL}hydra: {{callbacks: {{x: {{_target_: os.system}}}}}}\n")
    (tmp_path / "conf").mkdir()
    os.symlink(tmp_path / "far", tmp_path / "conf" / "experiment")
    os.symlink(tmp_path / "conf", tmp_path / "far" / "round")
    with pytest.raises(UserError, match="which can run code"):
        compose([], str(tmp_path / "conf"))
    write(tmp_path, "other/launcher/basic.yaml", "_target_: os.system\n")  # no group of Hydra's
    compose([], str(tmp_path / "other"))
    os.symlink(tmp_path / "other", tmp_path / "other" / "hydra")
    with pytest.raises(UserError, match="hydra is a link to a folder"):
        compose([], str(tmp_path / "other"))


def test_a_file_may_choose_a_launcher_and_set_plain_values(tmp_path: Path) -> None:
    text = (
        "defaults:\n  - override /hydra/launcher: four\n  - override /hydra/sweeper: basic\n"
        "  - override /metrics@_global_.metrics: none\n"
        "steps: 7\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    max_batch_size: 2\n    params:\n"
        "      seed: 1,2\n      regularizer.lambda_cr: choice(1,10)\n"
    )
    write(tmp_path, "experiment/mine.yaml", GLOBAL + text)
    write(tmp_path, "hydra/launcher/four.yaml", "defaults:\n  - joblib\n  - _self_\nn_jobs: 4\n")
    write(tmp_path, "loss/broken.yaml", "a: [\n")  # nobody chose it
    choices = Choices(str(tmp_path))
    with hydra_search_path(choices):
        config = compose_unchecked(["experiment=mine", "+hydra.job.env_set.X=1"], choices)
    assert config.steps == 7
    assert config.hydra.launcher.n_jobs == 4
    assert config.hydra.launcher._target_.endswith("JoblibLauncher")
    assert config.hydra.sweeper.params.seed == "1,2"
    assert config.hydra.job.env_set.X == "1"  # typed
