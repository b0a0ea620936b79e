"""Which paths of the host matter, and how much: the table behind sensitive_host_path."""

from dataclasses import dataclass
from typing import NamedTuple

from stockade.audit.report import Severity
from stockade.audit.rules.known import within


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Why a path matters when it is mounted. `personal`: its files belong to ordinary users, not to root."""

    what: str
    condition: str
    severity: Severity
    personal: bool = False


class _Row(NamedTuple):
    path: str
    what: str
    condition: str
    writable: Severity
    read_only: Severity | None
    personal: bool = False


_STATE = ("container engine's state", "MNT-RUNTIME", Severity.CRITICAL, Severity.HIGH)
_START = ("start-up files", "MNT-CRON", Severity.CRITICAL, None)
_SECRET = ("secrets", "MNT-SENS", Severity.CRITICAL, Severity.HIGH)
_CODE = ("system programs", "MNT-SENS", Severity.HIGH, None)

# A mount below a row's path or above it is caught; the first row that fits decides, so the worst come first.
_TABLE: tuple[_Row, ...] = (
    *[_Row(path, *_SECRET) for path in ("/etc/shadow", "/etc/gshadow", "/root/.ssh", "/etc/ssh", "/etc/ssl/private")],
    *[
        _Row(path, *_STATE)
        for path in (
            "/var/lib/docker", "/var/lib/containerd", "/run/containerd", "/var/lib/containers", "/var/lib/kubelet",
            "/run/docker", "/run/crio", "/run/runc", "/var/lib/rancher", "/etc/kubernetes", "/etc/docker",
        )
    ],
    *[
        _Row(path, *_START)
        for path in (
            "/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/crontab", "/var/spool/cron", "/etc/systemd",
            "/usr/lib/systemd", "/lib/systemd", "/run/systemd", "/etc/ld.so.preload", "/etc/pam.d", "/etc/profile.d",
            "/etc/sudoers", "/etc/sudoers.d", "/etc/init.d", "/etc/rc.local", "/etc/udev", "/etc/passwd", "/etc/group",
        )
    ],
    _Row("/etc", "system configuration", "MNT-SENS", Severity.HIGH, None),
    _Row("/root", "root's home directory", "MNT-SENS", Severity.HIGH, Severity.HIGH),
    _Row("/home", "home directories", "MNT-SENS", Severity.HIGH, Severity.MEDIUM, personal=True),
    _Row("/boot", "the kernel's files", "MNT-SENS", Severity.HIGH, Severity.LOW),
    *[_Row(path, *_CODE) for path in ("/usr", "/lib", "/lib64", "/bin", "/sbin")],
    _Row("/run", "run-time state and sockets", "MNT-SENS", Severity.HIGH, Severity.HIGH),
    _Row("/var/log", "the host's logs", "MNT-VARLOG", Severity.MEDIUM, Severity.LOW),
)  # fmt: skip
# Only the directory itself or one above: what lies below these is looked at by name or is an ordinary project.
_EXACT = frozenset({"/run", "/home"})
# below a home directory: keys, tokens, start-up files
_PRIVATE = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config", ".netrc", ".git-credentials", ".bashrc",
    ".profile", ".local",
)  # fmt: skip


def sensitive(path: str, *, writable: bool) -> Sensitive | None:
    """Say why a host's path (normal, not "/") matters as a mount, or None."""
    for row in _TABLE:
        below = within(path, row.path) if row.path not in _EXACT else path == row.path
        if below or within(row.path, path):
            severity = row.writable if writable else row.read_only
            if severity is not None:
                what = row.what if below else f"{row.what} ({row.path})"
                return Sensitive(what, row.condition, severity, row.personal)
            if below:
                return None
    return _home(path, writable=writable)


def _home(path: str, *, writable: bool) -> Sensitive | None:
    parts = path.split("/")[1:]
    if parts[0] != "home":
        return None
    severity = Severity.HIGH if writable else Severity.MEDIUM
    if len(parts) == 2:
        return Sensitive("a home directory", "MNT-SENS", severity, personal=True)
    if parts[2] in _PRIVATE:
        return Sensitive("keys and start-up files of a user", "MNT-SENS", Severity.HIGH, personal=True)
    return None


# files that hold credentials, wherever they lie
_CREDENTIALS = {
    ".docker/config.json": "credentials for registries",
    ".dockercfg": "credentials for registries",
    ".kube/config": "credentials for a cluster",
    ".aws/credentials": "credentials for AWS",
    ".aws": "credentials for AWS",
    ".azure": "credentials for Azure",
    ".config/gcloud": "credentials for Google Cloud",
    ".ssh/id_rsa": "a private key",
    ".ssh/id_ed25519": "a private key",
    ".git-credentials": "credentials for git",
    ".netrc": "credentials",
    ".npmrc": "credentials for a registry of packages",
    ".pypirc": "credentials for a registry of packages",
    ".gnupg": "private keys",
    "kubeconfig": "credentials for a cluster",
    "kubelet.conf": "credentials of the kubelet",
    "admin.conf": "credentials of the cluster's administrator",
}


def credentials(path: str) -> str | None:
    """Say which credentials a host's path (normal) holds by its name, or None."""
    name = path.rpartition("/")[2]
    last = _CREDENTIALS.get(name)
    return last or next((text for end, text in _CREDENTIALS.items() if "/" in end and path.endswith("/" + end)), None)
