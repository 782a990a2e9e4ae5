"""Dances: joint angles over time, as arm poses and steps on the beat plus periodic components."""

from dataclasses import dataclass, fields

import numpy as np

# An arm pose: upper arm raised sideways (0 hanging, 180 overhead) and towards the camera, forearm bend relative to it
# (positive: upwards) and towards the camera, hand roll (0: palm to the camera when raised), wrist bend; degrees. Then
# curl and spread of the fingers, 0..1.
ARM_POSES = {
    "down": (19, 4, -7, 12, 148, 0, 0.16, 0.4),
    "low": (42, 0, 12, 0, 75, -12, 0.05, 0.9),
    "side": (86, 0, 4, 0, 30, 6, 0.05, 0.8),
    "slope": (128, 0, 4, 0, 14, 4, 0.05, 0.9),
    "high": (154, -4, 12, 0, 4, 0, 0.04, 1.0),
    "arch": (138, 4, 58, 8, 20, 10, 0.10, 0.5),
    "goalpost": (84, 0, 84, 0, 4, 0, 0.06, 1.0),
    "scarecrow": (80, 6, -72, 10, 96, 0, 0.25, 0.5),
    "hips": (44, -8, -98, 6, 150, 24, 0.45, 0.3),
    "cross": (30, 24, -124, 34, 60, 0, 0.10, 0.6),
    "clap": (38, 30, -142, 40, 40, 0, 0.05, 0.2),
    "head": (98, -4, 122, 4, 20, 8, 0.20, 0.6),
    "reach": (66, 44, 6, 50, 40, 0, 0.08, 0.9),
    "fist": (50, 20, 92, 24, 60, 0, 0.95, 0.1),
    "point": (136, 0, 0, 0, 30, 0, 0.85, 0.2),
}
# Combinations of arm poses (left, right); each may be mirrored.
ARM_PAIRS = (
    ("down", "down"),
    ("low", "low"),
    ("side", "side"),
    ("slope", "low"),
    ("high", "high"),
    ("high", "hips"),
    ("arch", "arch"),
    ("goalpost", "goalpost"),
    ("goalpost", "scarecrow"),
    ("hips", "hips"),
    ("cross", "cross"),
    ("clap", "clap"),
    ("head", "side"),
    ("head", "hips"),
    ("reach", "low"),
    ("fist", "fist"),
    ("point", "hips"),
    ("slope", "slope"),
    ("side", "goalpost"),
)
# Foot positions on each of four beats, in steps to the image's right of the neutral stance, and the lift of the foot on
# its way. One row: left foot, right foot, left lift, right lift.
STEPS = {
    "planted": ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    "touch": ((0, 1, 1, 1), (0, 0, 1, 0), (0.5, 0, 0, 0.5), (0, 0.5, 0.5, 0)),
    "tap": ((0, 1, 0, 0), (0, 0, 0, -1), (0.5, 0.5, 0, 0), (0, 0, 0.5, 0.5)),
    "march": ((0, 0, 0, 0), (0, 0, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1)),
    "open": ((0, 1, 1, 0), (0, 0, -1, -1), (0.4, 0, 0.4, 0), (0, 0.4, 0, 0.4)),
    "kick": ((0, 0.7, 0, 0), (0, 0, 0, -0.7), (1.2, 0.5, 0, 0), (0, 0, 1.2, 0.5)),
}


@dataclass(frozen=True)
class Stance:
    """The pose of a figure at one moment. Angles in radians; first axis of pairs: left, right; lengths as in Body."""

    arms: np.ndarray  # (2, 6) raise, forward, bend, forearm forward, hand roll, wrist
    fingers: np.ndarray  # (2, 2) curl, spread
    feet: np.ndarray  # (2, 2) x to the image's right and lift, in units of the shin
    toes: np.ndarray  # (2,) turned outwards
    pelvis: np.ndarray  # (5,) x, dip (both in units of the shin), yaw, roll, pitch
    chest: np.ndarray  # (3,) yaw, roll, pitch
    head: np.ndarray  # (3,) yaw, roll, pitch
    face: np.ndarray  # (5,) smile -1..1, mouth open 0..1, brows -1..1, eyes closed 0..1, gaze -1..1
    swing: float = 0.0  # of hair and skirt, to the image's right

    def mix(self, other: "Stance", amount: float) -> "Stance":
        """Linear interpolation to `other`; `amount` 0 is this stance, 1 the other."""
        return Stance(
            **{f.name: (1 - amount) * getattr(self, f.name) + amount * getattr(other, f.name) for f in fields(self)}
        )


