"""The exposure score of a target, explained line by line. The weights are data: profiles/scoring/exposure.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from stockade import profiles
from stockade.audit.report import Evaluation, Exposure, ExposureLine, Finding, Path, Severity
from stockade.errors import StockadeError

_FULL = 100.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares from 0 to 1: of paths by basis and severity, of findings by severity, of conditions by id."""

    path: Mapping[str, Mapping[str, float]]
    finding: Mapping[str, float]
    condition: Mapping[str, float]


@cache
def weights() -> Weights:
    """Read the weights that come with Stockade. Raises StockadeError where the file isn't one of weights."""
    path = profiles.path("scoring", "exposure")
    try:
        read = tomllib.loads(profiles.read("scoring", "exposure").decode())
        tables = {basis: _shares(read["path"][basis], severities=True) for basis in ("measured", "declared")}
        return Weights(tables, _shares(read["finding"], severities=True), _shares(read["condition"], severities=False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StockadeError(f"{path}: no weights: {error}") from None


def _shares(table: Mapping[str, Any], *, severities: bool) -> dict[str, float]:
    shares = {name: float(share) for name, share in table.items()}
    if severities and shares.keys() != {severity.label for severity in Severity}:
        raise ValueError("a share for each severity is needed")
    if not all(0.0 <= share <= 1.0 for share in shares.values()):
        raise ValueError("a share is between 0 and 1")
    return shares


def of(judged: Evaluation, by: Weights | None = None) -> Exposure:
    """Give the score of what was found on a target."""
    scale = by or weights()
    shares = [_of_path(path, scale) for path in judged.paths]
    counted = {rule for path in judged.paths for rule in path.rests_on}
    shares += [_of_finding(finding, scale) for finding in judged.findings if finding.rule not in counted]
    shares = [share for share in shares if share[0] > 0]
    shares.sort(key=lambda share: (-share[0], share[1], share[2]))
    lines: list[ExposureLine] = []
    left = _FULL
    for share, source, reason in shares:
        points = round(left * share, 1)
        if points < 0.1:  # what doesn't move the score isn't worth a line
            break
        left -= points
        lines.append(ExposureLine(points, source, reason))
    return Exposure(round(_FULL - left, 1), tuple(lines))


def _of_path(path: Path, scale: Weights) -> tuple[float, str, str]:
    return scale.path[path.basis][path.severity.label], path.id, f"{path.severity.label} way out, {path.basis}"


def _of_finding(finding: Finding, scale: Weights) -> tuple[float, str, str]:
    named = [(scale.condition[each], each) for each in finding.conditions if each in scale.condition]
    if named:
        share, condition = max(named)
        return share, finding.rule, condition
    return scale.finding[finding.severity.label], finding.rule, f"{finding.severity.label} finding"
