"""The words of `stockade-runtime --help` and of each command's: made from the tables in arguments.py.

Only help and completion import this; tests hold the names here and there together.
"""

from __future__ import annotations

from stockade.sandbox.runtime.arguments import COMMANDS, FLAG, GLOBAL, LIST, NUMBER, NUMBERS, PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Row

WIDTH = 100

#: command → (its arguments, what it does, examples as (what it does, command line))
ABOUT: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "create": (
        "CONTAINER",
        "Make a container of a bundle; its program waits for `start`.",
        (("of the bundle in ./web, as container web1", "create --bundle ./web --pid-file /run/web1.pid web1"),),
    ),
    "start": ("CONTAINER", "Let the program of a created container run.", (("", "start web1"),)),
    "state": ("CONTAINER", "Print the state of a container, as the runtime-spec has it.", (("", "state web1"),)),
    "kill": (
        "CONTAINER [SIGNAL]",
        "Send a signal, TERM unless another is named, to the first process of a container.",
        (("", "kill web1"), ("every process of it, at once", "kill --all web1 KILL"), ("by number", "kill web1 15")),
    ),
    "delete": (
        "CONTAINER",
        "Remove what a stopped container holds.",
        (("", "delete web1"), ("even if it runs: kill it first", "delete --force web1")),
    ),
    "run": (
        "CONTAINER",
        "Create and start a container, wait for its program and delete it; the exit code is the program's.",
        (
            ("of the bundle in the current directory", "run web1"),
            ("in the background", "run --detach --bundle ./web --pid-file /run/web1.pid web1"),
        ),
    ),
    "exec": (
        "CONTAINER COMMAND [ARGUMENT...]",
        "Run another process in a running container; the exit code is its own.",
        (
            ("", "exec web1 ls -l /"),
            ("a shell, as another user", "exec --tty --user 1000:1000 --env TERM=$TERM web1 sh"),
            ("as an OCI process document says", "exec --process process.json web1"),
        ),
    ),
    "ps": (
        "CONTAINER [OPTIONS OF ps]",
        "List the processes of a container.",
        (("", "ps web1"), ("their ids alone", "ps --format json web1"), ("as ps(1) would", "ps web1 -o pid,args")),
    ),
    "list": ("", "List the containers.", (("", "list"), ("for programs", "list --format json"))),
    "pause": ("CONTAINER", "Suspend all processes of a container.", (("", "pause web1"),)),
    "resume": ("CONTAINER", "Let the processes of a paused container go on.", (("", "resume web1"),)),
    "update": (
        "CONTAINER",
        "Change the limits of a container.",
        (
            ("", "update --memory 256m --pids-limit 100 web1"),
            ("from a document such as config.json has under linux.resources", "update --resources limits.json web1"),
        ),
    ),
    "events": (
        "CONTAINER",
        "Print what a container uses, one JSON document a line, and that it ran out of memory.",
        (("once", "events --stats web1"), ("every second", "events --interval 1s web1")),
    ),
    "spec": (
        "",
        "Write a config.json to begin with.",
        (("", "spec --bundle ./web"), ("for a user without privilege", "spec --rootless")),
    ),
    "features": ("", "Print what this runtime can do, as the runtime-spec has it.", (("", "features"),)),
    "checkpoint": ("CONTAINER", "Refused: this runtime can't save the state of a process.", ()),
    "restore": ("CONTAINER", "Refused: this runtime can't restore the state of a process.", ()),
    "completion": (
        "bash|zsh|fish",
        "Print the completion for a shell.",
        (
            ("in ~/.bashrc", 'eval "$(stockade-runtime completion bash)"'),
            ("in ~/.zshrc, after compinit", 'eval "$(stockade-runtime completion zsh)"'),
            (
                "for fish, once",
                "stockade-runtime completion fish > ~/.config/fish/completions/stockade-runtime.fish",
            ),
        ),
    ),
    "help": ("[COMMAND]", "Print how a command is used.", (("", "help create"),)),
}

