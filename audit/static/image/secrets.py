"""Tells files that hold credentials: by their names where that is enough, else by what stands in them.

Many packages bring keys to test with and configuration without credentials, so a name alone mostly says little.
"""

import re

from stockade.audit.static.credentials import credential

# the name of a file → what has to stand in it (None: nothing), and what it then is
_FILES: tuple[tuple[re.Pattern[str], re.Pattern[bytes] | None, str], ...] = tuple(
    [
        (re.compile(name, re.IGNORECASE), re.compile(content, re.IGNORECASE | re.MULTILINE) if content else None, what)
        for name, content, what in (
            (r"(?:^|/)(?:\.docker/config\.json|\.dockercfg)$", rb'"auth"\s*:\s*"[^"]', "credentials for registries"),
            (r"(?:^|/)\.aws/(?:credentials|config)$", rb"aws_secret_access_key\s*=\s*\S", "credentials for AWS"),
            (r"(?:^|/)\.git-credentials$", rb"://[^\s/:]*:[^\s@]+@", "credentials for git"),
            (r"(?:^|/)[._]netrc$", rb"\bpassword\s+\S", "credentials"),
            (r"(?:^|/)\.npmrc$|(?:^|/)\.yarnrc(?:\.yml)?$", rb"_auth\w*\s*[=:]\s*[^\s$]|npmAuthToken: *[^\s$]",
             "credentials for a registry of packages"),
            (r"(?:^|/)\.pypirc$", rb"^\s*password\s*[:=]\s*\S", "credentials for a registry of packages"),
            (r"(?:^|/)\.pgpass$", rb"^[^#\n]*:[^:\n]+$", "passwords of databases"),
            (r"(?:^|/)(?:\.kube/config|kubeconfig|admin\.conf|kubelet\.conf|kubeconfig\.ya?ml)$",
             rb"client-key-data:\s*\S|\btoken:\s*\S", "credentials for a cluster"),
            (r"(?:service[-_]?account|application_default_credentials|credentials)[\w.-]*\.json$",
             rb'"private_key"\s*:\s*"-----BEGIN|"refresh_token"\s*:\s*"[^"]', "credentials for Google Cloud"),
            (r"(?:^|/)\.azure/(?:accessTokens|msal_token_cache)[\w.]*$", rb"token", "credentials for Azure"),
            (r"(?:^|/)run/secrets/kubernetes\.io/serviceaccount/token$", rb"^eyJ", "a token of a cluster"),
            (r"(?:^|/)\.htpasswd$", rb"^[^:#\s]+:\S{8}", "hashes of passwords"),
            (r"(?:^|/)\.gnupg/private-keys-v1\.d/[^/]+\.key$|(?:^|/)secring\.gpg$", b"", "private keys"),
        )
    ]
)  # fmt: skip
_KEYS = re.compile(
    r"(?:^|/)(?:id_(?:rsa|dsa|ecdsa|ed25519)[\w.-]*|ssh_host_\w+_key|[^/]+\.(?:pem|key))$", re.IGNORECASE
)
_STORES = re.compile(r"\.(?:p12|pfx|kdbx|ppk)$", re.IGNORECASE)
_PRIVATE = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
#: of PKCS #12 (DER), KeePass and PuTTY's keys, which are no text
_BEGINNINGS = (b"\x30\x82", b"\x30\x80", b"\x03\xd9\xa2\x9a", b"PuTTY-User-Key-File")
_VARIABLES = re.compile(r"(?:^|/)(?:\.env(?:\.[\w-]+)?|[\w-]+\.env)$", re.IGNORECASE)
#: where packages keep examples, tests and what is made for everybody
_OF_PACKAGES = re.compile(
    r"(?:^|/)(?:usr/share/(?:doc|perl5?|ca-certificates)|usr/lib/python[^/]*/test|tests?|testdata|testing|examples?"
    r"|fixtures|node_modules|site-packages|dist-packages|gems)(?:/|$)"
)
#: directories of packages, whose keys are to be tried out with; a server's configuration may lie there all the same
_INSTALLED = re.compile(r"^usr/(?:share|lib|lib64|libexec)/")
_EXAMPLE = re.compile(r"\.(?:example|sample|dist|template|tmpl)$", re.IGNORECASE)
#: the number of a row of `_FILES`, or one of these
KEY, VARIABLES = -1, -2


def interesting(path: str) -> int | None:
    """Say by a file's path whether it may hold credentials: a number for `what`, else None."""
    if _OF_PACKAGES.search(path) or _EXAMPLE.search(path):
        return None
    if _KEYS.search(path) or _STORES.search(path):
        return None if _INSTALLED.search(path) else KEY
    if _VARIABLES.search(path):
        return VARIABLES
    return next((number for number, (name, _, _) in enumerate(_FILES) if name.search(path)), None)


def what(wanted: int, data: bytes) -> str | None:
    """Say what a file that is `interesting` holds, or None where it is harmless after all."""
    if wanted == KEY:
        return "a private key" if _PRIVATE.search(data) or data.startswith(_BEGINNINGS) else None
    if wanted == VARIABLES:
        return _variables(data)
    _, content, name = _FILES[wanted]
    return name if content is None or content.search(data) else None


def _variables(data: bytes) -> str | None:
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        found = credential(name.strip(), value.strip().strip("\"'")) if equals and not name.startswith("#") else None
        if found:
            return found
    return None
