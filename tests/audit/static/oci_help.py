"""Makes examples of config.json for the tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Target
from stockade.audit.static.oci import targets

if TYPE_CHECKING:
    from collections.abc import Mapping

F = TypeVar("F", bound=Fact)

#: a config.json that asks for nothing beyond a program with namespaces of its own
BASE: Mapping[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["/bin/app", "-v"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]},
}


def config(path: str = "/srv/web/config.json", **sections: Any) -> Target:
    """Give the target of BASE with other values: `linux__seccomp={}` replaces a key of a section."""
    found = everything(path, **sections)
    assert [each for each in found if isinstance(each, Broken)] == []
    (target,) = [each for each in found if isinstance(each, Target)]
    return target


def everything(path: str = "/srv/web/config.json", **sections: Any) -> tuple[Target | Broken, ...]:
    """Give the targets and what is wrong."""
    return tuple(targets(Source(path, json.dumps(changed(sections), indent=2).encode())))


def changed(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Give BASE with other values; None takes a key away."""
    whole = json.loads(json.dumps(BASE))
    for name, value in sections.items():
        section, _, key = name.partition("__")
        into = whole.setdefault(section, {}) if key else whole
        if value is None:
            into.pop(key or section, None)
        else:
            into[key or section] = value
    return dict(whole)


def only(target: Target, kind: type[F]) -> F:
    """Give the one fact of a kind."""
    (fact,) = target.all(kind)
    return fact
