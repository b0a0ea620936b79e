"""Records of the OCI specifications to JSON objects, with OCI's own key names."""

from __future__ import annotations

from stockade.sandbox.linux.record import Record

# Keys that do not follow from the field's name by camelCase.
KEYS = {
    "class_": "class",
    "clos_id": "closID",
    "class_id": "classID",
    "container_id": "containerID",
    "host_id": "hostID",
    "block_io": "blockIO",
    "disable_oom_killer": "disableOOMKiller",
    "enable_cmt": "enableCMT",
    "enable_mbm": "enableMBM",
    "exec_cpu_affinity": "execCPUAffinity",
    "kernel_tcp": "kernelTCP",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
}

# Keys that stay although their value is the default, because readers of Go's encoding expect them.
ALWAYS = frozenset({"user", "uid", "gid", "ociVersion", "pid"})


def key(field: str) -> str:
    """Give the JSON key of a record's field: `uid_mappings` is uidMappings."""
    if field in KEYS:
        return KEYS[field]
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)


def to_json(record: Record) -> dict[str, object]:
    """Give the JSON object of a record; a field with its default value is left out."""
    found: dict[str, object] = {}
    for field, default in type(record)._fields.items():
        value = getattr(record, field)
        name = key(field)
        if value != default or name in ALWAYS:
            found[name] = _plain(value)
    return found


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