#: what an option does, by its name; where commands differ, by "command --name"
MEANING = {
    "root": "directory of the containers' state: /run/stockade-runtime, for users $XDG_RUNTIME_DIR/stockade-runtime",
    "log": "file to which errors go too",
    "log-format": "text or json (text)",
    "debug": "log what is done, and tracebacks",
    "systemd-cgroup": "let systemd make the control groups: cgroupsPath is SLICE:PREFIX:NAME",
    "cgroup-manager": "cgroupfs, systemd or disabled, as crun has it (cgroupfs)",
    "rootless": "go on without control groups that may not be had: true, false or auto (auto)",
    "criu": "accepted for the callers of checkpoint and restore, which are refused",
    "version": "print the version",
    "help": "print this",
    "bundle": "directory of the bundle (.)",
    "config": "name of the configuration in the bundle, as crun has it (config.json)",
    "console-socket": "Unix socket that gets the terminal's master, for a process with a terminal",
    "pid-file": "file for the id of the process",
    "no-pivot": "change the root by moving a mount, where pivot_root can't (a root on rootfs)",
    "no-new-keyring": "keep the caller's session keyring",
    "no-subreaper": "do not adopt orphans while waiting for the program",
    "preserve-fds": "how many descriptors from 3 on the program gets (0)",
    "detach": "return when the process runs, and leave it to the caller",
    "keep": "do not delete the container when its program has ended",
    "all": "to every process of the container",
    "force": "kill it first if it runs; a container that isn't there is no error",
    "cwd": "working directory in the container",
    "env": "a variable, NAME=VALUE",
    "tty": "give the process a terminal",
    "user": "UID[:GID]",
    "additional-gids": "a supplementary group",
    "process": "file with an OCI process document",
    "process-label": "SELinux label",
    "apparmor": "AppArmor profile",
    "no-new-privs": "set no_new_privs",
    "cap": "a capability that the process gets too",
    "cgroup": "control group below the container's: [CONTROLLERS:]PATH",
    "ignore-paused": "do not refuse a paused container; the process waits for resume",
    "format": "table or json (table)",
    "quiet": "names alone",
    "resources": "file with a resources document, or - for standard input; other options are then refused",
    "blkio-weight": "weight of block I/O, 10 to 1000",
    "cpu-period": "period of the CPU quota, in microseconds",
    "cpu-quota": "CPU time in each period, in microseconds; -1 for all",
    "cpu-burst": "CPU time that may be saved up, in microseconds",
    "cpu-share": "share of CPU time relative to others",
    "cpu-idle": "1 to run only when nothing else does",
    "cpu-rt-period": "period of realtime scheduling, in microseconds",
    "cpu-rt-runtime": "realtime CPU time in each period, in microseconds",
    "cpuset-cpus": "CPUs, for example 0-2,4",
    "cpuset-mems": "memory nodes",
    "memory": "memory in bytes, or 64m; -1 for no limit",
    "memory-reservation": "memory that is protected from reclaim",
    "memory-swap": "memory and swap together; -1 for no limit",
    "pids-limit": "number of processes; -1 for no limit",
    "l3-cache-schema": "Intel RDT: schema of the L3 cache",
    "mem-bw-schema": "Intel RDT: schema of memory bandwidth",
    "interval": "time between two documents (5s)",
    "stats": "print one document and end",
    "spec --rootless": "for a user without privilege: with a user namespace, without control groups",
}

#: what stands for the value of an option
VALUES = {
    **dict.fromkeys(("root", "bundle", "cwd", "image-path", "work-path", "parent-path"), "DIR"),
    **dict.fromkeys(("log", "config", "pid-file", "process", "resources", "criu"), "FILE"),
    **dict.fromkeys(("console-socket",), "SOCKET"),
    "interval": "TIME",
    "env": "NAME=VALUE",
    "user": "UID[:GID]",
    "additional-gids": "GID",
    "cap": "CAPABILITY",
    "cgroup": "PATH",
    "format": "FORMAT",
    "log-format": "FORMAT",
}


def text(command: str = "") -> str:
    """Give the help of a command, or of all."""
    return _of_command(command) if command in COMMANDS else _of_all()


def _of_all() -> str:
    lines = [f"Usage: {PROGRAM} [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]", ""]
    lines += [
        "An OCI runtime with runc's and crun's command line, for Podman, Docker, containerd and Kubernetes.",
        "",
    ]
    lines += ["Commands:", *_columns([(name, ABOUT[name][1]) for name in COMMANDS]), ""]
    lines += ["Options:", *_options("", GLOBAL), ""]
    lines += ["Examples:"]
    lines += ["  # a container of the bundle in the current directory", f"  {PROGRAM} run web1"]
    lines += ["", "  # every container's state, for programs", f"  {PROGRAM} list --format json"]
    lines += ["", f"Every command has its own --help. Errors end with 1 ({PROGRAM} exec: 255)."]
    return "\n".join(lines)


def _of_command(command: str) -> str:
    arguments, about, examples = ABOUT[command]
    table = COMMANDS[command][2]
    options = "[OPTIONS] " if table else ""
    lines = [f"Usage: {PROGRAM} [GLOBAL OPTIONS] {command} {options}{arguments}".rstrip(), "", about]
    if table:
        lines += ["", "Options:", *_options(command, table)]
    if examples:
        lines += ["", "Examples:"]
        for place, (what, line) in enumerate(examples):
            lines += ([""] if place else []) + ([f"  # {what}"] if what else [])
            lines += [f"  {line}" if PROGRAM in line else f"  {PROGRAM} {line}"]
    return "\n".join(lines)


def _options(command: str, table: dict[str, Row]) -> list[str]:
    return _columns([(_spelling(name, row), meaning(command, name)) for name, row in table.items()])


def meaning(command: str, name: str) -> str:
    """Give what an option of a command does, in a few words; nothing for those of commands that are refused."""
    return MEANING.get(f"{command} --{name}", MEANING.get(name, ""))


def _spelling(name: str, row: Row) -> str:
    short, kind, _ = row
    value = "" if kind == FLAG else " " + VALUES.get(name, "N" if kind in (NUMBER, NUMBERS) else "VALUE")
    more = " ..." if kind in (LIST, NUMBERS) else ""
    return (f"-{short}, " if short else "    ") + f"--{name}{value}{more}"


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    """Set names and meanings in two columns, with long meanings on lines of their own columns."""
    from textwrap import wrap

    indent = min(max(len(name) for name, _ in rows), 30) + 4
    lines: list[str] = []
    for name, about in rows:
        head = f"  {name}"
        parts = wrap(about, WIDTH - indent) or [""]
        if about and len(head) > indent - 2:
            lines.append(head)
            head = ""
        lines += [f"{head:<{indent}}{parts[0]}".rstrip(), *(" " * indent + part for part in parts[1:])]
    return lines
