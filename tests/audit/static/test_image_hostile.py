"""Archives that are built to hurt whoever reads them, or are broken."""

from __future__ import annotations

import gzip
import json
import os
import resource
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from stockade.audit.documents.load import Broken
from stockade.audit.facts import ImageFile, Target
from stockade.audit.static.files import audit_files
from stockade.audit.static.image import streams, tar
from tests.audit.static.image_help import configuration, everything, file, files, image, layer, layout, saved, wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = layer(file("bin/su", b"x", 0o4755))


def zeros(size: int) -> bytes:
    """Give zeros that were compressed, without ever holding them."""
    pressed = zlib.compressobj(9, wbits=31)
    parts = [pressed.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, pressed.flush()])


def test_a_bomb_in_a_layer_is_stopped_and_the_other_layers_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_SMALL", 8 << 20)
    header = file("big", b"")[0]
    header.size = 1 << 40
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + zeros(64 << 20)
    found = everything(saved(tmp_path / "a.tar", [bomb, GOOD]))

    assert any("bomb" in each for each in wrong(found))
    (target,) = [each for each in found if isinstance(each, Target)]
    assert list(files(target)) == ["/bin/su"]
    assert target.gap(ImageFile) is not None
    assert not target.knows(ImageFile)


def test_a_whole_archive_that_is_a_bomb_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SMALL", 8 << 20)
    header = file("manifest.json", b"")[0]
    header.size = 1 << 40
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + zeros(256 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (problem,) = audit_files([str(path)]).problems

    assert "bomb" in problem.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("pressed", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_archive_is_told_wherever_it_ends(tmp_path: Path, pressed: bool, kept: float) -> None:  # noqa: FBT001
    noise = layer(file("bin/su", b"x", 0o4755), file("noise", os.urandom(200_000)))
    path = saved(tmp_path / "a.tar", [noise])
    data = gzip.compress(path.read_bytes()) if pressed else path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    collected = audit_files([str(path)])

    assert len(collected.problems) == 1
    assert "cut off" in collected.problems[0].message


def test_a_truncated_layer_is_told_and_names_itself(tmp_path: Path) -> None:
    pressed = gzip.compress(GOOD)
    found = everything(saved(tmp_path / "a.tar", [pressed[:-20], GOOD]))

    (broken,) = [each for each in found if isinstance(each, Broken)]
    assert broken.where.path.endswith("a.tar/0/layer.tar")
    assert "cut off" in broken.text


def test_a_blob_that_is_not_its_digest_is_told(tmp_path: Path) -> None:
    path = layout(tmp_path / "l", [GOOD])
    index = json.loads((path / "index.json").read_text())
    manifest = json.loads((path / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    blob = path / "blobs/sha256" / manifest["layers"][0]["digest"][7:]
    blob.write_bytes(gzip.compress(layer(file("harmless", b""))))

    assert wrong(everything(path)) == ["its content isn't that of its digest"]


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "../index.json", "sha256:" + "0" * 64 + "/..", 7, None]
)
def test_a_digest_is_never_a_path(tmp_path: Path, digest: Any) -> None:
    path = layout(tmp_path / "l", [])
    (path / "index.json").write_text(json.dumps({"manifests": [{"digest": digest}]}))

    assert [type(each) for each in everything(path)] == [Broken]


def test_links_in_a_layout_are_not_followed(tmp_path: Path) -> None:
    path = layout(tmp_path / "l", [GOOD])
    (path / "blobs").rename(tmp_path / "elsewhere")
    (path / "blobs").symlink_to(tmp_path / "elsewhere")

    assert [type(each) for each in everything(path)] == [Broken]


def test_a_fifo_among_the_blobs_stops_nobody(tmp_path: Path) -> None:
    path = layout(tmp_path / "l", [GOOD])
    for blob in (path / "blobs/sha256").iterdir():
        blob.unlink()
        os.mkfifo(blob)

    assert [type(each) for each in everything(path)] == [Broken]


def test_indexes_in_a_circle_end(tmp_path: Path) -> None:
    path = layout(tmp_path / "l", [])
    name = "0" * 64
    index = json.dumps({"manifests": [{"digest": f"sha256:{name}"}] * 3})
    (path / "index.json").write_text(index)
    (path / "blobs/sha256" / name).write_text(index)

    with pytest.raises(Exception, match="image"):
        everything(path)


@pytest.mark.parametrize("layers", [["../../etc/passwd"], ["/etc/passwd"], [7], ["0/layer.tar"] * 2000])
def test_a_manifest_names_parts_of_the_archive_only(tmp_path: Path, layers: list[Any]) -> None:
    found = everything(saved(tmp_path / "a.tar", [GOOD], Layers=layers))

    assert [type(each) for each in found] == [Broken]


def test_links_of_an_archive_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    manifest = b'[{"Config": "a", "Layers": ["a", "b"]}]'
    links = [file(name, type=tarfile.SYMTYPE, linkname=to) for name, to in (("a", "b"), ("b", "a"))]
    path.write_bytes(layer(*links, file("manifest.json", manifest)))

    assert "the image's configuration isn't there" in wrong(everything(path))


def raw(change: Callable[[bytearray], None]) -> bytes:
    """Give a layer of one file with another header, the sum of which is right again."""
    data = bytearray(layer(file("bin/x", b"x")))
    change(data)
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def _negative(data: bytearray) -> None:
    data[124:136] = b"\xff" * 12


def _huge(data: bytearray) -> None:
    data[124:136] = b"\x80" + b"\x7f" * 11


def _letters(data: bytearray) -> None:
    data[124:136] = b"12x45678901\0"


def _long_name(data: bytearray) -> None:
    data[156:157] = b"L"
    data[124:136] = b"77777777777\0"


@pytest.mark.parametrize("change", [_negative, _huge, _letters, _long_name])
def test_numbers_of_a_header_are_not_believed(tmp_path: Path, change: Callable[[bytearray], None]) -> None:
    found = everything(saved(tmp_path / "a.tar", [raw(change), GOOD]))

    assert len(wrong(found)) == 1
    assert any(isinstance(each, Target) and "/bin/su" in files(each) for each in found)


def test_a_wrong_sum_ends_a_layer(tmp_path: Path) -> None:
    data = bytearray(GOOD)
    data[0] ^= 1

    assert len(wrong(everything(saved(tmp_path / "a.tar", [bytes(data)])))) == 1


@pytest.mark.parametrize(
    "record", [b"9999999 path=x\n", b"0 path=x\n", b"x path=x\n", b"-5 path=x\n", b"8 path\nx", b"14 size=-5555\n"]
)
def test_broken_extended_headers_are_refused(tmp_path: Path, record: bytes) -> None:
    info, _ = file("x", type=tarfile.XHDTYPE)
    info.size = len(record)
    data = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + GOOD

    assert len(wrong(everything(saved(tmp_path / "a.tar", [data])))) == 1


def test_huge_names_are_refused(tmp_path: Path) -> None:
    found = everything(saved(tmp_path / "a.tar", [layer(file("x" * 100_000, b""))]))

    assert wrong(found) == ["a name in it has 100000 bytes"]


def test_more_entries_than_an_image_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MOST", 100)
    content = layer(*[file(str(number)) for number in range(200)])

    assert wrong(everything(saved(tmp_path / "a.tar", [content]))) == ["it has more than 100 entries"]


def test_control_characters_in_names_do_not_break_the_report(tmp_path: Path) -> None:
    found = image(saved(tmp_path / "a.tar", [layer(file("bin/\x1b[2J\udcff", b"x", 0o4755))]))

    assert len(files(found)) == 1
    next(iter(files(found))).encode()  # no half of a surrogate pair


def test_a_configuration_that_is_broken_leaves_the_layers(tmp_path: Path) -> None:
    found = everything(saved(tmp_path / "a.tar", [GOOD], configuration(), Config="nowhere.json"))

    assert wrong(found) == ["the image's configuration isn't there"]
    assert any(isinstance(each, Target) and "/bin/su" in files(each) for each in found)


def test_a_deep_configuration_is_told(tmp_path: Path) -> None:
    deep = b'{"config": ' + b"[" * 5000 + b"]" * 5000 + b"}"

    assert any("deep" in each for each in wrong(everything(saved(tmp_path / "a.tar", [], deep))))


def test_a_layer_that_this_python_cannot_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(streams, "import_module", missing)
    found = everything(saved(tmp_path / "a.tar", [b"\x28\xb5\x2f\xfd" + bytes(100), GOOD]))

    assert wrong(found) == ["it is compressed with zstd, which this Python can't read"]
    assert any(isinstance(each, Target) and "/bin/su" in files(each) for each in found)
