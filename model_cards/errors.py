"""Errors of cards and pushes that a user can cause or resolve. Each message is one line that says what to do next."""


class CardError(ValueError):
    """A card cannot be made from the files in the folder."""


class PushError(ValueError):
    """A folder cannot be published, or the Hub refused it. The message names the cause and what to do next."""
