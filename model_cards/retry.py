"""Repeat a request to the Hub if that can help, after the time that the Hub asks for."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import PushError
from .hub_errors import Trouble, clean, explain

ATTEMPTS = 5
FIRST_WAIT = 2.0
LONGEST_WAIT = 900.0
Result = TypeVar("Result")


def try_again(
    work: Callable[[], Result],
    say: Callable[[Trouble], str],
    *,
    repo_id: str,
    token: str | None,
    report: Callable[[str], None],
    ending: threading.Event | None = None,
) -> Result:
    """Call a function, and repeat it after a dropped connection, a 429 or a server error: at most five attempts.

    Args:
        work: The function. It must be safe to repeat.
        say: Makes the message of a final error from its cause and next step.
        repo_id: The repository, for the messages.
        token: The access token; it is removed from messages.
        report: Called with one line before each wait.
        ending: Once another thread sets it, no further attempt is made.

    Returns:
        What `work` returned.

    Raises:
        PushError: `work` raised it, a retry cannot help, or all attempts failed.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return work()
        except PushError:
            raise
        except Exception as error:
            trouble = explain(error, repo_id, has_token=token is not None)
            # Raised without the original error, which may contain headers or text that the server echoed.
            refusal = PushError(say(trouble))
        wait = trouble.wait if trouble.wait is not None else FIRST_WAIT * 2 ** (attempt - 1)
        last = attempt >= ATTEMPTS or (ending is not None and ending.is_set())
        if not trouble.transient or last or wait > LONGEST_WAIT:
            if wait > LONGEST_WAIT:
                refusal = PushError(f"{refusal} (the Hub asks to wait {wait:.0f} s)")
            raise refusal
        report(f"{clean(trouble.cause, token)}; trying again in {wait:.0f} s ({attempt + 1} of {ATTEMPTS})")
        if ending is None:
            time.sleep(wait)
        elif ending.wait(wait):
            raise refusal
