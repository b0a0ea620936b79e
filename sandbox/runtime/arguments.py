"""The command line of `stockade-runtime`: runc's, with crun's spellings where they differ, read into an Invocation.

One table says what each command takes; help, completion and documentation are made from it. Words are read as runc
reads them (Go's flag package: `-name` is `--name`, `--name=value`, `--flag=false`) and, where runc knows no such word,
as crun does (getopt: `-td`, `-bDIR`). Options may follow arguments, save in `exec` and `ps`, whose arguments have
options of their own.
"""

from __future__ import annotations

import os

from stockade.errors import UsageError
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    #: (short form or "", kind, value when it isn't given)
    Row = tuple[str, str, Any]

PROGRAM = "stockade-runtime"

# kinds of options; a LIST and a NUMBERS may be given again and again
FLAG = "flag"
TEXT = "text"
NUMBER = "number"
LIST = "list"
NUMBERS = "numbers"
DURATION = "duration"

#: the options before the command
GLOBAL: dict[str, Row] = {
    "root": ("", TEXT, None),
    "log": ("", TEXT, None),
    "log-format": ("", TEXT, "text"),
    "debug": ("", FLAG, False),
    "systemd-cgroup": ("", FLAG, False),
    "cgroup-manager": ("", TEXT, None),
    "rootless": ("", TEXT, "auto"),
    "criu": ("", TEXT, "criu"),
    "version": ("v", FLAG, False),
    "help": ("h", FLAG, False),
}

_CREATE: dict[str, Row] = {
    "bundle": ("b", TEXT, "."),
    "config": ("f", TEXT, "config.json"),
    "console-socket": ("", TEXT, None),
    "pid-file": ("", TEXT, None),
    "no-pivot": ("", FLAG, False),
    "no-new-keyring": ("", FLAG, False),
    "no-subreaper": ("", FLAG, False),
    "preserve-fds": ("", NUMBER, 0),
}
_FORMAT: dict[str, Row] = {"format": ("f", TEXT, "table")}
_CRIU: dict[str, Row] = {
    "image-path": ("", TEXT, None),
    "work-path": ("", TEXT, None),
    "tcp-established": ("", FLAG, False),
    "ext-unix-sk": ("", FLAG, False),
    "shell-job": ("", FLAG, False),
    "lazy-pages": ("", FLAG, False),
    "file-locks": ("", FLAG, False),
    "manage-cgroups-mode": ("", TEXT, None),
    "empty-ns": ("", LIST, ()),
    "auto-dedup": ("", FLAG, False),
}

