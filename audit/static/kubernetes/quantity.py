"""Quantities of the API: "128Mi", "0.5", "500m", "1e3".

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import math
import re
from fractions import Fraction
from typing import Any

_FORM = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]))?$")
_SUFFIXES: dict[str, Fraction] = {
    **{letter + "i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", 1)},
}


def quantity(value: Any, scale: int = 1) -> int | None:
    """Give a quantity times `scale`, rounded up as the API does; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return math.ceil(value * scale) if math.isfinite(value) else None
    found = _FORM.match(value.strip()) if isinstance(value, str) and len(value) < 40 else None
    if found is None:
        return None
    sign, digits, exponent, suffix = found.groups()
    amount = Fraction(digits.rstrip(".") if not digits.startswith(".") else "0" + digits)
    if exponent is not None:
        amount *= Fraction(10) ** int(exponent)
    amount *= _SUFFIXES.get(suffix or "", Fraction(1)) * scale
    return math.ceil(-amount if sign == "-" else amount)
