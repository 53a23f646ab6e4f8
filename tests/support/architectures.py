"""Which architectures are for which task."""

from crgan_cli.config.choices import Choices

OTHER_TASKS: dict[str, tuple[str, ...]] = {"unet": ()}
"""Architectures of other tasks than generation -> the overrides that make a run of them.

Empty: their task is still to come, so nothing can train them, and the README does not list them.
"""

GENERATION = [name for name in Choices().groups["architecture"] if name not in OTHER_TASKS]
"""The architectures that make images from noise."""

WITHOUT_TASK = {name for name, words in OTHER_TASKS.items() if not words}
