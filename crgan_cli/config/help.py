"""The text of `crgan train --help`, made from the YAML files themselves. No Hydra, no torch."""

import re
import textwrap
from collections.abc import Iterator

from crgan_cli.config.choices import Choices

HEAD = """\
usage: crgan train [KEY=VALUE ...] [-m] [--config-dir DIR] [--from RUN] [--cfg job|hydra|all]

examples:
  crgan train regularizer=icr dataset=cifar10
  crgan train -m regularizer.lambda_cr=1,5,10 seed=1,2        six runs, one after another
  crgan train experiment=icr_cifar10_sndcgan                  a published row, as it was trained

flags:
  -m, --multirun        one run for each combination of comma-separated values
  --config-dir DIR, -cd DIR
                        also look for choices in DIR/<group>/<choice>.yaml
  --from RUN            continue the run in that folder; only steps=, device= and engine may change
  --cfg job             print the configuration instead of training (--resolve: its values)
  --info, --hydra-help  what Hydra knows of the configuration, and Hydra's own groups
"""

TAIL = """\
A key of a group is typed as group.key: regularizer.lambda_cr=5. 'crgan train --cfg job' prints them
all, and the files say where each value comes from. A sum of regularizers: regularizer=[cr,gp]
"""


def help_text(choices: Choices) -> str:
    """The whole help text."""
    groups = "\n".join(_groups(choices))
    settings = "\n".join(_settings((choices.folders[0] / "train.yaml").read_text(encoding="utf-8")))
    return (
        f"{HEAD}\ngroups, as group=choice (* is the default):\n{groups}\n\n"
        f"settings:\n{settings}\n\n{TAIL.rstrip()}"
    )


def _groups(choices: Choices) -> Iterator[str]:
    defaults = choices.defaults()
    for group, names in choices.groups.items():
        marked = [f"{name}*" if name == defaults.get(group) else name for name in names]
        yield textwrap.fill(
            ", ".join(marked) or "(none yet)",
            width=100,
            initial_indent=f"  {group:14}",
            subsequent_indent=" " * 16,
            break_on_hyphens=False,
        )


def _settings(text: str) -> Iterator[str]:
    """Lines "key=default  comment" of what stands in train.yaml outside its defaults and hydra."""
    section, nest = "", ""
    for line in text.splitlines():
        found = re.match(r"(\s*)(\w+):\s*([^#]*?)\s*(?:#\s*(.*))?$", line)
        if not found:
            continue
        indent, key, value, comment = found.groups()
        if not indent:
            section = nest = key if not value else ""
        if section in ("defaults", "hydra"):
            continue
        if value:
            name = f"{nest}.{key}" if indent else key
            yield _entry(f"{name}={value}", re.sub(r"\s*\[[^\]]*\]|; ours$", "", comment or ""))


def _entry(setting: str, comment: str) -> str:
    return textwrap.fill(
        comment,
        width=100,
        initial_indent=f"  {setting:24}" + ("" if len(setting) < 24 else " "),
        subsequent_indent=" " * 26,
    )
