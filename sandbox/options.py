"""The options of `stockade run`, in one table that both parsers, the help and the completion are made from.

A row says how an option is written, how its value is read and which field of the Request it fills. A flag's `parse` is
`boolean` and it has no metavar. `completion` names what a shell offers for the value, see sandbox/cli.py.
"""

from __future__ import annotations

from stockade.sandbox import mount_values, values
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Option(Record):
    """One option: flags such as ("-e", "--env"), the field that it fills, its value and what is said about it.

    `repeatable` values are collected in order; of others the last one counts. `default` is what the help says holds
    without it. `example` is the option as a user would write it, and is tested.
    """

    flags: tuple[str, ...]
    field: str
    group: str
    metavar: str
    parse: Callable[[str], object]
    help: str
    example: str
    repeatable: bool = False
    default: str = ""
    completion: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether the option stands alone, as in `--rm` or `--rm=false`."""
        return not self.metavar

    @property
    def long(self) -> str:
        """The name by which messages call the option."""
        return next(flag for flag in self.flags if flag.startswith("--"))

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the value may be, or none when it is free."""
        return self.parse.values if isinstance(self.parse, values.Choice) else ()


ROOT = "What to run in"
PRIVILEGE = "Privilege"
NAMESPACES = "Namespaces"
PROCESS = "Process"
FILES = "Files and devices"
LIMITS = "Limits"
LIFE = "Life"
OUTPUT = "Output"

_MODES = "privileged, normal or rootless, or a mode file of your own"
_SHARED = values.Choice("host", "private")


def _set(name: str, what: str) -> Option:
    return Option(
        *((f"--cap-{name}",), f"cap_{name}", PRIVILEGE, "CAP[,CAP…]", values.capability_set),
        f"make the {name} set exactly this ({what}); 'none' empties it",
        *(f"--cap-{name} CHOWN,NET_RAW", True, "the mode's", "capability_set"),
    )


def _limit(
    flags: tuple[str, ...], field: str, metavar: str, parse: Callable[[str], object], texts: tuple[str, str]
) -> Option:
    return Option(flags, field, LIMITS, metavar, parse, texts[0], texts[1])


def _flag(flags: tuple[str, ...], field: str, group: str, what: str, default: str = "") -> Option:
    return Option(flags, field, group, "", values.boolean, what, flags[-1], default=default)


