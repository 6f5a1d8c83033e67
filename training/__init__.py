"""Pretraining, evaluation and the command line of the Ladder Siamese Network."""
