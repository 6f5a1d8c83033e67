"""Explain the errors of the Hub's client: the cause, the next step, and whether a retry can help."""

import json
import re
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from .secrets import hide_secrets

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
TRANSIENT = (408, 409, 412, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Trouble:
    """An error of a push.

    Attributes:
        cause: What went wrong, in one line.
        step: What to do next, in one line.
        transient: Whether the same request may succeed later.
        wait: Seconds that the server asks to wait, or None.
    """

    cause: str
    step: str
    transient: bool = False
    wait: float | None = None


def explain(error: BaseException, repo_id: str, *, has_token: bool) -> Trouble:
    """Find the cause and the next step of an error that the client raised.

    Args:
        error: What was raised.
        repo_id: The repository, for the message.
        has_token: Whether an access token was used.
    """
    from huggingface_hub import errors

    error = _innermost(error)
    again = "run the same command again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Trouble("offline mode is on (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE and " + again)
    if isinstance(error, errors.LocalTokenNotFoundError):
        return Trouble("there is no access token", f"log in with `hf auth login` or set HF_TOKEN, and {again}")
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(error, repo_id, has_token)
    if isinstance(error, errors.HTTPError):
        return Trouble(f"the connection to the Hub broke ({_short(error)})", again, transient=True)
    if isinstance(error, json.JSONDecodeError):
        return Trouble("the Hub answered with something that is no JSON (a proxy's page?)", again, transient=True)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return Trouble(f"the connection to the Hub broke ({_short(error)})", again, transient=True)
    if isinstance(error, RuntimeError):
        return Trouble(f"an upload failed ({_short(error)})", again, transient=True)
    if isinstance(error, OSError):
        return Trouble(f"a file cannot be read ({_short(error)})", f"see that it is there and {again}")
    if isinstance(error, ValueError):
        refused = "the Hub refused " if "metadata in README" in str(error) else ""
        return Trouble(f"{refused}{' '.join(str(error).split())[:300].rstrip('.')}", f"correct that and {again}")
    return Trouble(_short(error), f"see what that says and {again}")


def clean(text: str, token: str | None) -> str:
    """Put a text of the server or the client on one line and remove the access token from it."""
    if token:
        text = text.replace(token, "***")
    return hide_secrets(" ".join(text.split()))


def retry_after(headers: object) -> float | None:
    """Read from headers how many seconds to wait: Retry-After (a number or a date) or the Hub's RateLimit."""
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After") if hasattr(headers, "get") else None
    if value is None:
        limit = re.search(r"\bt=(\d+)", headers.get("RateLimit") or "") if hasattr(headers, "get") else None
        return float(limit.group(1)) if limit else None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        from datetime import datetime

        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _answered(error: Any, repo_id: str, has_token: bool) -> Trouble:
    from huggingface_hub import errors

    status, again = error.response.status_code, "run the same command again"
    said = error.server_message or ""
    url = str(error.response.url)
    if status == 401 and (re.search(r"invalid|credential|token", said, re.IGNORECASE) and has_token):
        return Trouble(
            "the Hub does not accept the access token",
            f"get a new one at {TOKENS_PAGE}, log in with `hf auth login`, and {again}",
        )
    if status == 401 and not has_token:
        return Trouble("there is no access token", f"log in with `hf auth login` or set HF_TOKEN, and {again}")
    if status == 403:
        return Trouble(
            f"the access token may not write to {repo_id}",
            f"take one with write access from {TOKENS_PAGE}, or a repository of your own, and {again}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return Trouble(f"{repo_id} has no such branch", f"check --revision and {again}")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return Trouble(
            f"{repo_id} does not exist or is not visible to your access token", f"check the name and {again}"
        )
    if status == 412:
        return Trouble(f"somebody else changed {repo_id} meanwhile", again, transient=True)
    wait = retry_after(error.response.headers)
    if status == 429:
        return Trouble("the Hub asks for fewer requests (429)", again, transient=True, wait=wait)
    if status in (413, 507) or "storage" in said.lower():
        return Trouble(f"the Hub has no room for this: {said or status}", "free storage or push less, and " + again)
    if status in TRANSIENT:
        place = re.sub(r"\?.*", "", url).split("/", 3)[-1][:80]
        return Trouble(f"the Hub failed with {status} at {place}", again, transient=True, wait=wait)
    return Trouble(
        f"the Hub refused the request with {status}: {said or 'no reason given'}", f"correct that and {again}"
    )


def _innermost(error: BaseException) -> BaseException:
    """Unwrap an error: the client wraps an upload's error in a RuntimeError that only names the file."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