#: command → (fewest arguments, most arguments or -1, its options)
COMMANDS: dict[str, tuple[int, int, dict[str, Row]]] = {
    "create": (1, 1, _CREATE),
    "start": (1, 1, {}),
    "state": (1, 1, {}),
    "kill": (1, 2, {"all": ("a", FLAG, False)}),
    "delete": (1, 1, {"force": ("f", FLAG, False)}),
    "run": (1, 1, _CREATE | {"detach": ("d", FLAG, False), "keep": ("", FLAG, False)}),
    "exec": (
        1,
        -1,
        {
            "console-socket": ("", TEXT, None),
            "cwd": ("", TEXT, None),
            "env": ("e", LIST, ()),
            "tty": ("t", FLAG, False),
            "user": ("u", TEXT, None),
            "additional-gids": ("g", NUMBERS, ()),
            "process": ("p", TEXT, None),
            "detach": ("d", FLAG, False),
            "pid-file": ("", TEXT, None),
            "process-label": ("", TEXT, None),
            "apparmor": ("", TEXT, None),
            "no-new-privs": ("", FLAG, False),
            "cap": ("c", LIST, ()),
            "preserve-fds": ("", NUMBER, 0),
            "cgroup": ("", LIST, ()),
            "ignore-paused": ("", FLAG, False),
        },
    ),
    "ps": (1, -1, _FORMAT),
    "list": (0, 0, _FORMAT | {"quiet": ("q", FLAG, False)}),
    "pause": (1, 1, {}),
    "resume": (1, 1, {}),
    "update": (
        1,
        1,
        {
            "resources": ("r", TEXT, None),
            "blkio-weight": ("", NUMBER, None),
            "cpu-period": ("", TEXT, None),
            "cpu-quota": ("", TEXT, None),
            "cpu-burst": ("", TEXT, None),
            "cpu-share": ("", TEXT, None),
            "cpu-idle": ("", TEXT, None),
            "cpu-rt-period": ("", TEXT, None),
            "cpu-rt-runtime": ("", TEXT, None),
            "cpuset-cpus": ("", TEXT, None),
            "cpuset-mems": ("", TEXT, None),
            "memory": ("", TEXT, None),
            "memory-reservation": ("", TEXT, None),
            "memory-swap": ("", TEXT, None),
            "pids-limit": ("", NUMBER, None),
            "l3-cache-schema": ("", TEXT, None),
            "mem-bw-schema": ("", TEXT, None),
        },
    ),
    "events": (1, 1, {"interval": ("", DURATION, 5.0), "stats": ("", FLAG, False)}),
    "spec": (0, 0, {"bundle": ("b", TEXT, "."), "rootless": ("", FLAG, False)}),
    "features": (0, 0, {}),
    "checkpoint": (
        1,
        1,
        _CRIU
        | {
            "parent-path": ("", TEXT, None),
            "leave-running": ("", FLAG, False),
            "status-fd": ("", NUMBER, -1),
            "page-server": ("", TEXT, None),
            "pre-dump": ("", FLAG, False),
        },
    ),
    "restore": (
        1,
        1,
        _CRIU
        | {
            "console-socket": ("", TEXT, None),
            "bundle": ("b", TEXT, "."),
            "detach": ("d", FLAG, False),
            "pid-file": ("", TEXT, None),
            "no-subreaper": ("", FLAG, False),
            "no-pivot": ("", FLAG, False),
            "lsm-profile": ("", TEXT, None),
            "lsm-mount-context": ("", TEXT, None),
        },
    ),
    "completion": (1, 1, {}),
    "help": (0, 1, {}),
}

#: commands whose arguments may look like options
_ORDERED = ("exec", "ps")
#: numbers of which -1 means nothing
UNSIGNED = ("preserve-fds", "additional-gids", "blkio-weight")
#: commands whose first argument isn't the name of a container
NAMELESS = ("completion", "help")
_TRUE = ("1", "t", "T", "true", "True", "TRUE")
_FALSE = ("0", "f", "F", "false", "False", "FALSE")
#: options of a few words, which are the same in every command
CHOICES = {
    "log-format": ("text", "json"),
    "rootless": ("auto", "true", "false"),
    "cgroup-manager": ("cgroupfs", "systemd", "disabled"),
    "format": ("table", "json"),
}
_IDENTITY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Invocation(Record):
    """What one call of the command asks for.

    `root` is absolute; `log` and `cgroup_manager` are empty where they weren't given. `options` holds every option of
    the command by its long name: True or False, text or None, a number, seconds as a float, or a tuple of what was
    repeated.
    """

    command: str
    root: str
    log: str
    log_format: str
    debug: bool
    systemd_cgroup: bool
    rootless: str
    cgroup_manager: str
    criu: str
    options: dict[str, Any]
    arguments: tuple[str, ...]


def parse(argv: Sequence[str]) -> Invocation:
    """Read a whole command line, without the program's name. Raises UsageError."""
    given, rest = parse_global(argv)
    return parse_command(given, rest)


def parse_global(argv: Sequence[str]) -> tuple[dict[str, Any], Sequence[str]]:
    """Give the global options by their names, and the words from the command on. Raises UsageError."""
    given = {name: row[2] for name, row in GLOBAL.items()}
    rest = _read(argv, GLOBAL, given, ordered=True)
    return given, rest


