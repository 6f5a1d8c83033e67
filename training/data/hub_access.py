"""Requests to the Hub for a data set; without a network the cache is used at once."""

import contextlib
import logging
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator


@contextlib.contextmanager
def hub_access() -> Iterator[None]:
    """Request data sets from the Hub in this block.

    If the Hub's host name cannot be resolved, huggingface_hub still retries for half a minute and logs two lines each
    time. This context sets its offline mode in that case, so that `datasets` uses its cache at once.
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
    """Whether the endpoint's host name can be resolved. With a proxy it need not be: the proxy resolves it."""
    if urllib.request.getproxies() or os.environ.get("ALL_PROXY"):
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True
