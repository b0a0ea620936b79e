"""From a layout or an archive to its targets, one for each image."""

import os
from collections.abc import Iterator, Mapping, Sequence

from stockade.audit import facts
from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.documents.tree import Map
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.static.image import config, layers
from stockade.audit.static.image.layers import Layer
from stockade.audit.static.image.manifest import Image, images, parsed
from stockade.audit.static.image.store import Archive, Directory
from stockade.audit.static.image.streams import Hashed, Refused, Stream, Unsupported
from stockade.audit.static.reading import Reader

_COMPLETE = frozenset({facts.Variable, facts.Port, facts.Unset, facts.BuildStep, facts.ImageFile})
_TOLD = 20
_NO_IMAGE = "this archive holds no image: neither manifest.json nor index.json of one"
_Scanned = Mapping[str, "Layer | str"]


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give a target for each image, then what is wrong in it. Raises Broken where nothing can be read."""
    store = _store(source)
    try:
        found = list(images(store, source.path))
        if not found:
            told = Broken(Where(source.path), store.broken or _NO_IMAGE)
            raise told if store.broken and store.of_image else NotOne(told)
        wanted = [each for each in found if isinstance(each, Image)]
        scanned = _scan(store, wanted, source.path)
        taken: dict[str, int] = {}
        for each in found:
            if isinstance(each, Broken):
                yield each
            else:
                yield from _image(store, each, source.path, scanned, taken)
        if store.broken:
            yield Broken(Where(source.path), store.broken)
    except Refused as error:
        raise Broken(Where(source.path), str(error)) from None
    finally:
        store.close()


def _store(source: Source) -> Directory | Archive:
    path = source.file or source.path
    if source.whole and os.path.basename(source.path) == "oci-layout":
        path = os.path.dirname(path) or "."
    try:
        return Directory(path) if os.path.isdir(path) else Archive(path)
    except Unsupported as error:
        raise NotOne(Broken(Where(source.path), str(error))) from None
    except OSError as error:
        raise Broken(Where(source.path), (error.strerror or str(error)).lower()) from None


def _scan(store: Directory | Archive, wanted: Sequence[Image], path: str) -> dict[str, Layer | str]:
    """Look through all layers once, in the order in which they lie there; a broken one is told by a text."""
    digests = {part: digest for image in wanted for part, digest in image.layers}
    search = set(config.DEFAULT_PATH)
    for image in wanted:
        document = _document(store, image, path)
        if isinstance(document, Map):
            search.update(config.path(document))
    scanned: dict[str, Layer | str] = {}
    try:
        for names, stream in store.parts(digests):
            result = _layer(stream, names[0], digests, path, search)
            scanned |= dict.fromkeys(names, result)
    except Refused as error:
        # the archive itself ends here: what came before counts
        scanned |= {name: f"the archive is broken before it: {error}" for name in digests if name not in scanned}
    return scanned


def _layer(stream: Stream, name: str, digests: Mapping[str, str], path: str, search: set[str]) -> Layer | str:
    digest = digests[name]
    short = (digest or os.path.dirname(name) or name).rpartition("/")[2].removeprefix("sha256:")[:12]
    where = Where(f"{path}/{name}")
    try:
        if not digest.startswith("sha256:"):
            return layers.scan(stream, where, short, search)
        hashed = Hashed(stream)
        found = layers.scan(hashed, where, short, search)
        return found if hashed.digest() == digest else "its content isn't that of its digest"
    except (Refused, Unsupported) as error:
        return str(error)


def _document(store: Directory | Archive, image: Image, path: str) -> Map | Broken:
    try:
        found = parsed(store, image.config, path)
    except Broken as broken:
        return broken
    except Refused as error:
        return Broken(Where(f"{path}/{image.config}"), str(error))
    if not isinstance(found, Map):
        return Broken(Where(f"{path}/{image.config}"), "the image's configuration isn't there")
    return found


def _image(
    store: Directory | Archive, image: Image, path: str, scanned: _Scanned, taken: dict[str, int]
) -> Iterator[Target | Broken]:
    reader = Reader()
    document = _document(store, image, path)
    found: list[Fact | Gap] = []
    if isinstance(document, Broken):
        yield document
        found.append(Gap(facts.Identity, "the image's configuration can't be read", document.where))
    else:
        found += [*config.config(document, reader), *config.history(document, reader)]
    missing = [(name, scanned.get(name, "it isn't there")) for name, _ in image.layers]
    broken = [Broken(Where(f"{path}/{name}"), text) for name, text in missing if isinstance(text, str)]
    found += layers.together([None if isinstance(each, str) else each for _, each in missing])
    found += [Gap(facts.ImageFile, f"{each.where.path}: {each.text}", each.where) for each in broken]
    yield _target(image, path, found, document, taken)
    yield from broken[:_TOLD]
    for wrong in reader.wrong[:_TOLD]:
        yield Broken(wrong.where, wrong.text, hint="it counts as absent")


def _target(
    image: Image, path: str, found: Sequence[Fact | Gap], document: Map | Broken, taken: dict[str, int]
) -> Target:
    identity = f"{path}:{image.name}" if image.name else path
    taken[identity] = taken.get(identity, 0) + 1
    gaps = tuple([each for each in found if isinstance(each, Gap)])
    return Target(
        id=identity if taken[identity] == 1 else f"{identity}#{taken[identity]}",
        name=image.name or os.path.basename(path.rstrip("/")),
        kind="image",
        facts=tuple([each for each in found if isinstance(each, Fact)]),
        gaps=gaps,
        complete=_COMPLETE - {gap.kind for gap in gaps if gap.applicable},
        command=config.command(document) if isinstance(document, Map) else "",
    )
