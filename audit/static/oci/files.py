"""The root file system, the mounts, and what hides parts of /proc and /sys."""

import os
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap
from stockade.audit.rules.known import normal, within
from stockade.audit.static import building
from stockade.audit.static.reading import Reader

_PROPAGATIONS = ("shared", "slave", "private", "unbindable")


def root(config: Map, linux: Map, path: str, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the root file system: where it lies on the host, whether it is read-only and what it passes on."""
    section = reader.mapping(config, "root")
    if section is None:
        yield Gap(facts.ReadOnlyRoot, "it has no root file system", config.where)
        return
    read_only = reader.flag(section, "readonly") is True
    place = section.at("readonly")
    yield facts.ReadOnlyRoot(where=place, value=read_only)
    if "readonly" not in section:
        yield building.unset(section.where, "read_only_root")
    propagation = (reader.text(linux, "rootfsPropagation") or "").removeprefix("r")
    shown = propagation if propagation in _PROPAGATIONS else None
    yield facts.Mount(
        where=linux.at("rootfsPropagation") if shown == "shared" else section.at("path"),
        destination="/",
        fstype=None,
        host_path=_on_host(reader.text(section, "path") or "rootfs", path),
        writable=not read_only,
        options=("ro",) if read_only else ("rw",),
        propagation=shown,  # type: ignore[arg-type] # a word of its Literal
    )


def _on_host(source: str, path: str) -> str:
    """Give a path of the host; what isn't absolute is taken from the bundle."""
    return source if source.startswith("/") else os.path.join(os.path.dirname(os.path.abspath(path)), source)


def mounts(config: Map, path: str, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the mounts."""
    for entry in reader.mappings(config, "mounts"):
        destination = reader.text(entry, "destination")
        if destination is None:
            reader.refuse(entry.where, "destination", "a path", None)
            continue
        options = tuple([option for option, _ in reader.texts(entry, "options")])
        fstype = reader.text(entry, "type") or ""
        source = reader.text(entry, "source") or ""
        if fstype == "bind" or {"bind", "rbind"} & set(options):
            yield from _bind(entry, destination, _on_host(source, path), options)
            continue
        yield facts.Mount(
            where=entry.at("type"),
            destination=destination,
            fstype=fstype or None,
            host_path=None,
            writable="ro" not in options and "rro" not in options,
            options=options,
            super_options=options,
            source=source or None,
            propagation=_propagation(options),
        )
        if normal(source).startswith("/dev/") and source.startswith("/"):
            yield building.device(entry.at("source"), source)


def _bind(entry: Map, destination: str, source: str, options: tuple[str, ...]) -> Iterator[Fact]:
    plain = tuple([option for option in options if option not in {"bind", "rbind"}])
    yield from building.bind(
        entry.at("source"),
        destination,
        source,
        writable="ro" not in options and "rro" not in options,
        options=plain,
        propagation=_propagation(options),
    )


def _propagation(options: tuple[str, ...]) -> facts.Propagation | None:
    found = [option.removeprefix("r") for option in options if option.removeprefix("r") in _PROPAGATIONS]
    return found[-1] if found else None  # type: ignore[return-value] # of the one kind asked for


def masks(config: Map, linux: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give what is hidden and what is read-only, of the paths that engines protect and of those that are listed."""
    by_path = {
        **dict.fromkeys([normal(each) for each, _ in reader.texts(linux, "readonlyPaths")], "read-only"),
        **dict.fromkeys([normal(each) for each, _ in reader.texts(linux, "maskedPaths")], "masked"),
    }
    mounted = _mounted(config)
    for path in dict.fromkeys((*building.MASKED, *building.READ_ONLY, *by_path)):
        top = "/" + path.split("/", 2)[1]
        if top in {"/proc", "/sys"} and top not in mounted:
            continue  # nothing is there
        state = _state(path, by_path, mounted)
        key = "maskedPaths" if path in building.MASKED or state == "masked" else "readonlyPaths"
        yield facts.Mask(where=linux.at(key), path=path, state=state, declared=state)  # type: ignore[arg-type] # a Literal
    if "/sys" in mounted:
        shown = "read-only" if mounted["/sys"] else "open"
        yield facts.Mask(where=config.at("mounts"), path="/sys", state=shown, declared=shown)  # type: ignore[arg-type] # a Literal


def _mounted(config: Map) -> dict[str, bool]:
    """Give which paths of /proc and /sys have a mount of their own, and whether it is read-only."""
    found: dict[str, bool] = {}
    for entry in config.seq("mounts") or ():
        if isinstance(entry, Map) and isinstance(entry.get("destination"), str):
            options = entry.get("options")
            read_only = isinstance(options, list) and ("ro" in options or "rro" in options)
            found[normal(entry["destination"])] = read_only
    return found


def _state(path: str, listed: dict[str, str], mounted: dict[str, bool]) -> str:
    """Say how a path is protected: by a mask on it or above it, or by a read-only mount."""
    best = "open"
    for each, state in listed.items():
        if within(path, each):
            best = "masked" if "masked" in {state, best} else state
    above = max((each for each in mounted if within(path, each) and each != "/"), key=len, default=None)
    if best == "open" and above is not None and mounted[above]:
        return "read-only"
    return best
