"""Figures of a run, and the one style that all figures and pages share."""
