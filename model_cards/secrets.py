"""Secrets in text and in values, found by their kind and replaced by stars: tokens, keys, and passwords in URLs."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_TOKEN = re.compile(
    r"""\b(?:hf_|api_org_)[A-Za-z0-9]{8,} | \bhf_oauth_\S{8,}       # Hugging Face
    | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{16,}
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                 # Amazon
    | \bAIza[\w-]{30,} | \bya29\.[\w-]{16,}                         # Google
    | \b[sr]k_(?:live|test)_\w{16,} | \bSG\.[\w-]{16,}\.[\w-]{16,} | \bdckr_pat_[\w-]{16,} | \bpypi-[\w-]{16,}
    | \bwandb_v\d_\w{16,} | \bsk-[\w-]{20,} | \bxox[abprs]-[\w-]{10,} | \bnpm_[A-Za-z0-9]{30,}
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                             # JSON web tokens
    | (?<=Bearer\ )\S{8,}
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | (?i:(?<=wandb\ )|(?<=wandb\ login\ ))[0-9a-f]{40}\b""",
    re.VERBOSE,
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@'\"<>]+(?=@)")
_WORDS = r"token|secret|password|passwd|passphrase|pwd|credentials?|signature|sig"
_KEYS = r"api[_-]?key|(?:access|secret|private|account|auth|sas)[_-]?key(?:[_-]id)?"
_NAME = rf"(?:[A-Za-z0-9]+[_.-])*(?:{_WORDS}|{_KEYS})(?:[_.-](?:id|value|access[_-]key))?"
_NAMED = re.compile(
    rf"""(?P<name>(?<![\w.])(?:--|[?&])?["']?{_NAME}["']?\s*[:=]\s*)
    (?P<value>"[^"\n]*"|'[^'\n]*'|[^\s"',;&{{}}\[\]]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<name>(?<!\S)--{_NAME}\s+)(?P<value>[^\s-]\S*)", re.IGNORECASE)
_QUERY_KEY = re.compile(r"(?P<name>[?&]key=)(?P<value>[^\s&#'\"]+)", re.IGNORECASE)
# "password hunter2" in a sentence. A word that usually goes on a sentence about passwords is none.
_SENTENCE = (
    "is|was|are|for|of|in|on|and|or|to|from|by|with|that|which|not|no|must|may|does|did|has|had|cannot|"
    "given|set|used|stored|sent|protected|required|needed|incorrect|correct|wrong|missing|invalid|expired|empty|"
    "failed|file|field|manager|authentication|prompt|hash|reset|again|here|there"
)
_SPOKEN = re.compile(
    rf"""(?P<name>(?<![\w.])(?:[A-Za-z0-9]+[_.-])*(?:password|passwd|passphrase)\s+(?:(?:is|was)\s+)?)
    (?P<value>(?!(?:{_SENTENCE})\b(?!\S))[^\s=:,;.()]\S*)""",
    re.VERBOSE | re.IGNORECASE,
)
_COOKIE = re.compile(r"(?P<name>\b(?:set-)?cookie:\s*)(?P<value>\S.*)", re.IGNORECASE)
_IS_NAME = re.compile(_NAME, re.IGNORECASE)
_NOTHING = ("", "null", "none", "~", "true", "false", HIDDEN)


def hide_secrets(text: str) -> str:
    """Replace everything that looks like a secret with stars.

    That is: tokens of known services; what stands before the @ of a URL; and the values of names such as
    `wandb_api_key: ...`, `--hub_token ...`, `?signature=...`, `Cookie: ...` or `password ...`.
    """
    text = _USER_IN_URL.sub(HIDDEN, _TOKEN.sub(HIDDEN, text))
    for pattern in (_NAMED, _OPTION, _QUERY_KEY, _COOKIE, _SPOKEN):
        text = pattern.sub(_hidden, text)
    return text


def holds_secret(text: str) -> bool:
    """Tell whether a text contains a token of a known service, or a URL with a password."""
    url = _USER_IN_URL.search(text)
    return _TOKEN.search(text) is not None or (url is not None and ":" in url.group())


def is_secret_name(name: str) -> bool:
    """Tell whether a field or option of this name holds a secret: `hub_token`, `aws_secret_access_key`, ..."""
    return _IS_NAME.fullmatch(name.strip().lstrip("-").strip()) is not None


def hide_in_values(value: Any) -> Any:
    """Replace secrets in every text of nested mappings and lists, and all values of names that hold one."""
    if isinstance(value, Mapping):
        return {name: _named_value(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in_values(entry) for entry in value]
    return hide_secrets(value) if isinstance(value, str) else value


def _named_value(name: str, value: Any) -> Any:
    if is_secret_name(name) and isinstance(value, str | int | float) and str(value).lower() not in _NOTHING:
        return HIDDEN
    return hide_in_values(value)


def _hidden(found: re.Match[str]) -> str:
    value = found["value"]
    return found["name"] + (value if value.strip("\"'").lower() in _NOTHING else HIDDEN)
