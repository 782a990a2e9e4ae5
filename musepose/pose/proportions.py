"""The most probable limb lengths of the person in one picture, from what is seen and what is known of bodies.

A limb in a picture is as long as it is, or foreshortened. Which of the two cannot be seen in one picture, so every
limb's length is the mean of a posterior. Lengths are base-2 logarithms of picture heights.

    length = size + proportion + deviation
    seen   = length + error, or length - foreshortening + error, or wrong

The person is one of three kinds: built as the dancer is, a human being, or anything (a child, a cartoon). Both sides
that agree in a figure that stands frontal are no coincidence: there what is seen is believed, however odd.
"""

from dataclasses import dataclass

import numpy as np

from musepose.pose.measure import LIMB_OF_ROW, LIMBS, ROWS, Dance


@dataclass(frozen=True)
class Limb:
    """What is known of a limb before a picture is seen; log2."""

    length: float  # in the mean over people, relative to the other limbs
    spread: float  # standard deviation over people
    in_full: float  # share of pictures that show it in full
    foreshortening: float  # mean, where not in full
    error: float = 0.045  # standard deviation of a detector's


# Lengths and spreads: the 90th percentiles over the videos of eight dancers, found by MediaPipe's BlazePose.
KNOWN = {
    "neck": Limb(-0.48, 0.12, 0.6, 0.12, error=0.07),
    "face": Limb(-1.02, 0.12, 0.5, 0.3),
    "shoulders": Limb(0.14, 0.09, 0.5, 0.3),
    "upper arms": Limb(-0.07, 0.06, 0.5, 0.25),
    "lower arms": Limb(-0.20, 0.08, 0.4, 0.35),
    "trunk": Limb(0.85, 0.09, 0.8, 0.1),
    "hips": Limb(-0.56, 0.11, 0.5, 0.3),
    "upper legs": Limb(0.62, 0.08, 0.7, 0.3),
    "lower legs": Limb(0.48, 0.09, 0.7, 0.3),
}
_LENGTHS, _SPREADS = (np.array([getattr(KNOWN[limb], name) for limb in LIMBS]) for name in ("length", "spread"))

_FRONTAL_IN_FULL = 0.99  # share of limbs in full in a figure that stands frontal
_FRONTAL_ERROR = {"neck": 0.04}  # there joints are found better, too
_FRONTAL_ERROR_OTHERS = 0.025
_TURNED = 0.25  # share of figures turned to a side, all of whose widths are foreshortened, of those not frontal
_WIDTHS, _TURNED_IN_FULL, _TURNED_FORESHORTENING = ("face", "shoulders", "hips"), 0.1, 0.8
_WRONG, _WRONG_SPREAD = 0.02, 0.5  # share of limbs that are found wrongly, and by how much
_FRONTAL_WRONG = 0.001

_DEPTH_ERROR = 0.5  # of a foreshortening that depth tells: it leans towards an average body

_SAME = 0.3  # share of persons built as the dancer
_SAME_SPREAD = 0.04
_ODD, _FRONTAL_ODD = 0.01, 0.1  # share of those who may have any proportions
_ODD_SPREAD, _ODDEST_SPREAD, _ODDEST = 0.4, 1.0, 0.2
_ODD_DANCER_SPREAD = 0.24
_ODD_LIMB, _FRONTAL_ODD_LIMB, _ODD_LIMB_SPREAD = 0.02, 0.15, 0.5  # one odd limb of somebody built as others are

_STEP = 0.02
_SIZES = _STEP * np.arange(-50, 51)  # about the median of what is seen
_DEVIATIONS = _STEP * np.arange(-120, 121)
_LENGTHS_TRIED = _STEP * np.arange(-170, 171)


def probable_lengths(
    seen: np.ndarray,  # (13,) log2 lengths of SEGMENTS, NaN where not visible
    dance: Dance,
    frontality: float,  # 0 to 1
    foreshortening: np.ndarray | None = None,  # (13,) log2, 0 or more, from depth; see measure.foreshortenings
) -> np.ndarray:  # (9,) of LIMBS
    """Mean of the posterior of each limb's length. At least one segment must be visible."""
    if foreshortening is None:
        foreshortening = np.zeros(len(seen))
    kinds = _kinds_of_bodies(dance.typical, frontality)
    middle = kinds[-1][1]
    base = np.nanmedian(seen - middle[LIMB_OF_ROW])
    turned = _TURNED * (1 - frontality)
    turns = np.log([max(1 - turned, 1e-9), max(turned, 1e-9)])
    shares = np.log([share for share, *_ in kinds])
    odds = (shares[:, None] + turns)[..., None] + np.zeros(len(_SIZES))  # of each kind, turn and size
    means = np.empty((len(LIMBS), *odds.shape))
    for number, limb in enumerate(LIMBS):
        lengths, rows = base + middle[number] + _LENGTHS_TRIED, ROWS[limb]
        for turn in range(2):
            likelihood = _likelihood(lengths, seen[rows], foreshortening[rows], limb, frontality, bool(turn))
            for kind, (_, proportions, spreads, tail, tail_spread) in enumerate(kinds):
                offsets = _DEVIATIONS - (proportions[number] - middle[number])
                prior = (1 - tail) * _normal(offsets, spreads[number]) + tail * _normal(offsets, tail_spread)
                evidence = np.maximum(np.correlate(likelihood, prior, "valid"), 1e-300)
                odds[kind, turn] += np.log(evidence)
                means[number, kind, turn] = np.correlate(likelihood * lengths, prior, "valid") / evidence
    odds = np.exp(odds - odds.max())
    return np.einsum("lkts,kts->l", means, odds / odds.sum())


