"""What can go wrong with a request, chosen by a test."""

import re
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One way of misbehaving, applied to the requests that it matches.

    Args:
        action: "status" (answer with `status`), "html" (the 502 page of a proxy), "drop" (close the connection without
            an answer and without doing anything), "half" (read half of what is sent, or send half of the answer, then
            close), "lost" (do what was asked, then close without an answer), "echo" (`status`, with the access token
            repeated in the error message, as no server should).
        method: The HTTP method, or None for any.
        pattern: A regular expression searched in the path.
        index: Only the request with this number since the server's log was cleared, or None for any.
        times: How often it strikes; None for always.
        status: The status code of "status" and "echo".
        headers: Extra answer headers, for instance Retry-After.
        message: The error text in the answer.
    """

    action: str
    method: str | None = None
    pattern: str = ""
    index: int | None = None
    times: int | None = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "fault asked for by the test"

    def strikes(self, method: str, path: str, index: int) -> bool:
        """Tell whether this request is hit, and count it if so."""
        if self.method not in (None, method) or not re.search(self.pattern, path):
            return False
        if self.index is not None and index != self.index:
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        return True
