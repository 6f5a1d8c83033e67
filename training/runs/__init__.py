"""Folders of runs and their checkpoints: what is in them, whole or not there."""
