"""HDR signals for tests, by the inverse of the formulas in media/tone_mapping.py."""

import numpy as np

from musepose.media.tone_mapping import BT709, BT2020, PQ, to_bt709


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def scene(width: int = 96, height: int = 64) -> np.ndarray:
    """Gradients of many hues, from black to white."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x / (width - 1), y / (height - 1)
    return np.rint(255 * np.stack([x, y, (1 - x) * (1 - y) + x * y], axis=-1)).astype(np.uint8)


def to_hdr(rgb: np.ndarray, transfer: int, curve: int = BT709) -> np.ndarray:
    """An SDR picture in an HDR programme, its white at 203 cd/m²: R'G'B' of BT.2020, by the inverse formulas."""
    v = rgb / 255
    light = v**2.4 if curve == BT709 else np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    light = light @ np.linalg.inv(to_bt709(BT2020)).T * 203
    if transfer == PQ:
        power = (np.clip(light, 0, 10000) / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    display = np.clip(light, 0, 1000) / 1000
    luminance = np.maximum(display @ (0.2627, 0.6780, 0.0593), 1e-9)[..., None]
    signal = np.clip(display * luminance ** (1 / 1.2 - 1), 0, 1)
    bright = 0.17883277 * np.log(np.maximum(12 * signal, 1) - 0.28466892) + 0.55991073
    return np.where(signal <= 1 / 12, np.sqrt(3 * signal), bright)
