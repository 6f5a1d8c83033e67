"""Ladder Siamese Network: models, configuration and losses (arXiv 2211.13844)."""

__version__ = "0.1.0"
