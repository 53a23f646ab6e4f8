"""The text of `crgan train --help`, built from the YAML files. Imports no Hydra and no torch."""

import re
import textwrap
from collections.abc import Iterator

from crgan_cli.config.choices import Choices

HEAD = """\
usage: crgan train [KEY=VALUE ...] [-m] [--config-dir DIR] [--from RUN] [--cfg job|hydra|all]

examples:
  crgan train regularizer=icr dataset=cifar10
  crgan train -m regularizer.lambda_cr=1,5,10 seed=1,2        train six runs, one after another
  crgan train experiment=icr_cifar10_sndcgan                  train a published row

flags:
  --help GROUP          the choices of a group; --help GROUP=CHOICE: what it is and all its settings
  -m, --multirun        train one run per combination of comma-separated values
  --config-dir DIR, -cd DIR
                        also look for choices in DIR/<group>/<choice>.yaml
  --from RUN            resume it; see docs/configuration.md for what may change
  --dry-run             check everything, print the networks and what the run costs; train nothing
  --cfg job             print the configuration and exit (with --resolve: interpolations resolved)
  --info, --hydra-help  print what Hydra knows of the configuration, or Hydra's own groups
"""

TAIL = """\
Type a key of a group as group.key: regularizer.lambda_cr=5. 'crgan train --cfg job' prints all of
them. The YAML files give the source of each value. Combine regularizers with regularizer=[cr,gp]
"""

ORDER = (
    *("dataset", "architecture", "loss", "regularizer", "augment", "augment_both", "optimizer"),
    *("sampler", "metrics", "measure", "extractor", "engine", "logger", "task", "experiment"),
)
"""Groups as a user thinks of them. Any others follow."""


def train_help(choices: Choices) -> str:
    """Return the whole help text."""
    groups = "\n".join(_groups(choices))
    settings = "\n".join(_settings((choices.folders[0] / "train.yaml").read_text(encoding="utf-8")))
    return (
        f"{HEAD}\ngroups, typed as group=choice (* marks the default):\n{groups}\n\n"
        f"settings:\n{settings}\n\n{TAIL.rstrip()}"
    )


def _groups(choices: Choices) -> Iterator[str]:
    defaults = choices.defaults()
    first = [group for group in ORDER if group in choices.groups]
    for group in dict.fromkeys([*first, *choices.groups]):
        names = choices.groups[group]
        marked = [f"{name}*" if name == defaults.get(group) else name for name in names]
        yield textwrap.fill(
            ", ".join(marked),
            width=100,
            initial_indent=f"  {group:14}",
            subsequent_indent=" " * 16,
            break_on_hyphens=False,
        )


def _settings(text: str) -> Iterator[str]:
    """Yield "key=default  comment" for the settings in train.yaml outside the groups."""
    section, nest = "", ""
    for line in text.splitlines():
        parts = re.match(r"(\s*)(\w+):\s*([^#]*?)\s*(?:#\s*(.*))?$", line)
        if not parts:
            continue
        indent, key, value, comment = parts.groups()
        if not indent:
            section = nest = key if not value else ""
        if section in ("defaults", "hydra"):
            continue
        if value:
            name = f"{nest}.{key}" if indent else key
            yield _entry(f"{name}={value}", re.sub(r"\s*\[[^\]]*\]", "", comment or ""))


def _entry(setting: str, comment: str) -> str:
    return textwrap.fill(
        comment,
        width=100,
        initial_indent=f"  {setting:24}" + ("" if len(setting) < 24 else " "),
        subsequent_indent=" " * 26,
    )
