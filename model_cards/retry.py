"""Try a request to the Hub again where that can help, as long as the Hub asks to wait."""

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
) -> Result:
    """Do a piece of work; after a dropped connection, a 429 or a server error do all of it again, five times in all.

    Args:
        work: What to do; must be safe to repeat.
        say: The message of an error that stays, from its cause and next step.
        repo_id: For the causes.
        token: The access token, which no message shows.
        report: Takes a line for each wait.

    Raises:
        PushError: the work raised it itself, trying again cannot help, or did not.
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
            # The chain is cut on purpose: the client's own error may repeat headers or what a server echoed.
            refusal = PushError(say(trouble))
        wait = trouble.wait if trouble.wait is not None else FIRST_WAIT * 2 ** (attempt - 1)
        if not trouble.transient or attempt >= ATTEMPTS or wait > LONGEST_WAIT:
            if wait > LONGEST_WAIT:
                refusal = PushError(f"{refusal} (the Hub asks to wait {wait:.0f} s)")
            raise refusal
        report(f"{clean(trouble.cause, token)}; trying again in {wait:.0f} s ({attempt + 1} of {ATTEMPTS})")
        time.sleep(wait)
