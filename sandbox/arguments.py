"""The lean parser of `stockade run`: argv to Request without importing click, which costs more than a launch.

It takes plain command lines only. Whatever needs words (help, completion, any mistake) it leaves to click by returning
None, so that there is one place that phrases answers. Both end in `assemble`; tests/cli/test_parsers_agree.py holds
them together.
"""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.options import BY_FLAG, OPTIONS
from stockade.sandbox.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from stockade.sandbox.options import Option

    #: name of an option to its value, or to the list of values of a repeatable option
    Given = dict[str, Any]


def parse(argv: Sequence[str]) -> Request | None:
    """Read the arguments after `run`; None when they are not plain and click has to answer.

    Options end at `--` or at the first argument that isn't one: the program and its own arguments follow.
    """
    try:
        return _parse(argv)
    except UsageError:
        return None


def _parse(argv: Sequence[str]) -> Request | None:
    given: Given = {}
    place = 0
    while place < len(argv):
        argument = argv[place]
        if argument == "--":
            place += 1
            break
        if not argument.startswith("-") or argument == "-":
            break
        follower = argv[place + 1] if place + 1 < len(argv) else None
        used = _long(given, argument, follower) if argument.startswith("--") else _short(given, argument, follower)
        if not used:
            return None
        place += used
    return assemble(given, tuple(argv[place:]))


def _long(given: Given, argument: str, follower: str | None) -> int:
    """Take `--option`, `--option=value` or `--option value`; give how many arguments that were, or 0."""
    flag, equals, value = argument.partition("=")
    option = BY_FLAG.get(flag)
    if option is None:
        return 0
    if equals:
        _take(given, option, value)
        return 1
    return _alone(given, option, follower)


def _alone(given: Given, option: Option, follower: str | None) -> int:
    if option.is_flag:
        _take(given, option, "true")
        return 1
    if follower is None:
        return 0
    _take(given, option, follower)
    return 2


def _short(given: Given, argument: str, follower: str | None) -> int:
    """Take `-it`, `-eNAME=VALUE`, `-e=NAME`, `-e NAME`; give how many arguments that were, or 0."""
    for place in range(1, len(argument)):
        option = BY_FLAG.get("-" + argument[place])
        if option is None:
            return 0
        rest = argument[place + 1 :]
        if rest.startswith("="):
            _take(given, option, rest[1:])
            return 1
        if rest and not option.is_flag:
            _take(given, option, rest)
            return 1
        if not rest:
            return _alone(given, option, follower)
        _take(given, option, "true")
    return 0


def _take(given: Given, option: Option, text: str) -> None:
    value = option.parse(text)
    if option.repeatable:
        given.setdefault(option.name, []).append(value)
    else:
        given[option.name] = value


def from_keywords(argv: tuple[str, ...], keywords: dict[str, Any]) -> Request:
    """Make the Request of a caller in Python, who names options or fields: `memory="64m"` or `memory=1 << 26`.

    Text is read as on the command line, so that it is refused for the same reasons. Raises UsageError.
    """
    options = {option.name: option for option in OPTIONS if not option.is_flag}
    given: Given = {}
    fields: Given = {}
    for name, value in keywords.items():
        texts = [value] if isinstance(value, str) else value
        option = options.get(_SINGULAR.get(name, name))
        if option is None or not isinstance(texts, (list, tuple)) or not any(isinstance(text, str) for text in texts):
            fields[name] = value
            continue
        for text in texts:
            try:
                _take(given, option, text)
            except UsageError as error:
                raise UsageError(f"{name}={text!r}: {error.message}", hint=error.hint) from None
    return assemble(given, argv, fields)


#: fields whose options read several values at once
_FLAT = ("cap_add", "cap_drop", "cap_bounding", "cap_effective", "cap_permitted", "cap_inheritable", "cap_ambient")
_LISTS = ("ulimits", "devices", "tmpfs", "labels", "annotations", "uidmap", "gidmap")
#: options whose field of the Request is named otherwise: it is a list, or the name needs more words in Python
_RENAMED = {
    "host": "host_root",
    "rm": "remove",
    "ulimit": "ulimits",
    "device": "devices",
    "label": "labels",
    "annotation": "annotations",
}


#: options by their fields, for callers in Python, who may write either
_SINGULAR = {field: name for name, field in _RENAMED.items()} | {"mounts": "volume"}


def assemble(given: Given, argv: tuple[str, ...], fields: Given | None = None) -> Request:
    """Make the Request of what the options gave, and of `fields` as they are. UsageError for what is no command."""
    values = {_RENAMED.get(name, name): value for name, value in given.items()}
    for field in _LISTS:
        if field in values:
            values[field] = tuple(values[field])
    for field in _FLAT:
        if field in values:
            # in the order given, each once
            values[field] = tuple(dict.fromkeys(name for names in values[field] for name in names))
    # Docker's order: what the command line says outweighs the files, wherever they stand.
    env = [pair for source in ("env_file", "env") for pairs in values.pop(source, ()) for pair in pairs]
    mounts = [*values.pop("volume", ()), *values.pop("mount", ())]
    values |= {field: value for field, value in values.pop("security_opt", ()) if field}
    show = [what for what in ("spec", "plan") if values.pop(what, False)]
    if len(show) > 1:
        raise UsageError("--spec and --plan exclude each other")
    values |= {"env": tuple(dict(env).items()), "mounts": tuple(mounts), "show": show[0] if show else None}
    request = Request(argv=argv, **values | (fields or {}))
    _check(request)
    return request


def _check(request: Request) -> None:
    """Refuse what is no command at all; what goes together otherwise is for `build` to say, for the Python API too."""
    if not request.argv or not request.argv[0]:
        raise UsageError("PROGRAM is missing", hint="name it after the options: stockade run --host ls /")
    if request.host_root and request.rootfs is not None:
        raise UsageError("--rootfs and --host exclude each other")
    if not request.host_root and request.rootfs is None:
        raise UsageError(
            "no root file system", hint="name a directory with --rootfs, or write --host for the host's own programs"
        )
