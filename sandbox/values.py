"""Reading the values of options: one function a kind of value, text in, value out, `UsageError` for anything else.

The messages say what is expected and don't name the option; whoever parses the command line puts it in front. The
syntax is Docker's (docker-run(1)) wherever Docker has the option.
"""

from __future__ import annotations

import os

from stockade.errors import UsageError
from stockade.sandbox.linux import capabilities, idmap
from stockade.sandbox.request import UlimitRequest

_DIGITS = frozenset("0123456789")
_ALNUM = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: getrlimit(2), without RLIMIT_
ULIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)


def text(value: str) -> str:
    """Take anything but the empty text."""
    if not value:
        raise UsageError("the value is empty")
    return value


def boolean(value: str) -> bool:
    """Read the value of `--flag=VALUE` as Go's strconv.ParseBool does, and so Docker."""
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise UsageError("expected true or false")


def integer(value: str) -> int:
    """Read a decimal integer of at most 18 digits, perhaps negative."""
    digits = value[1:] if value[:1] == "-" else value
    if not digits or len(digits) > 18 or not _DIGITS.issuperset(digits):
        raise UsageError("expected a whole number")
    return int(value)


def decimal(value: str) -> float:
    """Read a decimal number such as 1.5: digits and at most one point."""
    whole, _, fraction = value.partition(".")
    if len(value) > 18 or not (whole or fraction) or not _DIGITS.issuperset(whole + fraction):
        raise UsageError("expected a number such as 1.5")
    return float(value)


def size(value: str) -> int:
    """Read a size in bytes: a number, and b, k, m, g, t or p (powers of 1024, in any case, also as kb or KiB)."""
    unit = value.lstrip("0123456789.")
    number = value[: len(value) - len(unit)]
    unit = unit.strip(" ").lower()
    if unit != "b" and unit.endswith("b"):
        unit = unit[:-1].removesuffix("i")
    if unit not in _UNITS:
        raise UsageError("expected a size such as 64m: a number, and b, k, m or g")
    try:
        scaled = int(integer(number) * _UNITS[unit]) if "." not in number else int(decimal(number) * _UNITS[unit])
    except UsageError:
        raise UsageError("expected a size such as 64m: a number, and b, k, m or g") from None
    if scaled >= 1 << 63:
        raise UsageError("the size does not fit in 63 bits")
    return scaled


def memory(value: str) -> int:
    """Read a size above zero."""
    return _positive(size(value), "the size has to be above zero")


def memory_swap(value: str) -> int:
    """Read a size, or -1 for no limit."""
    return -1 if value == "-1" else memory(value)


def _positive(number: int, message: str) -> int:
    if number <= 0:
        raise UsageError(message)
    return number


def cpus(value: str) -> float:
    """Read a number of processors. The kernel's smallest quota is 1 ms of a 100 ms period, so 0.01 processors."""
    number = decimal(value)
    if number < 0.01:
        raise UsageError("expected at least 0.01 processors")
    return number


def cpu_shares(value: str) -> int:
    """Read a relative weight; cgroup v1 takes 2 to 262144, 1024 is usual."""
    number = integer(value)
    if not 2 <= number <= 262144:
        raise UsageError("expected a weight from 2 to 262144")
    return number


def pids_limit(value: str) -> int:
    """Read a number of processes; 0 and -1 are no limit and read as -1."""
    number = integer(value)
    if number < -1:
        raise UsageError("expected a number of processes, or -1 for no limit")
    return number or -1


def cpus_list(value: str) -> str:
    """Check a list of processors, such as 0-3,5, in the list format of cpuset(7)."""
    for part in value.split(","):
        first, dash, last = part.partition("-")
        if not first or len(part) > 11 or not _DIGITS.issuperset(first + last) or (dash and not last):
            raise UsageError("expected processors such as 0-3,5")
        if dash and int(last) < int(first):
            raise UsageError(f"{part} is an empty range")
    return value


def seconds(value: str) -> float:
    """Read a duration above zero: a number of seconds, or a number with ms, s, m or h."""
    number = value.rstrip("smh")
    unit = value[len(number) :] or "s"
    if unit not in _SECONDS:
        raise UsageError("expected a time such as 2.5, 500ms, 10s or 5m")
    try:
        duration = decimal(number) * _SECONDS[unit]
    except UsageError:
        raise UsageError("expected a time such as 2.5, 500ms, 10s or 5m") from None
    if not 0 < duration <= 1e9:
        raise UsageError("expected a time above zero and below 1000000000 seconds")
    return duration


