"""The options of `stockade run`, in one table that both parsers, the help and the completion are made from.

A row says how an option is written and how its value is read; `arguments.assemble` says which field of the Request it
fills. A flag's `parse` is `boolean` and it has no metavar. `completion` names what a shell offers for
the value, see complete.py.
"""

from __future__ import annotations

from stockade.sandbox import mount_values, values
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Option(Record):
    """One option: flags such as ("-e", "--env"), how its value is read and what is said about it.

    `repeatable` values are collected in order; of others the last one counts. `default` is what the help says holds
    without it. `example` is the option as a user would write it, and is tested.
    """

    flags: tuple[str, ...]
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
        return _long(self.flags)

    @property
    def name(self) -> str:
        """The long flag as an identifier: the key of its value for both parsers, mostly the Request's field."""
        return self.long[2:].replace("-", "_")

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the value may be, or none when it is free."""
        return self.parse.values if isinstance(self.parse, values.Choice) else ()


_SHARED = values.Choice("host", "private")


def _value(flags: str, metavar: str, parse: Callable[[str], object], what: str, example: str, **more: Any) -> Option:
    names = tuple(flags.split())
    return Option(names, metavar, parse, what, f"{_long(names)} {example}", **more)


def _flag(flags: str, what: str, **more: Any) -> Option:
    names = tuple(flags.split())
    return Option(names, "", values.boolean, what, _long(names), **more)


def _set(name: str, what: str) -> Option:
    text = f"make the {name} set exactly this ({what}); 'none' empties it"
    more = {"repeatable": True, "completion": "capability_set"}
    return _value(f"--cap-{name}", "CAP[,CAP...]", values.capability_set, text, "CHOWN,NET_RAW", **more)


def _long(flags: tuple[str, ...]) -> str:
    return next(flag for flag in flags if flag.startswith("--"))


#: (heading of the help, its options)
GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "What to run in",
        (
            _value(
                "--mode",
                "MODE",
                values.mode,
                "privileged, normal or rootless, or a mode file of your own",
                "rootless",
                default="normal for root, else rootless",
                completion="mode",
            ),
            _value(
                "--rootfs",
                "DIR",
                values.path,
                "use this directory as the root file system",
                "/srv/alpine",
                completion="dir",
            ),
            _flag("--host", "use the host's own programs, read-only: /usr, /bin, /lib* and little of /etc"),
        ),
    ),
    (
        "Privilege",
        (
            _value(
                "--cap-add",
                "CAP[,CAP...]",
                values.capability_list,
                "add capabilities to the mode's, or ALL",
                "NET_ADMIN",
                repeatable=True,
                completion="capability",
            ),
            _value(
                "--cap-drop",
                "CAP[,CAP...]",
                values.capability_list,
                "take capabilities from the mode's, or ALL",
                "ALL",
                repeatable=True,
                completion="capability",
            ),
            _set("bounding", "what execve can ever give"),
            _set("effective", "what the kernel checks"),
            _set("permitted", "what may become effective"),
            _set("inheritable", "what files may let through execve"),
            _set("ambient", "what a program without file capabilities keeps"),
            _value(
                "--userns",
                "HOW",
                values.Choice("host", "auto", "keep-id", "nomap"),
                "host: ids are the host's; auto: a subordinate range; keep-id: your id inside too;"
                " nomap: your id is not mapped",
                "keep-id",
            ),
            _value(
                "--uidmap",
                "CONTAINER:HOST:SIZE",
                values.extent,
                "map SIZE user ids from CONTAINER on to HOST on",
                "0:100000:65536",
                repeatable=True,
            ),
            _value(
                "--gidmap",
                "CONTAINER:HOST:SIZE",
                values.extent,
                "map SIZE group ids from CONTAINER on to HOST on",
                "0:100000:65536",
                repeatable=True,
            ),
            _value(
                "--security-opt",
                "OPTION",
                values.security,
                "seccomp=FILE|unconfined|default, no-new-privileges or systempaths=unconfined (no masks over /proc)",
                "no-new-privileges",
                repeatable=True,
                completion="security",
            ),
        ),
    ),
    (
        "Namespaces",
        (
            _value(
                "--network --net",
                "NETWORK",
                values.Choice("none", "host"),
                "none: a loopback interface only; host: the host's",
                "none",
            ),
            _value("--pid", "WHOSE", _SHARED, "processes: the host's or its own", "host"),
            _value("--ipc", "WHOSE", _SHARED, "System V and POSIX queues and shared memory", "host"),
            _value("--uts", "WHOSE", _SHARED, "host name", "host"),
            _value("--cgroupns", "WHOSE", _SHARED, "view of the control groups", "private"),
            _value("-h --hostname", "NAME", values.hostname, "host name in the container", "web"),
            _value("--domainname", "NAME", values.hostname, "NIS domain name in the container", "example.org"),
        ),
    ),
    (
        "Process",
        (
            _value(
                "-u --user",
                "USER[:GROUP]",
                values.user,
                "run as this user: ids, or names of the container's /etc/passwd",
                "1000:1000",
                default="0",
                completion="user",
            ),
            _value("-w --workdir", "DIR", values.directory, "start in this directory", "/srv", default="/"),
            _value(
                "-e --env",
                "NAME[=VALUE]",
                values.env,
                "set a variable; NAME alone takes the caller's",
                "TZ=UTC",
                repeatable=True,
                completion="env",
            ),
            _value(
                "--env-file",
                "FILE",
                values.env_file,
                "set the variables of a file of NAME=VALUE lines",
                "app.env",
                repeatable=True,
                completion="file",
            ),
            _flag("-i --interactive", "connect standard input"),
            _flag("-t --tty", "give the program a terminal"),
            _value(
                "--ulimit",
                "NAME=SOFT[:HARD]",
                values.ulimit,
                "set a resource limit, -1 is unlimited",
                "nofile=1024:2048",
                repeatable=True,
                completion="ulimit",
            ),
        ),
    ),
    (
        "Files and devices",
        (
            _flag("--read-only", "make the root file system read-only"),
            _value(
                "-v --volume",
                "SOURCE:DESTINATION[:OPTIONS]",
                mount_values.volume,
                "mount a path of the host; options are ro, rw, nosuid, nodev, noexec and a propagation such as rslave",
                "/srv/data:/data:ro",
                repeatable=True,
                completion="volume",
            ),
            _value(
                "--mount",
                "KEY=VALUE[,...]",
                mount_values.mount,
                "type=bind,source=...,target=... [,readonly] [,bind-propagation=...]"
                " or type=tmpfs,target=... [,tmpfs-size=...]",
                "type=bind,source=/srv/data,target=/data,readonly",
                repeatable=True,
                completion="mount",
            ),
            _value(
                "--tmpfs",
                "DESTINATION[:OPTIONS]",
                mount_values.tmpfs,
                "mount an empty file system in memory",
                "/run:size=1m,mode=755",
                repeatable=True,
            ),
            _value("--shm-size", "SIZE", values.memory, "size of /dev/shm", "64m", default="64m"),
            _value(
                "--device",
                "SOURCE[:DESTINATION][:rwm]",
                mount_values.device,
                "let the container use a device of the host",
                "/dev/fuse:/dev/fuse:rw",
                repeatable=True,
                completion="file",
            ),
        ),
    ),
    (
        "Limits",
        (
            _value("-m --memory", "SIZE", values.memory, "memory", "64m"),
            _value("--memory-swap", "SIZE", values.memory_swap, "memory and swap together, -1 is no limit", "128m"),
            _value("--cpus", "NUMBER", values.cpus, "processor time, in processors", "1.5"),
            _value(
                "-c --cpu-shares", "WEIGHT", values.cpu_shares, "weight when processors are short, 1024 is usual", "512"
            ),
            _value("--cpuset-cpus", "LIST", values.cpus_list, "run on these processors", "0-1,3"),
            _value("--pids-limit", "NUMBER", values.pids_limit, "processes and threads, -1 is no limit", "100"),
            _value(
                "--timeout",
                "SECONDS",
                values.seconds,
                "kill the whole tree after this time; also 500ms, 10s, 5m",
                "2.5",
            ),
            _flag("--best-effort", "start even where a limit can't be enforced here"),
        ),
    ),
    (
        "Life",
        (
            _value("--name", "NAME", values.name, "name of the container", "build-1", default="a random one"),
            _flag("--rm", "remove all that is left of the container when it ends"),
            _flag("--init", "run an init that reaps processes and forwards signals"),
            _value(
                "--stop-signal",
                "SIGNAL",
                values.signal,
                "signal that asks the program to end",
                "QUIT",
                default="TERM",
                completion="signal",
            ),
            _value(
                "-l --label",
                "KEY[=VALUE]",
                values.pair,
                "note something with the container",
                "team=build",
                repeatable=True,
            ),
            _value(
                "--annotation",
                "KEY=VALUE",
                values.annotation,
                "add an annotation to the OCI config",
                "org.example.ticket=7",
                repeatable=True,
            ),
        ),
    ),
    (
        "Output",
        (
            _flag(
                "--json", "report on standard error, as JSON: what was set up, what enforces each limit, what was used"
            ),
            _flag("--spec", "print the OCI configuration and start nothing"),
            _flag("--plan", "print the steps with their reasons and start nothing"),
        ),
    ),
)

OPTIONS: tuple[Option, ...] = tuple([option for _, rows in GROUPS for option in rows])

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
