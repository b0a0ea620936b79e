"""The options of `docker run`, `podman run` and `nerdctl run`: which take a value, and which name they go by here."""

from __future__ import annotations

#: options without a value (docker/cli, containers/podman cmd/podman/common, nerdctl); "=false" turns one off
SWITCHES = frozenset(
    {
        "detach", "interactive", "tty", "rm", "privileged", "init", "read-only", "oom-kill-disable", "publish-all",
        "no-healthcheck", "sig-proxy", "disable-content-trust", "help", "quiet", "use-api-socket", "replace", "rmi",
        "tls-verify", "env-host", "http-proxy", "no-hosts", "no-hostname", "read-only-tmpfs", "rootfs", "passwd",
        "unsetenv-all", "no-new-privileges", "debug",
    }
)  # fmt: skip
#: letters → names
LETTERS = {
    "a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive", "l": "label",
    "m": "memory", "p": "publish", "P": "publish-all", "q": "quiet", "t": "tty", "u": "user", "v": "volume",
    "w": "workdir", "H": "host", "D": "debug",
}  # fmt: skip
#: other names of an option
ALIASES = {
    "net": "network", "cgroup-ns": "cgroupns", "uts-namespace": "uts", "expose-port": "expose", "rm-on-exit": "rm",
    "uidmap": "uidmap", "gidmap": "gidmap", "group": "group-add",
}  # fmt: skip
#: options of which the last one holds
ONE = frozenset(
    {
        "userns", "pid", "ipc", "uts", "network", "cgroupns", "cgroup-parent", "user", "runtime", "isolation", "memory",
        "memory-swap", "pids-limit", "cpus", "cpu-quota", "cpu-period", "shm-size", "oom-score-adj", "restart", "name",
    }
)  # fmt: skip
#: options that add up
MANY = frozenset(
    {
        "cap-add", "cap-drop", "security-opt", "group-add", "device-cgroup-rule", "sysctl", "ulimit", "tmpfs",
        "uidmap", "gidmap",
    }
)  # fmt: skip
#: options before the command: `docker --host x run`
GLOBAL = frozenset(
    {
        "host", "context", "config", "log-level", "tlscacert", "tlscert", "tlskey", "root", "runroot", "storage-driver",
        "storage-opt", "cgroup-manager", "connection", "identity", "url", "namespace", "address", "runtime", "module",
        "events-backend", "log-driver", "tmpdir", "network-config-dir", "conmon", "hooks-dir", "data-root",
        "snapshotter",
    }
)  # fmt: skip
