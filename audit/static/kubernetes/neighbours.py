"""Service accounts in other files of the same directory, where the audit was asked for those files as well."""

from collections.abc import Mapping
from functools import lru_cache

from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.walk import Entry, Source, read
from stockade.audit.static import companions
from stockade.audit.static.kubernetes.objects import Object, objects

#: bytes; files that hold more are no hand-written manifests
_LARGEST = 1 << 20


def account(path: str, namespace: str | None, name: str) -> Object | None:
    """Give the service account that one of the files beside `path` declares; None where none or several of them do."""
    found = _accounts(*companions.beside(path)).get((namespace or "default", name), ())
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=32)
def _accounts(_: int, paths: tuple[str, ...]) -> Mapping[tuple[str, str], tuple[Object, ...]]:
    known: dict[tuple[str, str], tuple[Object, ...]] = {}
    for path in paths:
        source = read(Entry(path, named=False))
        if not isinstance(source, Source) or not source.whole or len(source.data) > _LARGEST:
            continue
        if b"ServiceAccount" not in source.data or b"apiVersion" not in source.data:
            continue
        try:
            items = tuple(objects(documents(source.data, path)))
        except Broken:
            continue  # told when that file is audited
        for item in items:
            if item.kind == "ServiceAccount":
                key = (item.namespace or "default", item.name)
                known[key] = (*known.get(key, ()), item)
    return known
