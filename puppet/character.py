"""Characters as plain data, and their random sampling: proportions, skin, face, hair, clothes."""

from dataclasses import dataclass

import numpy as np

from puppet.palettes import (
    CLOTH_COLOURS,
    EYE_COLOURS,
    HAIR_COLOURS,
    SKIN_COLOURS,
    TROUSER_COLOURS,
    Colour,
)

HAIR_STYLES = ("short", "crop", "spiky", "bob", "long", "wavy", "ponytail", "bun", "pigtails", "afro", "mohawk", "bald")
FRINGES = ("swept", "straight", "parted", "back")
HATS = ("none", "cap", "beanie", "brim", "band")
TOPS = ("tshirt", "long", "tank", "hoodie", "jacket", "dress")
BOTTOMS = ("trousers", "wide", "shorts", "skirt", "overalls")
SHOES = ("sneakers", "boots", "flats")
PATTERNS = ("plain", "stripes", "columns", "checks", "dots", "logo", "blocks")
BEARDS = ("none", "stubble", "moustache", "full")


@dataclass(frozen=True)
class Body:
    """Bone lengths and girths; 1 is the height of a tall adult. Widths are half-widths."""

    head: float  # chin to crown
    neck: float  # shoulder line to chin
    torso: float  # hip line to shoulder line
    shoulder: float  # middle to shoulder joint
    hip: float  # middle to hip joint
    upper_arm: float
    forearm: float
    hand: float  # wrist to tip of the middle finger
    thigh: float
    shin: float
    ankle: float  # ankle above the floor
    foot: float
    arm_girth: float  # radius at the shoulder
    leg_girth: float  # radius of the thigh
    chest: float
    waist: float
    seat: float

    @property
    def height(self) -> float:
        return self.ankle + self.shin + self.thigh + self.torso + self.neck + self.head


@dataclass(frozen=True)
class Face:
    """Facial features, lengths in half the head's height."""

    width: float
    jaw: float  # below 1 square, above 1 pointed
    eye_gap: float
    eye_size: float
    eye_colour: Colour
    brow: float  # thickness
    nose: float
    mouth: float
    lips: Colour
    cheeks: float  # strength of the blush
    freckles: bool
    beard: str
    glasses: bool


@dataclass(frozen=True)
class Hair:
    style: str
    fringe: str
    colour: Colour
    hat: str
    hat_colour: Colour


@dataclass(frozen=True)
class Pattern:
    kind: str
    colour: Colour
    count: int  # repeats over the torso
    logo: int  # which emblem, if kind is "logo"


@dataclass(frozen=True)
class Garment:
    kind: str
    colour: Colour
    pattern: Pattern
    length: float  # 0 short .. 1 long, within the range of its kind
    ease: float  # looseness: added to the limb's radius, as a fraction of it


@dataclass(frozen=True)
class Character:
    seed: int
    body: Body
    skin: Colour
    face: Face
    hair: Hair
    top: Garment
    inner: Colour  # shirt under an open jacket or overalls, trim of a hoodie
    bottom: Garment
    shoe: str
    shoe_colour: Colour
    sole: Colour
    sock_colour: Colour
    sock: float  # height, as a fraction of the shin; 0 for none

    @property
    def wears_skirt(self) -> bool:
        return self.top.kind == "dress" or self.bottom.kind == "skirt"


def _jitter(rng: np.random.Generator, colour: Colour, amount: float = 10) -> Colour:
    return tuple(int(c) for c in np.clip(np.array(colour) + rng.normal(0, amount, 3), 8, 250).round())


def _pick(rng: np.random.Generator, options, weights=None):
    if weights is not None:
        weights = np.array(weights, float) / sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


def _contrast(a: Colour, b: Colour) -> float:
    return float(np.abs(np.subtract(a, b)).sum())


def _contrasting(rng: np.random.Generator, options: tuple[Colour, ...], others: tuple[Colour, ...]) -> Colour:
    """A random colour of `options` with enough contrast to all `others`."""
    far = [c for c in options if min(_contrast(c, other) for other in others) > 110]
    return _jitter(rng, _pick(rng, far or options), 7)


def sample_body(rng: np.random.Generator, young: float, build: float, curve: float) -> Body:
    """Proportions for an age (0 adult, 1 small child), a build (0 slender, 1 stout) and a curve (1: wide hips)."""

    def vary(spread: float = 0.06) -> float:
        return float(np.clip(rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))

    scale = (1 - 0.34 * young) * vary(0.04)
    limb = scale * (1 - 0.10 * young)
    thick = scale * (0.85 + 0.5 * build) * (1 + 0.12 * young)
    shoulder = scale * (0.113 - 0.020 * curve - 0.006 * young) * (0.95 + 0.12 * build) * vary(0.05)
    hip = scale * (0.052 + 0.009 * curve) * (0.96 + 0.14 * build)
    waist = scale * (0.066 + 0.052 * build - 0.012 * curve) * vary(0.04)
    leg_girth = 0.047 * thick * (1 + 0.12 * curve)
    return Body(
        head=0.184 * (1 - 0.13 * young) * vary(0.05),
        neck=0.076 * scale * vary(0.10),
        torso=0.268 * scale * vary(0.05),
        shoulder=shoulder,
        hip=hip,
        upper_arm=0.158 * limb * vary(),
        forearm=0.138 * limb * vary(),
        hand=0.104 * scale * vary(0.05),
        thigh=0.232 * limb * vary(),
        shin=0.220 * limb * vary(),
        ankle=0.042 * scale,
        foot=0.120 * scale * vary(0.05),
        arm_girth=0.0315 * thick * (1 - 0.12 * curve),
        leg_girth=leg_girth,
        chest=max(waist * 1.02, shoulder * (0.86 + 0.06 * build)),
        waist=waist,
        seat=max(hip + leg_girth * 0.98, waist * 1.02),
    )


