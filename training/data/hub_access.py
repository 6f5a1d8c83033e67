"""Asking the Hub for a data set: at once what the cache holds where there is no network, and no chatter on the way."""

import contextlib
import logging
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator


@contextlib.contextmanager
def hub_access() -> Iterator[None]:
    """Ask the Hub in this block.

    huggingface_hub asks again and again for half a minute, with two lines of log each time, also where not even the
    Hub's name can be resolved. Then it is told to be offline, so that `datasets` looks into its cache at once.
    """
    import datasets.config
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, before = logger.level, (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    logger.setLevel(max(logger.getEffectiveLevel(), logging.ERROR))
    try:
        if not before[0] and not _can_be_resolved(constants.ENDPOINT):
            constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        logger.setLevel(level)


def _can_be_resolved(endpoint: str) -> bool:
    """Whether the endpoint's name has an address; a proxy may know it where this machine does not."""
    if urllib.request.getproxies() or os.environ.get("ALL_PROXY"):
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True
