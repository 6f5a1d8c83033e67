"""Errors that a user can cause; the command line prints them as one line and exits with code 2."""


class UserError(ValueError):
    """A mistake in what the user gave. The message says what was wrong, where, and what to do, in one line."""


class TrainingStopped(RuntimeError):
    """A run that must not go on: a collapsed stage, a loss that is not finite, too many unreadable images."""


class BadImageError(ValueError):
    """An image that cannot be read. The message is the reason, in one line."""
