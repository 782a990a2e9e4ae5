"""HDR and wide-gamut colours become SDR: transfer functions, primaries, and the roll-off of highlights.

Codes of transfer characteristics, primaries and matrices are those of ITU-T H.273, which video streams, PNG's cICP
chunk and ICC profiles share.
"""

from collections.abc import Callable

import numpy as np

BT709, UNSPECIFIED, BT2020, SRGB = 1, 2, 9, 13
PQ, HLG = 16, 18

# x, y of red, green, blue and white.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    BT709: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
Chromaticities = tuple[tuple[float, float], ...]

SDR_WHITE = 203  # cd/m², the reference white of HDR programmes (ITU-R BT.2408, 5.1)
HLG_PEAK = 1000  # cd/m², the display for which HLG's system gamma is 1.2 (ITU-R BT.2100, table 5)
PEAK = 1000 / SDR_WHITE  # what most programmes are graded to; brighter light shows as white
KNEE = 0.8  # of SDR white: up to here light stays as it is
# Bradford's cone responses, for whites other than D65.
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def is_hdr(transfer: int) -> bool:
    return transfer in (PQ, HLG)


def is_known(transfer: int) -> bool:
    """Whether `linear_light` knows these transfer characteristics; others are reserved or in no use."""
    return is_hdr(transfer) or transfer in _CURVES


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Whether a video must be converted to look right on an SDR screen; other tags differ by less than screens do."""
    return is_hdr(transfer) or primaries in (BT2020, 11, 12)


def to_sdr(
    signal: np.ndarray,  # (…, 3) R'G'B', float, 0 to 1
    transfer: int | float,  # code; a float: the exponent of a pure power law
    primaries: int | Chromaticities,
    target: int = BT709,  # code of the result's transfer characteristics: BT.709, as of SDR video, or sRGB
) -> np.ndarray:
    """What an SDR screen should be sent for it: (…, 3) float, 0 to 1, BT.709 primaries.

    Light up to 0.8 of SDR's white (203 cd/m² in PQ, 75 % of the signal in HLG) keeps its brightness. The brightest
    channel of brighter light is compressed by E. Reinhard's curve ("Photographic Tone Reproduction", 2002), which
    reaches white at 1000 cd/m², and the others with it, so that the hue stays. Colours outside BT.709 are clipped.
    """
    light = linear_light(signal, transfer, primaries)
    light = np.maximum(light @ to_bt709(primaries).T, 0)
    if not isinstance(transfer, float) and is_hdr(transfer):
        light *= _roll_off(light.max(axis=-1, keepdims=True))
    return _CURVES[target][1](np.minimum(light, 1))


def linear_light(signal: np.ndarray, transfer: int | float, primaries: int | Chromaticities) -> np.ndarray:
    """Light relative to SDR white, as a display shows the signal."""
    if isinstance(transfer, float):
        return signal**transfer
    if transfer == PQ:
        return _pq_eotf(signal) / SDR_WHITE
    if transfer == HLG:
        scene = _hlg_inverse_oetf(signal)
        luminance = scene @ _rgb_to_xyz(_chromaticities(primaries))[1]
        return scene * (np.maximum(luminance, 0)[..., None] ** 0.2) * (HLG_PEAK / SDR_WHITE)
    return _CURVES.get(transfer, _CURVES[BT709])[0](signal)


def to_bt709(primaries: int | Chromaticities) -> np.ndarray:
    """(3, 3) linear RGB of these primaries → linear RGB of BT.709, the white adapted by Bradford's method."""
    source, target = _chromaticities(primaries), PRIMARIES[BT709]
    if source == target:
        return np.eye(3)
    whites = [BRADFORD @ _xyz(one[3]) for one in (source, target)]
    adapt = np.linalg.inv(BRADFORD) @ np.diag(whites[1] / whites[0]) @ BRADFORD
    return np.linalg.inv(_rgb_to_xyz(target)) @ adapt @ _rgb_to_xyz(source)


def _chromaticities(primaries: int | Chromaticities) -> Chromaticities:
    return PRIMARIES.get(primaries, PRIMARIES[BT709]) if isinstance(primaries, int) else primaries


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])


def _rgb_to_xyz(chromaticities: Chromaticities) -> np.ndarray:
    columns = np.stack([_xyz(one) for one in chromaticities[:3]], axis=1)
    return columns * np.linalg.solve(columns, _xyz(chromaticities[3]))


def _roll_off(brightest: np.ndarray) -> np.ndarray:
    """The factor for light whose brightest channel is this."""
    over, most = (brightest - KNEE) / (1 - KNEE), (PEAK - KNEE) / (1 - KNEE)
    compressed = KNEE + (1 - KNEE) * over * (1 + over / most**2) / (1 + over)
    return np.where(brightest > KNEE, np.minimum(compressed, 1) / np.maximum(brightest, KNEE), 1)


def _pq_eotf(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, in cd/m²."""
    power = np.clip(signal, 0, 1) ** (32 / 2523)
    return 10000 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def _hlg_inverse_oetf(signal: np.ndarray) -> np.ndarray:
    """ARIB STD-B67: scene light of 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _srgb_to_light(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _light_to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


_Curve = Callable[[np.ndarray], np.ndarray]
# Code → signal to light, and back.
_CURVES: dict[int, tuple[_Curve, _Curve]] = {
    BT709: (lambda signal: signal**2.4, lambda light: light ** (1 / 2.4)),  # the display's: ITU-R BT.1886
    4: (lambda signal: signal**2.2, lambda light: light ** (1 / 2.2)),
    5: (lambda signal: signal**2.8, lambda light: light ** (1 / 2.8)),
    8: (lambda signal: signal, lambda light: light),
    SRGB: (_srgb_to_light, _light_to_srgb),
}