def _kinds_of_bodies(
    typical: np.ndarray, frontality: float
) -> list[tuple[float, np.ndarray, np.ndarray, float, float]]:
    """Share, proportions, spreads, share of odd limbs and their spread of: the dancer's like, humans, others.

    Humans' proportions lie between the mean and the dancer's, who shows what the detector makes of a body. An odd
    dancer dances in an odd world.
    """
    known = ~np.isnan(typical)
    dancer = typical - (np.median((typical - _LENGTHS)[known]) if known.any() else 0)
    odd = (dancer - _LENGTHS)[known]
    spreads = 1.2 * _SPREADS[known]
    as_human = np.log(0.95 * _normal(odd, spreads) + 0.05 * _normal(odd, _ODD_SPREAD)).sum()
    as_other = np.log(_normal(odd, np.hypot(_ODD_DANCER_SPREAD, spreads))).sum()
    shares = np.array([1 - _SAME, 0]) + (_ODD + (_FRONTAL_ODD - _ODD) * frontality) * np.array([-1, 1])
    shares = shares * np.exp(np.array([as_human, as_other]) - max(as_human, as_other))
    shares *= (1 - _SAME) / shares.sum()
    tail = _ODD_LIMB + (_FRONTAL_ODD_LIMB - _ODD_LIMB) * frontality
    middle = np.where(known, (dancer + _LENGTHS) / 2, _LENGTHS)
    return [
        (_SAME, np.where(known, dancer, _LENGTHS), np.where(known, _SAME_SPREAD, _SPREADS), tail, _ODD_LIMB_SPREAD),
        (shares[0], middle, _SPREADS, tail, _ODD_LIMB_SPREAD),
        (max(shares[1], 1e-300), middle, np.full(len(LIMBS), _ODD_SPREAD), _ODDEST, _ODDEST_SPREAD),
    ]


def _likelihood(
    lengths: np.ndarray, seen: np.ndarray, foreshortening: np.ndarray, limb: str, frontality: float, turned: bool
) -> np.ndarray:
    """Of what is seen of a limb's sides, for each of `lengths`."""

    def between(usual: float, frontal: float) -> float:
        return usual + (frontal - usual) * frontality

    known = KNOWN[limb]
    error = between(known.error, _FRONTAL_ERROR.get(limb, _FRONTAL_ERROR_OTHERS))
    in_full, wrong = between(known.in_full, _FRONTAL_IN_FULL), between(_WRONG, _FRONTAL_WRONG)
    usually_short = known.foreshortening
    if turned and limb in _WIDTHS:
        in_full, usually_short = _TURNED_IN_FULL, _TURNED_FORESHORTENING
    likelihood = np.ones_like(lengths)
    for length, known_short in zip(seen, foreshortening, strict=True):
        if np.isnan(length):
            continue
        short, unsure = lengths - length, np.hypot(error, _DEPTH_ERROR * known_short)
        likelihood *= (
            in_full * _normal(short - known_short, unsure)
            + (1 - in_full) * _normal_and_exponential(short - known_short / 2, unsure, usually_short)
            + wrong * _normal(short, _WRONG_SPREAD)
        )
    return likelihood


def _normal(x: np.ndarray, spread: float | np.ndarray) -> np.ndarray:
    return np.exp(-((x / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))


def _normal_and_exponential(x: np.ndarray, spread: float, mean: float) -> np.ndarray:
    """Density of the sum of a normal and an exponential variable (the exponentially modified Gaussian)."""
    from scipy.special import erfcx  # here, as it takes a quarter of a second to import

    z = (spread / mean - x / spread) / np.sqrt(2)
    near = np.exp(-((x / spread) ** 2) / 2) * erfcx(np.maximum(z, -5))
    far = 2 * np.exp(np.minimum(spread**2 / (2 * mean**2) - x / mean, 0))  # erfcx would overflow
    return np.where(z > -5, near, far) / (2 * mean)
