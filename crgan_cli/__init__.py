"""crgan: an experiment runner for consistency-regularised GANs. Importing it imports no torch."""

__version__ = "0.1.0"
