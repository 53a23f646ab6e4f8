"""What to type next for a run: each line can be copied into a shell as it is."""

from collections.abc import Mapping
from pathlib import Path

from crgan_cli.system.paths import shell_quoted


def suggest_metrics(config: Mapping[str, object]) -> list[str]:
    """Return the settings of metrics that fit a run, whose configuration is flat. The first needs
    no download."""
    if "dataset.channels_in" in config:
        return ["metrics=pairs"]
    if "architecture.z_dim" not in config:
        return ["metrics=domains"]
    if "dataset.holdout" in config:  # images of one's own, which may be few: all that are held out
        return ["metrics=demo metrics.num_samples=null"]
    return ["metrics=demo", "metrics=fid10k_test"]


def list_next_commands(
    path: Path, config: Mapping[str, object], *, resumes: bool, to: str = "NAME"
) -> list[str]:
    """Return the commands for a run's folder, or for a checkpoint. Fill in words in capitals.

    `config` is flat. `resumes`: whether steps are left to be trained. `to`: what images can be
    translated to, where that is known and there are several translations.
    """
    where = shell_quoted(path)
    sign = "=" if to.startswith("-") else " "  # or it looks like another option
    several = "" if "dataset.channels_in" in config else f" --to{sign}{shell_quoted(to)}"
    from_latents = "architecture.z_dim" in config
    measured = bool(config.get("metrics._target_"))
    look = (
        f"crgan sample {where}"
        if from_latents
        else f"crgan translate {where} INPUT{several} --out OUT"
    )
    score = f"crgan eval {where}" + ("" if measured else f" {suggest_metrics(config)[0]}")
    report = [f"crgan report {where}"] if measured and path.suffix != ".pt" else []
    return [*([f"crgan train --from {where}"] if resumes else []), look, score, *report]
