from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.linux import idmap
from stockade.sandbox.linux.idmap import ID_LIMIT, Mapping, Range

if TYPE_CHECKING:
    from pathlib import Path

ids = st.integers(0, ID_LIMIT - 1)


@st.composite
def extents(draw: st.DrawFn) -> Mapping:
    container, host = draw(ids), draw(ids)
    return Mapping(container, host, draw(st.integers(1, ID_LIMIT - max(container, host))))


maps = st.lists(extents(), min_size=1, max_size=6)


def valid(mappings: list[Mapping]) -> bool:
    return idmap.overlaps(mappings) is None


@given(maps)
def test_a_map_survives_the_kernels_way_of_printing_it(mappings: list[Mapping]) -> None:
    text = "".join(f"{m.container:10} {m.host:10} {m.size:10}\n" for m in mappings)

    assert idmap.parse(text) == idmap.parse(idmap.render(mappings)) == tuple(mappings)


@given(extents())
def test_an_extent_survives_its_argument(mapping: Mapping) -> None:
    assert idmap.parse_argument(str(mapping)) == mapping


@given(maps.filter(valid), st.data())
def test_ids_go_out_and_come_back(mappings: list[Mapping], data: st.DataObject) -> None:
    mapping = data.draw(st.sampled_from(mappings))
    inside = data.draw(st.integers(mapping.container, mapping.container + mapping.size - 1))

    outside = idmap.to_host(mappings, inside)

    assert outside is not None
    assert outside == mapping.host + inside - mapping.container
    assert idmap.to_container(mappings, outside) == inside


@given(maps, ids)
def test_an_id_that_no_extent_covers_is_mapped_to_none(mappings: list[Mapping], wanted: int) -> None:
    covered = any(wanted in range(m.container, m.container + m.size) for m in mappings)

    assert (idmap.to_host(mappings, wanted) is not None) == covered


@given(maps)
def test_overlaps_finds_what_comparing_every_pair_finds(mappings: list[Mapping]) -> None:
    def share(a: int, b: int, one: int, two: int) -> bool:
        return a < b + two and b < a + one

    slow = any(
        share(one.container, two.container, one.size, two.size) or share(one.host, two.host, one.size, two.size)
        for place, one in enumerate(mappings)
        for two in mappings[place + 1 :]
    )

    assert (idmap.overlaps(mappings) is not None) == slow


@pytest.mark.parametrize(
    "argument",
    ["", "0", "0:1", "0:1:2:3", "0:1:", "a:1:2", "-1:0:1", "+1:0:1", "1_0:0:1", " 0:0:1", "0:0:0", "4294967295:0:1",
     "0:4294967294:2", "0:0:4294967296", "0:0:99999999999999999999", "٣:0:1", "0:0:1\n"],
)  # fmt: skip
def test_an_argument_that_is_no_extent_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        idmap.parse_argument(argument)


@pytest.mark.parametrize(
    ("mappings", "reason"),
    [
        ([], "at least one"),
        ([Mapping(0, 1000, 2), Mapping(1, 5000, 1)], "overlap"),
        ([Mapping(0, 1000, 2), Mapping(5, 1001, 1)], "overlap"),
        ([Mapping(i, 1000 + i, 1) for i in range(341)], "341 extents"),
        ([Mapping(i, 1_000_000_000 + i, 1) for i in range(300)], "page"),
        ([Mapping(0, 0, 0)], "empty"),
        ([Mapping(-1, 0, 1)], "negative"),
    ],
)
def test_a_map_that_the_kernel_would_refuse_is_refused_with_the_reason(mappings: list[Mapping], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        idmap.check(mappings)


def test_the_largest_map_is_accepted() -> None:
    idmap.check([Mapping(0, 0, ID_LIMIT)])
    idmap.check([Mapping(i, i, 1) for i in range(340)])


SUBUID = """\
# a comment
alice:100000:65536
bob:165536:65536
1000:300000:10
alice:400000:1
alice:x:1
alice:500000
alice:5:0
alice:4294967290:65536
:600000:5
"""


@pytest.mark.parametrize(
    ("user", "uid", "ranges"),
    [
        ("alice", 1000, (Range(100000, 65536), Range(300000, 10), Range(400000, 1))),
        ("alice", 1001, (Range(100000, 65536), Range(400000, 1))),
        ("bob", 7, (Range(165536, 65536),)),
        (None, 1000, (Range(300000, 10),)),
        (None, 1, ()),
        ("carol", 1, ()),
    ],
)
def test_a_user_has_the_ranges_under_its_name_and_its_number(
    user: str | None, uid: int, ranges: tuple[Range, ...], tmp_path: Path
) -> None:
    (tmp_path / "subuid").write_text(SUBUID)

    assert idmap.subordinate_ranges(user, uid, str(tmp_path / "subuid")) == ranges


def test_without_a_file_nobody_has_subordinate_ids(tmp_path: Path) -> None:
    assert idmap.subordinate_ranges("alice", 1000, str(tmp_path / "subuid")) == ()


def test_the_own_map_is_read() -> None:
    (first, *_) = idmap.of("self", "uid")

    assert first.size >= 1
