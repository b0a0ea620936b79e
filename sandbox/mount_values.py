"""Reading -v, --mount, --tmpfs and --device, in Docker's syntax."""

from __future__ import annotations

import os

from stockade.errors import UsageError
from stockade.sandbox.request import DeviceRequest, MountRequest
from stockade.sandbox.values import boolean, directory, size

_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"))
#: relabelling (no SELinux policy of ours to label for), image content to copy, Docker Desktop's caches: nothing to do
_IGNORED = frozenset(("z", "Z", "nocopy", "cached", "delegated", "consistent", "default"))
_FLAGS = ("nosuid", "nodev", "noexec")
_BIND_FLAGS = frozenset((*_FLAGS, "suid", "dev", "exec", "noatime", "nodiratime", "relatime", "nosymfollow", "idmap"))
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"))
_TMPFS_FLAGS = frozenset((*_FLAGS, "suid", "dev", "exec", "noatime", "relatime", "nosymfollow"))


def volume(value: str) -> MountRequest:
    """Read SOURCE:DESTINATION[:OPTIONS] of -v. A relative source starts with a dot, as for Docker."""
    parts = value.split(":")
    if len(parts) not in (2, 3):
        raise UsageError("expected SOURCE:DESTINATION or SOURCE:DESTINATION:OPTIONS")
    request = MountRequest("bind", _source(parts[0]), _destination(parts[1]))
    return _with_options(request, parts[2].split(",")) if len(parts) == 3 else request


def _source(value: str) -> str:
    if value.startswith("/"):
        return value
    if value in (".", "..") or value.startswith(("./", "../")):
        return os.path.join(os.getcwd(), value)
    if not value:
        raise UsageError("the source is empty")
    raise UsageError(
        f"{value!r} is not a path: named volumes are not supported", hint=f"write ./{value} for a directory"
    )


def _destination(value: str) -> str:
    depth = 0
    for part in value.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise UsageError(f"{value!r} climbs out of the container's root")
    cleaned = directory(value)
    if cleaned == "/":
        raise UsageError("the destination can't be '/'")
    return cleaned


def _with_options(request: MountRequest, options: list[str]) -> MountRequest:
    read_only: bool | None = None
    propagation = ""
    flags: list[str] = []
    for option in options:
        if option in ("ro", "rw"):
            if read_only not in (None, option == "ro"):
                raise UsageError("ro and rw exclude each other")
            read_only = option == "ro"
        elif option in _PROPAGATION:
            if propagation not in ("", option):
                raise UsageError(f"{propagation} and {option} exclude each other")
            propagation = option
        elif option in _BIND_FLAGS:
            flags.append(option)
        elif option not in _IGNORED:
            raise UsageError(
                f"{option!r} is not an option of a volume; there are ro, rw, noexec, idmap, rslave and more"
            )
    return request.replace(read_only=read_only is True, propagation=propagation, options=tuple(flags))


def tmpfs(value: str) -> MountRequest:
    """Read DESTINATION[:OPTIONS] of --tmpfs; nosuid, nodev and noexec hold unless suid, dev and exec are given."""
    destination, _, options = value.partition(":")
    return _tmpfs(destination, options.split(",") if options else [])


def _tmpfs(destination: str, options: list[str]) -> MountRequest:
    flags = list(_FLAGS)
    values: dict[str, str] = {}
    read_only = False
    for option in options:
        key, equals, content = option.partition("=")
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif equals and key in _TMPFS_VALUES:
            values[key] = _tmpfs_value(key, content)
        elif option in _TMPFS_FLAGS:
            flags = [flag for flag in flags if flag not in (f"no{option}", option)]
            flags.append(option)
        else:
            raise UsageError(
                f"{option!r} is not an option of tmpfs; there are size=, mode=, uid=, gid=, exec, ro and more"
            )
    settings = [f"{key}={content}" for key, content in values.items()]
    return MountRequest("tmpfs", "tmpfs", _destination(destination), read_only, (*flags, *settings))


def _tmpfs_value(key: str, content: str) -> str:
    if key == "mode":
        if not content or len(content) > 5 or content.strip("01234567"):
            raise UsageError("mode= takes an octal number such as 1777")
        return content
    if key == "size" and content.endswith("%") and content[:-1].isdecimal():
        return content
    return str(size(content))