OPTIONS: tuple[Option, ...] = (
    Option(
        *(("--mode",), "mode", ROOT, "MODE", values.mode, _MODES),
        *("--mode rootless", False, "normal for root, else rootless", "mode"),
    ),
    Option(
        *(("--rootfs",), "rootfs", ROOT, "DIR", values.path),
        *("use this directory as the root file system", "--rootfs /srv/alpine", False, "", "dir"),
    ),
    _flag(
        ("--host",), "host_root", ROOT, "use the host's own programs, read-only: /usr, /bin, /lib* and little of /etc"
    ),
    Option(
        *(("--cap-add",), "cap_add", PRIVILEGE, "CAP[,CAP…]", values.capability_list),
        *("add capabilities to the mode's, or ALL", "--cap-add NET_ADMIN", True, "", "capability"),
    ),
    Option(
        *(("--cap-drop",), "cap_drop", PRIVILEGE, "CAP[,CAP…]", values.capability_list),
        *("take capabilities from the mode's, or ALL", "--cap-drop ALL", True, "", "capability"),
    ),
    _set("bounding", "what execve can ever give"),
    _set("effective", "what the kernel checks"),
    _set("permitted", "what may become effective"),
    _set("inheritable", "what files may let through execve"),
    _set("ambient", "what a program without file capabilities keeps"),
    Option(
        *(("--userns",), "userns", PRIVILEGE, "HOW", values.Choice("host", "auto", "keep-id", "nomap")),
        "host: ids are the host's, root is root; auto: a subordinate range; keep-id: your id inside too;"
        " nomap: yours is not mapped",
        *("--userns keep-id", False, "the mode's", "choice"),
    ),
    Option(
        *(("--uidmap",), "uidmap", PRIVILEGE, "CONTAINER:HOST:SIZE", values.extent),
        *("map SIZE user ids from CONTAINER on to HOST on", "--uidmap 0:100000:65536", True),
    ),
    Option(
        *(("--gidmap",), "gidmap", PRIVILEGE, "CONTAINER:HOST:SIZE", values.extent),
        *("map SIZE group ids from CONTAINER on to HOST on", "--gidmap 0:100000:65536", True),
    ),
    Option(
        *(("--security-opt",), "security", PRIVILEGE, "OPTION", values.security),
        "seccomp=FILE, seccomp=unconfined, no-new-privileges or systempaths=unconfined (no masks on /proc and /sys)",
        *("--security-opt no-new-privileges", True, "", "security"),
    ),
    Option(
        *(("--network", "--net"), "network", NAMESPACES, "NETWORK", values.Choice("none", "host")),
        *("none: a loopback interface only; host: the host's", "--network none", False, "the mode's", "choice"),
    ),
    Option(
        *(("--pid",), "pid", NAMESPACES, "WHOSE", _SHARED, "processes: the host's or its own"),
        *("--pid host", False, "the mode's", "choice"),
    ),
    Option(
        *(("--ipc",), "ipc", NAMESPACES, "WHOSE", _SHARED, "System V and POSIX queues and shared memory"),
        *("--ipc host", False, "the mode's", "choice"),
    ),
    Option(
        *(("--uts",), "uts", NAMESPACES, "WHOSE", _SHARED, "host name"),
        *("--uts host", False, "the mode's", "choice"),
    ),
    Option(
        *(("--cgroupns",), "cgroupns", NAMESPACES, "WHOSE", _SHARED, "view of the control groups"),
        *("--cgroupns private", False, "the mode's", "choice"),
    ),
    Option(
        *(("-h", "--hostname"), "hostname", NAMESPACES, "NAME", values.hostname, "host name in the container"),
        *("--hostname web",),
    ),
    Option(
        *(("--domainname",), "domainname", NAMESPACES, "NAME", values.hostname, "NIS domain name in the container"),
        *("--domainname example.org",),
    ),
    Option(
        *(("-u", "--user"), "user", PROCESS, "USER[:GROUP]", values.user),
        *("run as this user: ids, or names of the container's /etc/passwd", "--user 1000:1000", False, "0", "user"),
    ),
    Option(
        *(("-w", "--workdir"), "workdir", PROCESS, "DIR", values.directory, "start in this directory"),
        *("--workdir /srv", False, "/"),
    ),
    Option(
        *(("-e", "--env"), "env", PROCESS, "NAME[=VALUE]", values.env),
        *("set a variable; NAME alone takes the caller's", "--env TZ=UTC", True, "", "env"),
    ),
    Option(
        *(("--env-file",), "env_file", PROCESS, "FILE", values.env_file),
        *("set the variables of a file of NAME=VALUE lines", "--env-file app.env", True, "", "file"),
    ),
    _flag(("-i", "--interactive"), "interactive", PROCESS, "connect standard input"),
    _flag(("-t", "--tty"), "tty", PROCESS, "give the program a terminal"),
    Option(
        *(("--ulimit",), "ulimits", PROCESS, "NAME=SOFT[:HARD]", values.ulimit),
        *("set a resource limit, -1 is unlimited", "--ulimit nofile=1024:2048", True, "", "ulimit"),
    ),
    _flag(("--read-only",), "read_only", FILES, "make the root file system read-only"),
    Option(
        *(("-v", "--volume"), "volumes", FILES, "SOURCE:DESTINATION[:OPTIONS]", mount_values.volume),
        "mount a path of the host; options are ro, rw, nosuid, nodev, noexec and a propagation such as rslave",
        *("--volume /srv/data:/data:ro", True, "", "volume"),
    ),
    Option(
        *(("--mount",), "mounts", FILES, "KEY=VALUE[,…]", mount_values.mount),
        "type=bind,source=…,target=…[,readonly][,bind-propagation=…], or type=tmpfs,target=…[,tmpfs-size=…]",
        *("--mount type=bind,source=/srv/data,target=/data,readonly", True, "", "mount"),
    ),
    Option(
        *(("--tmpfs",), "tmpfs", FILES, "DESTINATION[:OPTIONS]", mount_values.tmpfs),
        *("mount an empty file system in memory", "--tmpfs /run:size=1m,mode=755", True),
    ),
    Option(
        *(("--shm-size",), "shm_size", FILES, "SIZE", values.memory, "size of /dev/shm"),
        *("--shm-size 64m", False, "64m"),
    ),
    Option(
        *(("--device",), "devices", FILES, "SOURCE[:DESTINATION][:rwm]", mount_values.device),
        *("let the container use a device of the host", "--device /dev/fuse:/dev/fuse:rw", True, "", "file"),
    ),
    _limit(("-m", "--memory"), "memory", "SIZE", values.memory, ("memory", "--memory 64m")),
    _limit(
        *(("--memory-swap",), "memory_swap", "SIZE", values.memory_swap),
        ("memory and swap together, -1 is no limit", "--memory-swap 128m"),
    ),
    _limit(("--cpus",), "cpus", "NUMBER", values.cpus, ("processor time, in processors", "--cpus 1.5")),
    _limit(
        *(("-c", "--cpu-shares"), "cpu_shares", "WEIGHT", values.cpu_shares),
        ("weight when processors are short, 1024 is usual", "--cpu-shares 512"),
    ),
    _limit(
        *(("--cpuset-cpus",), "cpuset_cpus", "LIST", values.cpus_list),
        ("run on these processors", "--cpuset-cpus 0-1,3"),
    ),
    _limit(
        *(("--pids-limit",), "pids_limit", "NUMBER", values.pids_limit),
        ("processes and threads, -1 is no limit", "--pids-limit 100"),
    ),
    _limit(
        *(("--timeout",), "timeout", "SECONDS", values.seconds),
        ("kill the whole tree after this time; also 500ms, 10s, 5m", "--timeout 2.5"),
    ),
    _flag(("--best-effort",), "best_effort", LIMITS, "start even where a limit can't be enforced here"),
    Option(
        *(("--name",), "name", LIFE, "NAME", values.name, "name of the container"),
        *("--name build-1", False, "a random one"),
    ),
    _flag(("--rm",), "remove", LIFE, "remove all that is left of the container when it ends"),
    _flag(("--init",), "init", LIFE, "run an init that reaps processes and forwards signals", "the mode's"),
    Option(
        *(("--stop-signal",), "stop_signal", LIFE, "SIGNAL", values.signal, "signal that asks the program to end"),
        *("--stop-signal QUIT", False, "TERM", "signal"),
    ),
    Option(
        *(("-l", "--label"), "labels", LIFE, "KEY[=VALUE]", values.pair, "note something with the container"),
        *("--label team=build", True),
    ),
    Option(
        *(
            ("--annotation",),
            "annotations",
            LIFE,
            "KEY=VALUE",
            values.annotation,
            "add an annotation to the OCI config",
        ),
        *("--annotation org.example.ticket=7", True),
    ),
    _flag(("--json",), "json", OUTPUT, "report as JSON what was set up, what enforces each limit, and what was used"),
    _flag(("--spec",), "spec", OUTPUT, "print the OCI configuration and start nothing"),
    _flag(("--plan",), "plan", OUTPUT, "print the steps with their reasons and start nothing"),
)

BY_FLAG: dict[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}

#: what Docker's users may type here, and what to do instead
ELSEWHERE = {
    "--privileged": "write --mode privileged",
    "--detach": "Stockade stays with its container; start it in the background with your shell or systemd",
    "-d": "Stockade stays with its container; start it in the background with your shell or systemd",
    "--publish": "the network is none or host; with --network host no port needs publishing",
    "-p": "the network is none or host; with --network host no port needs publishing",
    "--image": "unpack the image and name the directory with --rootfs",
    "--restart": "let systemd or your shell start it again",
    "--cpu-quota": "write --cpus, which is quota divided by period",
    "--cpu-period": "write --cpus, which is quota divided by period",
    "--memory-reservation": "write --memory",
    "--entrypoint": "the program is the first argument",
}
