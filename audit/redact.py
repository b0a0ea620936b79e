"""Keeps secrets and control characters out of a report's text.

Evidence quotes command lines, mount options and paths, which may hold credentials and which whoever runs the container
chooses. Values of an environment are never facts; what looks like a credential elsewhere is replaced.
"""

import re
from functools import lru_cache

HIDDEN = "[redacted]"

_WORD = r"(?:passw(?:or)?d|passphrase|pwd|secret|token|(?:api|access|private)[_-]?key|credentials?|authorization)"
_VALUE = r"""((?:bearer|basic)\s+[^\s'"]+|"[^"]*"|'[^']*'|[^\s,;&'"]+)"""
# `name=value`, `--name value` and the header `name: value`, where the name says that the value is secret. A colon after
# a path is no header: evidence begins with the path where it was read.
_NAMED = re.compile(
    rf"([\w.-]*{_WORD}[\w.-]*\s?=\s?|(?<!\S)--?[\w.-]*{_WORD}[\w-]*\s+(?!-)|(?<![\w./-])[\w-]*{_WORD}\s?:\s+)"
    rf"{_VALUE}",
    re.IGNORECASE,
)
# scheme://user:password@host
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)
# tokens that say of themselves what they are: AWS, GitHub, GitLab, Slack, Google, JSON web tokens
_TOKEN = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|AIza[\w-]{35}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
# C0 and C1 controls, DEL, the bidirectional and zero-width characters that forge what a reader sees, lone surrogates
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_SUSPECT = re.compile(
    r"pass|pwd|secret|token|key|credential|authorization|://|AKIA|ASIA|gh\w_|glpat|xox|AIza|eyJ", re.IGNORECASE
)
_LONGEST = 2000


def visible(text: str) -> str:
    r"""Give one line without control characters: they show as \x1b or \u202e, bytes that aren't UTF-8 as \xff."""
    return _CONTROL.sub(_escape, text) if not text.isascii() or not text.isprintable() else text


def _escape(match: re.Match[str]) -> str:
    number = ord(match.group())
    if 0xDC80 <= number <= 0xDCFF:  # os.fsdecode keeps a byte that isn't UTF-8 as a surrogate
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


@lru_cache(maxsize=1 << 14)  # a thousand containers of a host say much the same; the search costs 4 µs a line
def clean(text: str) -> str:
    """Make a text fit for a report: no control characters, no secrets, at most 2,000 characters."""
    shown = visible(text if len(text) <= _LONGEST else text[:_LONGEST] + " ...")
    if not _SUSPECT.search(shown):
        return shown
    shown = _NAMED.sub(lambda match: match[1] + HIDDEN, shown)
    return _TOKEN.sub(HIDDEN, _URL.sub(rf"\g<scheme>:{HIDDEN}@", shown))
