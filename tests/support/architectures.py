"""Which architectures are for which task."""

from crgan_cli.config.choices import Choices

OTHER_TASKS = ("unet", "translator", "stargan")
"""Architectures of other tasks than generation."""

GENERATION = [name for name in Choices().groups["architecture"] if name not in OTHER_TASKS]
"""The architectures that make images from noise."""