def device(value: str) -> DeviceRequest:
    """Read SOURCE[:DESTINATION][:PERMISSIONS] of --device; permissions are letters of `rwm`."""
    parts = value.split(":")
    if not 1 <= len(parts) <= 3:
        raise UsageError("expected SOURCE, SOURCE:DESTINATION or SOURCE:DESTINATION:rwm")
    permissions = "rwm"
    if len(parts) == 3 or (len(parts) == 2 and not parts[1].startswith("/")):
        permissions = parts.pop()
        if not permissions or permissions.strip("rwm") or len(set(permissions)) != len(permissions):
            raise UsageError(f"{permissions!r} are not permissions: letters of rwm, each once")
    if not parts[0].startswith("/"):
        raise UsageError("expected an absolute path of the host, such as /dev/fuse")
    return DeviceRequest(parts[0], _destination(parts[-1]), permissions)


def mount(value: str) -> MountRequest:
    """Read the key=value pairs of --mount: type=bind|tmpfs, source, target, readonly and their other names."""
    fields = dict(_pair(field) for field in split_csv(value))
    kind = fields.pop("type", "volume")
    target = fields.pop("target", "")
    if kind not in ("bind", "tmpfs"):
        raise UsageError(f"mounts of type {kind} are not supported", hint="write type=bind or type=tmpfs")
    if not target:
        raise UsageError("target= is missing: where in the container?")
    read_only = boolean(fields.pop("readonly", "false"))
    fields.pop("consistency", None)
    if kind == "tmpfs":
        request = _tmpfs_mount(target, fields).replace(read_only=read_only)
    else:
        request = _bind_mount(target, fields, read_only=read_only)
    if fields:
        raise UsageError(f"{next(iter(fields))} does not go with type={kind}")
    return request


_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_KEYS = frozenset(
    (
        *("type", "source", "target", "readonly", "consistency", "bind-propagation", "bind-nonrecursive"),
        *("bind-recursive", "idmap", "tmpfs-size", "tmpfs-mode"),
    )
)


def _pair(field: str) -> tuple[str, str]:
    key, equals, content = field.partition("=")
    key = _ALIASES.get(key.lower(), key.lower())
    if key not in _KEYS:
        raise UsageError(f"{key!r} is not a key of --mount; there are type, source, target, readonly and more")
    if not equals and key not in ("readonly", "bind-nonrecursive", "idmap"):
        raise UsageError(f"{key} needs a value: {key}=…")
    return key, content if equals else "true"


def _tmpfs_mount(target: str, fields: dict[str, str]) -> MountRequest:
    options = [f"{key}={fields.pop(f'tmpfs-{key}')}" for key in ("size", "mode") if f"tmpfs-{key}" in fields]
    return _tmpfs(target, options)


def _bind_mount(target: str, fields: dict[str, str], *, read_only: bool) -> MountRequest:
    if "source" not in fields:
        raise UsageError("source= is missing: which path of the host?")
    propagation = fields.pop("bind-propagation", "")
    if propagation and propagation not in _PROPAGATION:
        raise UsageError(f"{propagation!r} is not a propagation; there are rprivate, rslave, rshared and more")
    recursive = not boolean(fields.pop("bind-nonrecursive", "false"))
    how = fields.pop("bind-recursive", "enabled")
    # Docker's "writable" leaves submounts writable below a read-only one. Ours are read-only throughout, see
    # mount_setattr(2), so it is refused instead of quietly meaning something else.
    if how not in ("enabled", "disabled", "readonly"):
        raise UsageError("bind-recursive takes enabled, disabled or readonly")
    if how == "readonly" and not read_only:
        raise UsageError("bind-recursive=readonly needs readonly")
    recursive = recursive and how != "disabled"
    options = ("idmap",) if boolean(fields.pop("idmap", "false")) else ()
    source = _source(fields.pop("source"))
    return MountRequest("bind", source, _destination(target), read_only, options, propagation, recursive)


def split_csv(value: str) -> list[str]:
    """Split one CSV record (RFC 4180) as Docker does for --mount: a field in double quotes may hold commas."""
    fields: list[str] = []
    rest = value
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest)
        else:
            field, comma, tail = rest.partition(",")
            if '"' in field:
                raise UsageError('a quote inside of a field; write "key=value" or no quotes')
            rest = comma + tail
        fields.append(field)
        if not rest:
            return fields
        rest = rest[1:]


def _quoted(text: str) -> tuple[str, str]:
    """Read a field in quotes at the start of `text`; give it and the rest, which is empty or starts with a comma."""
    end = text.find('"', 1)
    while end != -1 and text[end + 1 : end + 2] == '"':
        end = text.find('"', end + 2)
    if end == -1 or text[end + 1 : end + 2] not in ("", ","):
        raise UsageError("a quote is not closed at the end of a field")
    return text[1:end].replace('""', '"'), text[end + 1 :]