def path(value: str) -> str:
    """Make a path of the host absolute, without resolving links or `..`."""
    return os.path.join(os.getcwd(), text(value))


def directory(value: str) -> str:
    """Check an absolute directory of the container and clean it as Docker does."""
    if not value.startswith("/"):
        raise UsageError("expected an absolute path in the container")
    return "/" + os.path.normpath(value).lstrip("/")


def mode(value: str) -> str:
    """Take the name of a mode, or make the path of a mode's file (it has a slash or ends in .toml) absolute."""
    return path(value) if "/" in value or value.endswith(".toml") else text(value)


def name(value: str) -> str:
    """Check a container's name: Docker's [a-zA-Z0-9][a-zA-Z0-9_.-]+, and at most 128 characters."""
    if not 2 <= len(value) <= 128 or value[0] not in _ALNUM or not _ALNUM.union("_.-").issuperset(value):
        raise UsageError("expected 2 to 128 letters, digits, '_', '.' and '-', the first a letter or digit")
    return value


def hostname(value: str) -> str:
    """Check a host name: sethostname(2) takes 64 bytes; letters, digits, '-', '.' and '_' as in Docker."""
    if not 1 <= len(value) <= 64 or value[0] in "-." or not _ALNUM.union("_.-").issuperset(value):
        raise UsageError("expected at most 64 letters, digits, '-', '.' and '_', the first not '-' or '.'")
    return value


def user(value: str) -> str:
    """Check UID|NAME[:GID|NAME]; numbers are ids below 2**32 - 1, names are looked up in the container's files."""
    who, colon, group = value.partition(":")
    if not who or ":" in group or (colon and not group):
        raise UsageError("expected USER or USER:GROUP, names or numbers")
    for part in (who, group):
        if _DIGITS.issuperset(part) and part and (len(part) > 10 or int(part) >= idmap.ID_LIMIT):
            raise UsageError(f"{part} is not an id: they end at {idmap.ID_LIMIT - 1}")
    return value


def pair(value: str) -> tuple[str, str]:
    """Read KEY=VALUE; a KEY alone has an empty value."""
    key, _, content = value.partition("=")
    if not key:
        raise UsageError("expected KEY=VALUE")
    return key, content


def annotation(value: str) -> tuple[str, str]:
    """Read KEY=VALUE whose key is not one of those by which Stockade itself keeps notes in the Spec."""
    key, content = pair(value)
    if key.startswith("org.stockade."):
        raise UsageError("keys under org.stockade. are reserved")
    return key, content


def env(value: str) -> tuple[tuple[str, str], ...]:
    """Read NAME=VALUE; a NAME alone takes the caller's value and is left out where the caller has none."""
    variable, equals, content = value.partition("=")
    if not variable:
        raise UsageError("expected NAME=VALUE or NAME")
    if equals:
        return ((variable, content),)
    return ((variable, os.environ[variable]),) if variable in os.environ else ()


def env_file(value: str) -> tuple[tuple[str, str], ...]:
    """Read a file of NAME=VALUE lines by Docker's rules.

    Blank lines and those that start with # are passed over; what follows the first = is the value as it stands, quotes
    and spaces too; a NAME alone takes the caller's value.
    """
    found: list[tuple[str, str]] = []
    for number, line in enumerate(_lines(value), 1):
        stripped = line.lstrip()
        if not stripped or stripped[0] == "#":
            continue
        variable = stripped.partition("=")[0]
        if not variable:
            raise UsageError(f"line {number} has no variable name")
        if any(character.isspace() for character in variable):
            raise UsageError(f"line {number}: the variable {variable!r} contains white space")
        if "\0" in stripped:
            raise UsageError(f"line {number} contains a NUL byte")
        found += env(stripped)
    return tuple(found)


