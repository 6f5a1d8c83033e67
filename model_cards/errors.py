"""Errors of cards and pushes that a user can cause or clear up; each message is one line with the next step."""


class CardError(ValueError):
    """A card cannot be written from what the folder holds."""


class PushError(ValueError):
    """A folder cannot be published, or the Hub refused it. The message names the cause and what to do next."""