def sample_face(rng: np.random.Generator, skin: Colour, young: float, curve: float) -> Face:
    beardless = young > 0.15 or curve > 0.5
    return Face(
        width=float(rng.uniform(0.74, 0.86) + 0.05 * young),
        jaw=float(rng.uniform(0.84, 1.02) + 0.10 * curve),
        eye_gap=float(rng.uniform(0.31, 0.37)),
        eye_size=float(rng.uniform(0.92, 1.15) + 0.15 * young + 0.08 * curve),
        eye_colour=_pick(rng, EYE_COLOURS, (5, 4, 2, 2, 1)),
        brow=float(rng.uniform(0.028, 0.055) * (1.15 - 0.3 * curve)),
        nose=float(rng.uniform(0.10, 0.16) * (1 - 0.25 * young)),
        mouth=float(rng.uniform(0.24, 0.32)),
        lips=tuple(int(c) for c in np.clip(np.array(skin) * (0.84, 0.56, 0.56) + (26 * curve, 0, 6 * curve), 0, 255)),
        cheeks=float(rng.uniform(0.15, 0.7)),
        freckles=bool(rng.random() < 0.12),
        beard="none" if beardless else _pick(rng, BEARDS, (6, 2, 1.5, 2)),
        glasses=bool(rng.random() < 0.16),
    )


def sample_hair(rng: np.random.Generator, skin: Colour, curve: float) -> Hair:
    longer = (1, 0.4, 0.5, 3, 4, 4, 4, 3, 2, 1.6, 0.1, 0.1)
    shorter = (5, 3, 3, 0.5, 0.6, 0.5, 0.5, 0.4, 0.05, 1.6, 0.8, 1.6)
    style = _pick(rng, HAIR_STYLES, longer if curve > 0.5 else shorter)
    natural = (5, 4, 4, 3, 2, 2, 1, 1, 1, 0.7, 0.5, 0.4, 0.4, 0.3, 0.4)
    colour = _pick(rng, HAIR_COLOURS, natural)
    while _contrast(colour, skin) < 90:
        colour = _pick(rng, HAIR_COLOURS, natural)
    hat = "none" if style in ("afro", "mohawk", "bun") else _pick(rng, HATS, (10, 1.3, 1.2, 1.0, 0.8))
    hat_colour = _contrasting(rng, CLOTH_COLOURS, (colour, skin))
    return Hair(style, _pick(rng, FRINGES), _jitter(rng, colour, 5), hat, hat_colour)


def sample_pattern(rng: np.random.Generator, base: Colour, weights) -> Pattern:
    colour = _contrasting(rng, CLOTH_COLOURS, (base,))
    return Pattern(_pick(rng, PATTERNS, weights), colour, int(rng.integers(4, 8)), int(rng.integers(0, 4)))


def sample_clothes(rng: np.random.Generator, skin: Colour, curve: float) -> dict:
    """The clothing fields of a Character; a high curve makes dresses and skirts more frequent."""
    top_kind = _pick(rng, TOPS, (5, 4, 2, 2, 2, 4.5 * curve))
    bottom_kind = _pick(rng, BOTTOMS, (5, 2, 3, 5 * curve, 1.6))
    if bottom_kind == "overalls" and top_kind not in ("tshirt", "long"):
        bottom_kind = "trousers"
    top_colour = _contrasting(rng, CLOTH_COLOURS, (skin,))
    bottom_colour = _contrasting(rng, TROUSER_COLOURS, (top_colour, skin))
    top_pattern = sample_pattern(rng, top_colour, (5, 2.6, 1, 1.4, 1.6, 2.4, 1.2))
    bottom_pattern = sample_pattern(rng, bottom_colour, (9, 0.3, 1, 1.3, 0.6, 0, 0))
    sock = float(_pick(rng, (0.0, 0.14, 0.3, 0.62), (2, 4, 2, 1)))
    shoe = _pick(rng, SHOES, (6, 2, 2 + 2 * curve))
    return dict(
        top=Garment(top_kind, top_colour, top_pattern, float(rng.random()), float(rng.uniform(0.12, 0.3))),
        inner=_contrasting(rng, CLOTH_COLOURS, (top_colour, skin)),
        bottom=Garment(bottom_kind, bottom_colour, bottom_pattern, float(rng.random()), float(rng.uniform(0.1, 0.3))),
        shoe=shoe,
        shoe_colour=_contrasting(rng, CLOTH_COLOURS, (bottom_colour, skin)),
        sole=_pick(rng, ((246, 244, 238), (60, 58, 60), (222, 202, 170)), (4, 2, 1)),
        sock_colour=_contrasting(rng, CLOTH_COLOURS, (skin,)),
        sock=sock,
    )


def sample_character(rng: np.random.Generator, seed: int) -> Character:
    """A random character; every random choice comes from `rng`, `seed` is only stored."""
    young = float(rng.choice([0.0, rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.0)], p=[0.66, 0.18, 0.16]))
    build = float(np.clip(rng.beta(1.6, 2.4), 0, 1))
    curve = float(np.clip(rng.choice([rng.uniform(0, 0.35), rng.uniform(0.6, 1.0)]), 0, 1))
    shade = rng.uniform(0.96, 1.04)
    skin = tuple(min(255, round(c * shade)) for c in _pick(rng, SKIN_COLOURS))
    return Character(
        seed=seed,
        body=sample_body(rng, young, build, curve * (1 - 0.6 * young)),
        skin=skin,
        face=sample_face(rng, skin, young, curve),
        hair=sample_hair(rng, skin, curve),
        **sample_clothes(rng, skin, curve),
    )