def _lines(filename: str) -> list[str]:
    try:
        with open(path(filename), "rb") as file:
            raw = file.read((1 << 20) + 1)
    except OSError as error:
        raise UsageError(error.strerror or str(error)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None  # a NUL in the path
    if len(raw) > 1 << 20:
        raise UsageError("the file is larger than a megabyte")
    try:
        content = raw.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        raise UsageError("the file is not UTF-8") from None
    return [line.removesuffix("\r") for line in content.split("\n")]


def ulimit(value: str) -> UlimitRequest:
    """Read NAME=SOFT[:HARD]; -1 is unlimited, and one number is both limits."""
    resource, equals, limits = value.partition("=")
    if not equals or resource not in ULIMITS:
        raise UsageError(f"expected NAME=SOFT[:HARD] with one of {', '.join(ULIMITS)}")
    soft, colon, hard = limits.partition(":")
    limit = UlimitRequest(resource, integer(soft), integer(hard if colon else soft))
    if limit.soft < -1 or limit.hard < -1:
        raise UsageError("expected a limit, or -1 for unlimited")
    if limit.hard != -1 and not 0 <= limit.soft <= limit.hard:
        raise UsageError(f"the soft limit {soft} is above the hard limit {hard}")
    return limit


def capability_list(value: str) -> tuple[str, ...]:
    """Read names of capabilities, separated by commas, in any case and with or without CAP_; `ALL` stays `ALL`."""
    found: list[str] = []
    for part in value.split(","):
        if part.upper() in ("ALL", "CAP_ALL"):
            found.append("ALL")
            continue
        try:
            found.append(capabilities.NAMES[capabilities.number(part)])
        except (ValueError, IndexError):
            raise UsageError(f"{part!r} is not a capability; capabilities(7) has the list", hint=near(part)) from None
    return tuple(found)


def near(part: str) -> str:
    """Give a hint that names the capability closest to a misspelt one, or nothing."""
    from difflib import get_close_matches

    wanted = "CAP_" + part.upper().removeprefix("CAP_")
    close = get_close_matches(wanted, capabilities.NAMES, 1, 0.75)
    return f"did you mean {close[0]}?" if close else ""


def capability_set(value: str) -> tuple[str, ...]:
    """Read one of the five sets: names separated by commas, `ALL`, or `none` for the empty set."""
    return () if value.lower() == "none" else capability_list(value)


def extent(value: str) -> idmap.Mapping:
    """Read CONTAINER:HOST:SIZE."""
    try:
        return idmap.parse_argument(value)
    except ValueError as error:
        raise UsageError(str(error)) from None


def signal(value: str) -> int:
    """Read a signal by name, with or without SIG, or by number: TERM, SIGRTMIN+3, 15."""
    numbers = __import__("_signal")  # what `signal` is made of, without its enums that cost 4 ms; it has no type stub
    if value and _DIGITS.issuperset(value):
        number = int(value[:4])
    else:
        base, plus, offset = value.upper().removeprefix("SIG").partition("+")
        number = getattr(numbers, f"SIG{base}", 0) if base.isalnum() else 0
        if plus:
            number += integer(offset) if base == "RTMIN" else 1 << 10
    if not 1 <= number < numbers.NSIG:
        raise UsageError("expected a signal such as TERM or 15")
    return number


class Choice:
    """A reader of one word out of `values`."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def __call__(self, value: str) -> str:
        """Give the word back, or raise UsageError."""
        if value not in self.values:
            raise UsageError(f"expected {' or '.join(self.values)}")
        return value


def security(value: str) -> tuple[str, str | bool | None]:
    """Read one --security-opt: (field of the Request, its value), or ("", None) for what changes nothing here.

    `seccomp=FILE|unconfined|default` (builtin to Docker), `no-new-privileges[=BOOL]` and `systempaths=unconfined`; a
    colon does for the equals sign as it did in old versions of Docker. `apparmor=unconfined` and `label=disable` ask
    for what is the case anyway.
    """
    key, separator, content = value.partition("=" if "=" in value else ":")
    if key == "no-new-privileges":
        return "no_new_privileges", boolean(content) if separator else True
    if key == "seccomp" and content:
        words = {"unconfined": "unconfined", "default": "default", "builtin": "default"}
        return "seccomp", words.get(content) or path(content)
    if key == "systempaths" and content == "unconfined":
        return "systempaths", content
    if (key, content) in (("apparmor", "unconfined"), ("label", "disable")):
        return "", None
    raise UsageError("expected seccomp=FILE|unconfined|default, no-new-privileges or systempaths=unconfined")
