"""Limb scales that are given by hand, `upper_arms=0.9,lower_legs=1.1`, instead of those that alignment finds."""

import math
from collections.abc import Mapping, Sequence

from musepose.utils.errors import UserError

NONE = "none"
SMALLEST, LARGEST = 0.05, 20.0
EXAMPLE = "give limbs and factors, such as upper_arms=0.9,lower_legs=1.1"


def parse_limb_scale(
    text: str | None,
    limbs: Sequence[str],  # whose scales there are
    origin: str = "--limb_scale",
) -> dict[str, float]:
    """Limb -> factor from the dance's length to the aligned one. Raises UserError that names `origin`."""
    found: dict[str, float] = {}
    for part in text.split(",") if text and text != NONE else ():
        name, _, value = part.partition("=")
        limb = name.strip().replace("_", " ")
        if limb not in limbs:
            names = ", ".join(one.replace(" ", "_") for one in limbs)
            raise UserError(f"{origin} has {part.strip() or 'an empty part'}: {EXAMPLE}; the limbs are {names}")
        if limb in found:
            raise UserError(f"{origin} has {name.strip()} twice: leave one out")
        try:
            found[limb] = float(value)
        except ValueError:
            found[limb] = math.nan
        if not SMALLEST <= found[limb] <= LARGEST:
            raise UserError(f"{origin} has {part.strip()}: give a factor of {SMALLEST} to {LARGEST:.0f}")
    return found


def format_limb_scale(scales: Mapping[str, float]) -> str:
    """The text that `parse_limb_scale` reads."""
    return ",".join(f"{limb.replace(' ', '_')}={scale!r}" for limb, scale in scales.items())


def override(scales: Mapping[str, float], given: Mapping[str, float]) -> dict[str, float]:
    """The scales with those given by hand; hands that are not given change as their arms do."""
    changed = {**scales, **given}
    if "hands" not in given:
        for limb in given.keys() & {"upper arms", "lower arms"}:
            changed["hands"] *= (given[limb] / scales[limb]) ** 0.5
    return changed
