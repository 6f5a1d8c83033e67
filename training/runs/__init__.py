"""Folders of runs: the record of a run, and its checkpoints."""