def arm_pose(name: str) -> np.ndarray:
    """A row of ARM_POSES, (8,), angles in radians."""
    row = np.array(ARM_POSES[name], float)
    row[:6] = np.deg2rad(row[:6])
    return row


def neutral_stance(width: float = 0.36, turn: float = 0.0) -> Stance:
    """Standing upright with hanging arms, feet `width` shins apart, turned by `turn` radians to the image's right."""
    arm = np.stack([arm_pose("down")] * 2)
    return Stance(
        arms=arm[:, :6],
        fingers=arm[:, 6:],
        feet=np.array([[width / 2, 0.0], [-width / 2, 0.0]]),
        toes=np.full(2, np.deg2rad(34)),
        pelvis=np.array([0, 0.0, turn, 0, 0]),
        chest=np.array([turn, 0, 0]),
        head=np.array([turn, 0, 0]),
        face=np.array([0.55, 0, 0, 0, 0]),
    )


def ease(x: float) -> float:
    """From 0 to 1 with minimal jerk (Flash & Hogan 1985)."""
    x = min(max(x, 0.0), 1.0)
    return x * x * x * (10 + x * (6 * x - 15))


@dataclass(frozen=True)
class Dance:
    """A motion: `at(seconds)` gives the stance. Starts from a neutral stance and is periodic after the first second."""

    seed: int
    tempo: float  # beats a minute
    arm_keys: np.ndarray  # (keys, 2, 8) arm poses, one every two beats
    hold: float  # fraction of two beats for which an arm pose is held
    arm_wave: np.ndarray  # (2, 6, 3) amplitude, beats a period, phase of each arm angle
    steps: np.ndarray  # (beats, 2, 2) foot x and lift on the way to the next beat
    stance_width: float
    # (9, 3) amplitude, beats a period, phase: pelvis x, yaw, roll; chest yaw, roll; head yaw, roll, pitch; turn
    sway: np.ndarray
    bounce: float  # of the pelvis, in shins
    mouth: np.ndarray  # (4,) smile, opening, its beats a period, brows

    def at(self, time: float) -> Stance:
        """The stance `time` seconds after the start."""
        beat = max(time, 0.0) * self.tempo / 60
        start = neutral_stance(self.stance_width)
        return start.mix(self._full(beat), ease(time / 0.9)) if time < 0.9 else self._full(beat)

    def _arms(self, beat: float) -> np.ndarray:
        """Arm angles and fingers, (2, 8)."""
        slot, part = divmod(beat / 2, 1)
        now, then = (self.arm_keys[int(slot + k) % len(self.arm_keys)] for k in (0, 1))
        pose = now + (then - now) * ease((part - self.hold) / (1 - self.hold))
        wave = self.arm_wave
        pose[:, :6] += wave[..., 0] * np.sin(2 * np.pi * (beat / wave[..., 1] + wave[..., 2]))
        return pose

    def _feet(self, beat: float) -> np.ndarray:
        """Foot x and lift, (2, 2), in units of the shin."""
        slot, part = divmod(beat, 1)
        now, then = (self.steps[int(slot + k) % len(self.steps)] for k in (0, 1))
        moved = ease((part - 0.15) / 0.7)
        x = now[:, 0] + (then[:, 0] - now[:, 0]) * moved
        lift = now[:, 1] * np.sin(np.pi * moved) ** 2
        return np.stack([x + self.stance_width * np.array([0.5, -0.5]), lift], 1)

    def _full(self, beat: float) -> Stance:
        arms, feet = self._arms(beat), self._feet(beat)
        wave = self.sway[:, 0] * np.sin(2 * np.pi * (beat / self.sway[:, 1] + self.sway[:, 2]))
        turn = wave[8]
        weight = 0.9 * (feet[1, 1] - feet[0, 1])  # over the foot that stays on the floor
        dip = self.bounce * (0.5 - 0.5 * np.cos(2 * np.pi * beat))
        smile, opening, period, brows = self.mouth
        mouth = opening * (0.5 - 0.5 * np.cos(2 * np.pi * beat / period)) ** 2
        blink = np.exp(-(((beat % 5.3) - 2.6) ** 2) / 0.012)
        return Stance(
            arms=arms[:, :6],
            fingers=np.clip(arms[:, 6:], 0, 1),
            feet=feet,
            toes=np.full(2, np.deg2rad(34)),
            pelvis=np.array([feet[:, 0].mean() + 0.5 * weight + wave[0], dip, turn + wave[1], wave[2], 0.0]),
            chest=np.array([turn + wave[3], wave[4], 0.03 * np.sin(2 * np.pi * beat)]),
            head=np.array([0.8 * turn + wave[5], wave[6] + 0.3 * wave[4], wave[7]]),
            face=np.array([smile, mouth, brows * np.sin(2 * np.pi * beat / 8), blink, np.sin(2 * np.pi * beat / 11)]),
            swing=float(wave[0] * -1.5 + 0.25 * wave[6] - 0.4 * wave[4]),
        )