def parse_command(given: dict[str, Any], rest: Sequence[str]) -> Invocation:
    """Read the words from the command on; `given` are the global options. Raises UsageError."""
    if given["version"] or (given["help"] and not rest):
        return _invocation("version" if given["version"] else "help", given, {}, ())
    if not rest:
        raise UsageError("no command was given", hint=f"see '{PROGRAM} --help'")
    command = rest[0]
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}", hint=_suggestion(command, COMMANDS) or _see(""))
    fewest, most, table = COMMANDS[command]
    options = {name: row[2] for name, row in table.items()}
    try:
        arguments = tuple(_read(rest[1:], table, options, ordered=command in _ORDERED))
    except _HelpWanted:
        return _invocation("help", given, {}, (command,))
    if given["help"]:
        return _invocation("help", given, {}, (command,))
    _count(command, arguments, fewest, most)
    if fewest and command not in NAMELESS:
        check_identity(arguments[0])
    return _invocation(command, given, options, arguments)


def check_identity(identity: str) -> None:
    """Refuse what can't be the name of a container, which is the name of a directory. Raises UsageError."""
    if not identity:
        raise UsageError("container id cannot be empty")
    if identity in {".", ".."} or len(identity) > 255 or not _IDENTITY.issuperset(identity):
        raise UsageError(
            f"invalid container ID format: {identity!r}", hint="use up to 255 of the letters, digits and _ + - ."
        )


def _invocation(command: str, given: dict[str, Any], options: dict[str, Any], arguments: tuple[str, ...]) -> Invocation:
    return Invocation(
        command,
        os.path.abspath(given["root"]) if given["root"] else default_root(),
        given["log"] or "",
        given["log-format"],
        given["debug"],
        given["cgroup-manager"] == "systemd" or (given["systemd-cgroup"] and not given["cgroup-manager"]),
        given["rootless"],
        given["cgroup-manager"] or "",
        given["criu"],
        options,
        arguments,
    )


def default_root() -> str:
    """Give the directory of the containers' state: one of the system for its root, of the user for anyone else.

    Root of a user namespace, as below rootless Podman, is anyone else: /run isn't its own.
    """
    uid = os.geteuid()
    if uid == 0:
        with open("/proc/self/uid_map", "rb") as maps:
            if maps.read().split() == [b"0", b"0", b"4294967295"]:
                return f"/run/{PROGRAM}"
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    if directory.startswith("/"):
        return f"{directory}/{PROGRAM}"
    return f"/run/{PROGRAM}" if uid == 0 else f"/run/user/{uid}/{PROGRAM}"


class _HelpWanted(Exception):
    """`--help` stands among the options of a command: nothing else matters."""


def _read(words: Sequence[str], table: dict[str, Row], given: dict[str, Any], *, ordered: bool) -> Sequence[str]:
    """Take the options out of `words` into `given`; give the arguments. `ordered`: options end at the first."""
    arguments: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            return (*arguments, *words[place + 1 :])
        if word[:1] != "-" or word == "-":
            if ordered:
                return words[place:]
            arguments.append(word)
            place += 1
            continue
        place += _option(word, words[place + 1] if place + 1 < len(words) else None, table, given)
    return arguments


def _option(word: str, follower: str | None, table: dict[str, Row], given: dict[str, Any]) -> int:
    """Take one word with options, and its value; give how many words that were."""
    flag, equals, value = word.partition("=")
    name = flag[2:] if flag.startswith("--") else flag[1:]
    if name not in table:
        if name in {"help", "h", "?"}:
            if table is not GLOBAL:
                raise _HelpWanted
            name = "help"
        else:
            name = _long(name, table)
    if not name:
        if flag.startswith("--") or not table:
            _unknown(flag, table)
        return _cluster(word, follower, table, given)
    if equals:
        _take(name, flag, value, table, given)
        return 1
    return _alone(name, flag, follower, table, given)


