"""Evaluation of backbones: kNN, linear probe, detection, segmentation."""
