"""Volumes that several containers have."""

from collections.abc import Iterator

from stockade.audit.facts import CgroupParent, SharedVolume
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen


@rule(Severity.INFO, "https://docs.docker.com/engine/storage/volumes/", conditions=("MNT-SHARED",),
      attack=("T1080",), cwe=(668,))  # fmt: skip
def shared_volume(volume: SharedVolume) -> Iterator[Outcome]:
    """Several containers can write one volume.

    Whoever takes over one of them changes what the others read: their programs, their templates, their uploads.

    Fix: give each its own volume, and mount read-only what is only read.

    ```toml bad
    [[SharedVolume]]
    name = "data"
    others = ["db"]
    ```

    ```toml good
    [[SharedVolume]]
    name = "data"
    others = []
    ```
    """
    if volume.others:
        others = ", ".join(sorted(volume.others)[:5])
        title = f"{volume.name} can be written here and is mounted in {others} as well"
        yield Found(title, volume.where, (seen(volume, title),), key=volume.name)


@rule(Severity.LOW, "https://docs.docker.com/reference/compose-file/services/#cgroup_parent",
      conditions=("RES-CGPARENT",), cis=("5.25",), attack=("T1499",), cwe=(770,))  # fmt: skip
def foreign_cgroup_parent(parent: CgroupParent) -> Iterator[Outcome]:
    """The container's cgroup is put somewhere else.

    It then shares the limits of whatever else lies there, and not those that the engine sets for its containers.

    Fix: leave cgroup_parent out.

    ```toml bad
    [CgroupParent]
    path = "/system.slice"
    ```

    ```toml good
    [CgroupParent]
    path = ""
    ```
    """
    if parent.path:
        line = seen(parent, f"cgroup parent {parent.path}")
        yield Found(f"the container's cgroup is put into {parent.path}", parent.where, (line,))