def _mirrored(pair: np.ndarray, flip: bool) -> np.ndarray:
    return pair[::-1] if flip else pair


def sample_steps(rng: np.random.Generator) -> np.ndarray:
    """Sixteen beats of steps that start and end in the neutral position, (beats, 2, 2) foot x and lift."""
    names = list(STEPS)
    first, second = (names[int(rng.choice(len(names), p=(0.2, 0.22, 0.18, 0.16, 0.12, 0.12)))] for _ in range(2))
    width, height = rng.uniform(0.3, 0.55), rng.uniform(0.22, 0.42)
    bars = []
    for name, flip in ((first, rng.random() < 0.5), (second, rng.random() < 0.5)):
        table = np.array(STEPS[name], float)  # (left x, right x, left lift, right lift) x 4 beats
        x, lift = table[:2] * width, table[2:] * height
        if flip:
            x, lift = -x[::-1], lift[::-1]
        bars += [np.stack([x, lift], -1).transpose(1, 0, 2)] * 2
    return np.concatenate(bars)


def sample_dance(rng: np.random.Generator, seed: int) -> Dance:
    """A random dance; every random choice comes from `rng`, `seed` is only stored."""
    energy = rng.uniform(0.55, 1.0)
    keys = [np.stack([arm_pose("down")] * 2)]
    for choice in rng.permutation(len(ARM_PAIRS))[: int(rng.integers(5, 9))]:
        pair = np.stack([arm_pose(name) for name in ARM_PAIRS[choice]])
        keys.append(_mirrored(pair, rng.random() < 0.5))
    noise = rng.normal(0, np.deg2rad(4), (len(keys), 2, 6))
    arm_keys = np.stack(keys)
    arm_keys[1:, :, :6] += noise[1:]

    periods = np.array([1.0, 2.0, 4.0])
    arm_wave = np.stack(
        [
            np.deg2rad([7, 3, 9, 4, 6, 12]) * energy * rng.uniform(0.2, 1, (2, 6)),
            rng.choice(periods[1:], (2, 6)),
            rng.random((2, 6)),
        ],
        -1,
    )
    # pelvis x (shins), pelvis yaw, pelvis roll, chest yaw, chest roll, head yaw, head roll, head pitch, whole-body turn
    limits = np.array([0.10, *np.deg2rad([8, 7, 12, 7, 16, 9, 7, 22])])
    sway = np.stack(
        [
            limits * energy * rng.uniform(0.25, 1, 9),
            [2, 4, 2, 4, 4, 8, 4, rng.choice([1, 2]), 16],
            rng.random(9),
        ],
        -1,
    )
    return Dance(
        seed=seed,
        tempo=float(rng.uniform(88, 128)),
        arm_keys=arm_keys,
        hold=float(rng.uniform(0.1, 0.35)),
        arm_wave=arm_wave,
        steps=sample_steps(rng),
        stance_width=float(rng.uniform(0.34, 0.62)),
        sway=sway,
        bounce=float(rng.uniform(0.02, 0.11) * energy),
        mouth=np.array([rng.uniform(0.1, 1.0), rng.uniform(0, 0.8), rng.choice([2, 4, 8]), rng.uniform(0, 0.8)]),
    )