def _long(short: str, table: dict[str, Row]) -> str:
    """Give the name of the option with that short form, or nothing."""
    if len(short) == 1:
        for name, row in table.items():
            if row[0] == short:
                return name
    return ""


def _alone(name: str, flag: str, follower: str | None, table: dict[str, Row], given: dict[str, Any]) -> int:
    if table[name][1] == FLAG:
        given[name] = True
        return 1
    if follower is None:
        raise UsageError(f"{flag} needs a value")
    _take(name, flag, follower, table, given)
    return 2


def _cluster(word: str, follower: str | None, table: dict[str, Row], given: dict[str, Any]) -> int:
    """Take getopt's `-td` or `-bDIR`; give how many words that were."""
    for place in range(1, len(word)):
        name = _long(word[place], table)
        if not name:
            _unknown(word.partition("=")[0], table)
        rest = word[place + 1 :]
        if table[name][1] != FLAG and rest:
            _take(name, "-" + word[place], rest, table, given)
            return 1
        if table[name][1] != FLAG:
            return _alone(name, "-" + word[place], follower, table, given)
        given[name] = True
    return 1


def _take(name: str, flag: str, text: str, table: dict[str, Row], given: dict[str, Any]) -> None:
    kind = table[name][1]
    if kind == TEXT:
        if name in CHOICES and text not in CHOICES[name]:
            raise UsageError(f"{flag} is {text!r}", hint=f"it can be {', '.join(CHOICES[name])}")
        given[name] = text
    elif kind == FLAG:
        if text not in _TRUE and text not in _FALSE:
            raise UsageError(f"{flag} is {text!r}", hint="it can be true or false")
        given[name] = text in _TRUE
    elif kind == LIST:
        given[name] += (text,)
    elif kind == DURATION:
        given[name] = seconds(flag, text)
    else:
        number = _number(flag, text)
        if number < 0 and name in UNSIGNED:
            raise UsageError(f"{flag} is {number}", hint="it can't be below 0")
        given[name] = given[name] + (number,) if kind == NUMBERS else number


def _number(flag: str, text: str) -> int:
    try:
        return int(text, 0) if text.isascii() and "_" not in text else int("-")
    except ValueError:
        raise UsageError(f"{flag} is {text!r}, which is no number") from None


_UNITS = (("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0), ("m", 60.0), ("h", 3600.0))


def seconds(flag: str, text: str) -> float:
    """Read a duration as Go writes it, `1m30s` or `250ms`, as seconds above 0. Raises UsageError."""
    rest, total = text, 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = next((row for row in _UNITS if rest.startswith(row[0], digits)), None)
        try:
            total += float(rest[:digits]) * unit[1] if unit else float("-")
        except ValueError:
            total = 0.0
            break
        rest = rest[digits + len(unit[0]) :] if unit else ""
    if total <= 0:
        raise UsageError(f"{flag} is {text!r}, which is no duration", hint="for example 5s, 500ms or 1m30s")
    return total


def _count(command: str, arguments: tuple[str, ...], fewest: int, most: int) -> None:
    if fewest <= len(arguments) and (most < 0 or len(arguments) <= most):
        return
    wanted = str(fewest) if fewest == most else f"at least {fewest}" if most < 0 else f"{fewest} to {most}"
    many = "argument" if wanted.endswith("1") else "arguments"
    raise UsageError(f"{command} takes {wanted} {many}, {len(arguments)} given", hint=_see(command))


def _unknown(flag: str, table: dict[str, Row]) -> None:
    raise UsageError(f"there is no option {flag}", hint=_suggestion(flag, [f"--{name}" for name in table]))


def _see(command: str) -> str:
    return f"see '{PROGRAM} {command} --help'" if command else f"see '{PROGRAM} --help'"


def _suggestion(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    bare = {each.lstrip("-"): each for each in known}
    close = get_close_matches(word.lstrip("-"), list(bare), 1, 0.6)
    return f"did you mean {bare[close[0]]}?" if close else ""
