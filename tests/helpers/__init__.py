"""Builders that many tests share."""
