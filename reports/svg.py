"""An attack path as a drawing: facts on the left, the step that they make possible, its effect on the right.

The SVG stands in the HTML report itself. It has no script and no style of its own: presentation attributes and the
colour of the text around it are all it needs, so that the report's content security policy holds. Its elements don't
depend on what the texts are.
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from stockade.audit.redact import visible
from stockade.errors import printable

if TYPE_CHECKING:
    from stockade.audit.report import Path

_WIDTH = 760
_LINE = 14
_PAD = 7
_GAP = 10
#: characters of the 11 pixel sans serif font that fit into a pixel, on the safe side
_PER_PIXEL = 1 / 6.2
#: so many facts and so many lines of each are drawn; the list beside the drawing has all
_FACTS = 8
_LINES = 4


class _Box(NamedTuple):
    x: int
    y: int
    width: int
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        return len(self.lines) * _LINE + 2 * _PAD

    @property
    def middle(self) -> int:
        return self.y + self.height // 2


def draw(path: Path) -> str:
    """Give the path as an SVG element, with every text escaped."""
    shown = list(path.evidence[:_FACTS])
    if path.breaks in path.evidence[_FACTS:]:
        shown[-1] = path.breaks
    facts: list[tuple[_Box, bool]] = []
    y = 1
    for line in shown:
        box = _Box(1, y, 330, _wrapped(line, 330))
        facts.append((box, line == path.breaks))
        y += box.height + _GAP
    more = len(path.evidence) - len(shown)
    if more:
        facts.append((box := _Box(1, y, 330, (f"and {more} more",)), False))
        y += box.height + _GAP
    step = _centred(_Box(385, 0, 170, _wrapped(path.title, 170)), y)
    effect = _centred(_Box(_WIDTH - 171, 0, 170, _wrapped(path.effect, 170)), y)
    height = max(y, step.y + step.height + 1, effect.y + effect.height + 1)
    parts = [_arrow(box, step, broken=breaks) for box, breaks in facts]
    parts += [_arrow(step, effect)]
    parts += [_box(box, broken=breaks) for box, breaks in facts]
    parts += [_box(step, round_=True), _box(effect, strong=True)]
    label = escape(printable(visible(f"{len(path.evidence)} facts lead to: {path.title}; the effect: {path.effect}")))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" aria-label="{label}" '
        f'fill="none" stroke="currentColor" font-family="sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


def _wrapped(text: str, width: int) -> tuple[str, ...]:
    lines = textwrap.wrap(printable(visible(text)), int((width - 2 * _PAD) * _PER_PIXEL)) or [""]
    return (*lines[: _LINES - 1], lines[_LINES - 1] + " …") if len(lines) > _LINES else tuple(lines)


def _centred(box: _Box, height: int) -> _Box:
    return box._replace(y=max(1, (height - box.height) // 2))


def _box(box: _Box, *, broken: bool = False, strong: bool = False, round_: bool = False) -> str:
    dash = ' stroke-dasharray="5 3"' if broken else ""
    width = 2 if strong else 1
    radius = 12 if round_ else 3
    lines = "".join(
        f'<text x="{box.x + _PAD}" y="{box.y + _PAD + 10 + number * _LINE}" fill="currentColor" stroke="none" '
        f'direction="ltr">{escape(line)}</text>'
        for number, line in enumerate((*box.lines, "", "", "")[:_LINES])
    )
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="{radius}" '
        f'stroke-width="{width}"{dash}/>{lines}'
    )


def _arrow(start: _Box, end: _Box, *, broken: bool = False) -> str:
    x, y, tip = start.x + start.width, start.middle, end.middle
    dash = ' stroke-dasharray="5 3"' if broken else ""
    half = (x + end.x) // 2
    return (
        f'<path d="M{x} {y} C{half} {y} {half} {tip} {end.x - 6} {tip}"{dash}/>'
        f'<path d="M{end.x - 7} {tip - 4} L{end.x - 1} {tip} L{end.x - 7} {tip + 4}" fill="currentColor"/>'
    )
