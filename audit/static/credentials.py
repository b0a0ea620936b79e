"""Tells a credential from other text: by the name that it goes by and by what the value itself says."""

from __future__ import annotations

import re

# A word of a name, between the ends, underscores, dashes, dots and changes of case: "token" and not "tokenizer".
_WORD = re.compile(
    r"(?:^|[_.\-]|(?-i:(?<=[a-z])(?=[A-Z])))(?:passw(?:or)?d|passphrase|passwd|pwd|pass|secret|secrets|token|api_?key|apikey|access_?key"
    r"|private_?key|secret_?key|credential|credentials|auth_?key|encryption_?key|signing_?key|key_?content|jwt"
    r"|batch_?key|account_?key|storage_?key|client_?key|license_?key|master_?key|deploy_?key|ssh_?key)(?:$|[_.\-\d])",
    re.IGNORECASE,
)
# names that speak of a credential and hold something else: a path, an address, a switch, a number
_HARMLESS_NAME = re.compile(
    r"(?:[_.\-](?:file|path|dir|url|uri|host|name|id|ttl|timeout|expiry|expires|expiration|length|min|max|size|type|policy"
    r"|enabled|disabled|required|algorithm|header|prefix|env|key_?name|ref|user|username|mount|endpoint|issuer|audience"
    r"|count|age|days|hours|hint|reset|format|mode|class|store|provider)$)|^(?:allow|enable|disable|use|no|is|has)_",
    re.IGNORECASE,
)
_HARMLESS_VALUE = re.compile(
    r"^(?:|true|false|yes|no|on|off|none|null|\d{1,3}|/[\w./-]*|file:.*|https?://[^@\s]*|\$\{?[\w.:?+-]*\}?|\$\(.*\)"
    r"|\{\{.*\}\}|<[^>]*>|%\w+%)$",
    re.IGNORECASE | re.DOTALL,
)
_KNOWN = (
    (re.compile(r"-{3,5}\s?BEGIN [A-Z ]*PRIVATE KEY"), "a private key"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), "an AWS access key"),
    (re.compile(r"\bgh[pousr]_\w{30,}|\bgithub_pat_\w{30,}"), "a GitHub token"),
    (re.compile(r"\bglpat-[\w-]{20,}"), "a GitLab token"),
    (re.compile(r"\bxox[abprs]-[\w-]{10,}"), "a Slack token"),
    (re.compile(r"\bAIza[\w-]{35}"), "a Google key"),
    (re.compile(r"\bsk_live_\w{16,}"), "a Stripe key"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "a JSON web token"),
    (re.compile(r"^[a-z][a-z0-9+.-]*://[^\s/:@]*:(?!\$|\{\{|<)[^\s/@:]+@"), "a password in an address"),
)


def named(name: str) -> bool:
    """Say whether a name says that its value is a credential, such as DB_PASSWORD and not PASSWORD_MIN_LENGTH."""
    return bool(_WORD.search(name)) and not _HARMLESS_NAME.search(name)


def credential(name: str, value: str) -> str | None:
    """Say what kind of credential a value is ("a private key", "the value of DB_PASSWORD"), or None."""
    for pattern, what in _KNOWN:
        if pattern.search(value):
            return what
    if _WORD.search(name) and not _HARMLESS_NAME.search(name) and not _HARMLESS_VALUE.match(value.strip()):
        return f"the value of {name}"
    return None
