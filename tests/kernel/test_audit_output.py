"""--output in a directory of everybody's, where another user waits for root with a link."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stockade import output
from stockade.errors import StockadeError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

STRANGER = 54321


def linked(directory: Path, owner: int) -> tuple[str, Path]:
    """Make a directory like /tmp with a link of somebody's in it; give the link and the file it leads to."""
    victim = directory / "victim"
    public = directory / "public"
    public.mkdir()
    public.chmod(0o1777)
    link = str(public / "report.html")
    os.symlink(victim, link)
    os.lchown(link, owner, owner)
    return link, victim


@pytest.mark.parametrize("exists", [True, False])
def test_a_strangers_link_leads_root_nowhere(tmp_path: Path, *, exists: bool) -> None:
    link, victim = linked(tmp_path, STRANGER)
    if exists:
        victim.write_text("precious")

    with pytest.raises(StockadeError, match=f"link of user {STRANGER}"):
        output.check(link)
    with pytest.raises(StockadeError, match=f"link of user {STRANGER}"):
        output.write("text", link)

    assert not victim.exists() or victim.read_text() == "precious"


def test_a_link_of_ones_own_is_followed_there(tmp_path: Path) -> None:
    link, victim = linked(tmp_path, os.geteuid())

    output.write("text", link)

    assert victim.read_text() == "text"
