"""Trunk and neck, and their clothes: shirts, jackets, bibs, trouser tops, skirts."""

import numpy as np

from puppet.paint import spline
from puppet.palettes import tint
from puppet.patterns import Strip
from puppet.sketch import Sketch, line_colour


def paint_seat(sketch: Sketch) -> None:
    """Paint the top of trousers."""
    canvas, skeleton, character = sketch.canvas, sketch.skeleton, sketch.character
    bottom, unit = character.bottom, sketch.unit
    if character.wears_skirt:
        return
    strip = sketch.trunk(0.74, 1.14, 1.02 + 0.2 * bottom.ease, rows=6)
    plain = bottom.pattern.kind == "plain"
    sketch.paint_strip(strip, bottom.colour, outlined=plain)
    if not plain:
        for edge in (strip.centre - strip.half, strip.centre + strip.half):
            canvas.curve(edge, line_colour(bottom.colour), 2 * canvas.line)
        sketch.paint_pattern(strip, bottom, repeats=0.35)
    girth = sketch.body.leg_girth * unit * (1 + 0.5 * bottom.ease)
    for side in (0, 1) if plain else ():  # no line where the legs begin
        hip, knee = sketch.project(skeleton.hips[side]), sketch.project(skeleton.knees[side])
        canvas.patch(np.stack([hip, hip + 0.2 * (knee - hip)]), [0.93 * girth, 0.93 * girth], bottom.colour)
    middle = strip.at(np.array([[0.0, 0.55], [0.0, 0.8], [0.0, 1.05]]))
    canvas.curve(middle, line_colour(bottom.colour), 0.7 * canvas.line)
    for u in (-0.62, 0.62):  # pockets
        pocket = strip.at(np.array([[u, 0.25], [u * 1.15, 0.45], [u * 1.5, 0.6]]))
        canvas.curve(pocket, line_colour(bottom.colour), 0.6 * canvas.line)


def skirt_strip(sketch: Sketch, top: float, length: float, flare: float) -> Strip:
    """A skirt's strip from the waist to the hem; the hem encloses both legs and lags behind the hips."""
    body, skeleton, unit = sketch.body, sketch.skeleton, sketch.unit
    upper = sketch.trunk(top, 1.02, 1.04, rows=5)
    joints = np.stack([skeleton.hips, skeleton.knees, skeleton.ankles])  # (3, 2, 3)
    bone = min(int(length), 1)
    legs = sketch.project(joints[bone] + (length - bone) * (joints[bone + 1] - joints[bone]))
    swing = sketch.stance.swing * 0.10 * unit * length
    half = 0.5 * abs(legs[0, 0] - legs[1, 0]) + (1.10 + flare) * body.leg_girth * unit
    middle = np.array([legs[:, 0].mean() + swing, legs[:, 1].mean()])
    tilt = 0.3 * (legs[0, 1] - legs[1, 1])
    t = np.linspace(0.3, 1, 4)[:, None]
    centre = upper.centre[-1] + t * (middle - upper.centre[-1]) + (t - t**2) * (-0.4 * swing, 0)
    sides = upper.half[-1] * (1 - t) + t * np.array([half, tilt])
    rows = np.concatenate([np.linspace(0, 0.4, 5), np.linspace(0.58, 1, 4)])
    return Strip(np.concatenate([upper.centre, centre]), np.concatenate([upper.half, sides]), rows, 0.6 * sketch.turn)


def paint_skirt(sketch: Sketch) -> None:
    """Paint a skirt, or the lower part of a dress, with folds and a wavy hem."""
    character, canvas, unit = sketch.character, sketch.canvas, sketch.unit
    dress = character.top.kind == "dress"
    garment = character.top if dress else character.bottom
    length = (0.55 + 0.75 * garment.length) if dress else (0.45 + 0.85 * garment.length)
    strip = skirt_strip(sketch, 0.60 if dress else 0.70, length, 0.25 + 2.2 * garment.ease)
    sketch.paint_strip(strip, garment.colour)
    u = np.linspace(-1, 1, 25)
    phase = 6 * sketch.stance.swing
    wave = 1.0 + 0.022 * np.cos(np.pi * (3.5 * u) + phase) + 0.035 * (1 - u**2)
    hem = strip.centre[-1] + np.sin(u * np.pi / 2)[:, None] * strip.half[-1]
    drop = (wave - 1)[:, None] * (strip.centre[-1] - strip.centre[0])
    last = np.concatenate([strip.at(np.array([[-1, 0.93], [1, 0.93]]))[::-1], hem + drop])
    canvas.shape(last, garment.colour, None, 186)
    canvas.curve(hem + drop, line_colour(garment.colour), 1.6 * canvas.line)
    if garment.pattern.kind != "logo":
        sketch.paint_pattern(strip, garment, 0.9)
    for k, x in enumerate((-0.72, -0.34, 0.05, 0.42, 0.76)):
        v = np.linspace(0.5 if k % 2 else 0.4, 1.0, 6)
        line = strip.at(np.stack([x * (0.8 + 0.2 * v) + 0.02 * np.sin(phase + k), v], 1))
        sketch.fold(line, 0.016 * unit, 166)
    if not dress:
        band = strip.at(np.stack([np.linspace(-1, 1, 9), np.full(9, 0.05)], 1))
        canvas.curve(band, line_colour(garment.colour), 0.8 * canvas.line)


def paint_neck(sketch: Sketch) -> None:
    """Paint the neck, in the head's shadow."""
    skeleton, body, canvas, skin = sketch.skeleton, sketch.body, sketch.canvas, sketch.character.skin
    chin = sketch.project(skeleton.head - 0.55 * body.head / 2 * skeleton.head_axes[:, 1])
    base = sketch.project(skeleton.neck + 0.010 * skeleton.chest_axes[:, 1])
    radius = (0.10 * body.head + 0.42 * body.arm_girth) * sketch.unit
    canvas.tube(np.stack([base, chin]), [radius * 1.08, radius * 0.92], skin, line_colour(skin), level=0.90)


def _neckline(sketch: Sketch, strip: Strip, deep: bool) -> None:
    """Paint the skin above the collar, and the collar."""
    canvas, character = sketch.canvas, sketch.character
    u = np.linspace(-1, 1, 13)
    depth = 0.27 if deep else 0.145
    v = depth * (1 - np.abs(u) ** (1.1 if deep else 2.4)) - 0.012
    flat = Strip(strip.centre, strip.half, strip.v, 0.5 * strip.turn)
    top = strip.half[0] / np.interp(v, strip.v, np.hypot(*strip.half.T))[:, None] * np.hypot(*strip.half[0])
    line = flat.at(np.stack([np.zeros(13), v], 1)) + u[:, None] * top * (1.08 - 0.1 * (1 - np.abs(u[:, None])))
    line += 0.25 * np.sin(strip.turn) * strip.half[0] * (1 - np.abs(u[:, None]))
    up = 3 * canvas.line * np.array([0.0, -1.0])  # over the shirt's own upper edge
    inner = line[[-1, 0]] + 0.12 * (line[[0, -1]] - line[[-1, 0]]) + up
    canvas.polygon(np.concatenate([line, inner]), character.skin, 182)
    canvas.curve(line, line_colour(character.top.colour), 1.5 * canvas.line)
    canvas.curve(line[1:-1] + (0, 1.6 * canvas.line), tint(character.top.colour, 0.82), 1.6 * canvas.line)


def _open_front(sketch: Sketch, strip: Strip) -> None:
    """Paint the shirt under an open jacket."""
    canvas, character = sketch.canvas, sketch.character
    v = np.linspace(0.0, 1, 9)
    edge = 0.22 + 0.20 * v
    panel = strip.at(np.concatenate([np.stack([-edge, v], 1), np.stack([edge, v], 1)[::-1]]))
    canvas.shape(panel, character.inner, line_colour(character.top.colour), 194)
    for u in (-1, 1):
        lapel = strip.at(np.array([[u * 0.20, 0.0], [u * 0.62, 0.22], [u * 0.30, 0.42]]))
        canvas.shape(lapel, tint(character.top.colour, 0.86), line_colour(character.top.colour), 192)


def _hood(sketch: Sketch, strip: Strip) -> None:
    canvas, character, unit = sketch.canvas, sketch.character, sketch.unit
    pocket = strip.at(np.array([[-0.34, 0.62], [0.34, 0.62], [0.52, 0.86], [-0.52, 0.86]]))
    canvas.shape(pocket, tint(character.top.colour, 0.93), line_colour(character.top.colour), 192)
    for u in (-0.12, 0.12):
        cord = strip.at(np.array([[u, 0.10], [u * 1.1, 0.32]]))
        canvas.curve(cord, character.inner, 0.009 * unit)


def _bib(sketch: Sketch) -> None:
    """Paint the upper part of overalls: bib, straps, pocket."""
    canvas, colour, unit = sketch.canvas, sketch.character.bottom.colour, sketch.unit
    strip = sketch.trunk(-0.02, 0.84, 1.03, rows=8)
    bib = strip.at(np.array([[-0.40, 0.40], [0.40, 0.40], [0.56, 0.72], [0.98, 1.0], [-0.98, 1.0], [-0.56, 0.72]]))
    canvas.shape(bib, colour, line_colour(colour), 192)
    for u in (-1, 1):
        strap = strip.at(np.array([[u * 0.36, 0.44], [u * 0.42, 0.2], [u * 0.44, 0.0]]))
        canvas.curve(strap, line_colour(colour), 0.034 * unit)
        canvas.curve(strap, colour, 0.026 * unit)
        button = strip.at(np.array([u * 0.34, 0.46]))
        canvas.tube(np.stack([button, button + 0.01]), [0.009 * unit] * 2, (226, 190, 92))
    pocket = strip.at(np.array([[-0.2, 0.52], [0.2, 0.52], [0.18, 0.72], [-0.18, 0.72]]))
    canvas.shape(pocket, tint(colour, 1.06), line_colour(colour), 196)


def paint_top(sketch: Sketch) -> None:
    """Paint a shirt, jacket, hoodie or bodice."""
    canvas, character = sketch.canvas, sketch.character
    top = character.top
    tucked = character.bottom.kind in ("skirt", "overalls") or top.kind == "dress"
    end = 0.64 if top.kind == "dress" else 0.80 if tucked else 0.98 + 0.14 * top.length
    strip = sketch.trunk(-0.17, end, 1.0 + 0.22 * top.ease, rows=11)
    sketch.paint_strip(strip, top.colour)
    sketch.paint_pattern(strip, top)
    if top.kind == "jacket":
        _open_front(sketch, strip)
    if top.kind == "hoodie":
        _hood(sketch, strip)
    _neckline(sketch, strip, deep=top.kind in ("tank", "dress") or (top.kind == "tshirt" and top.length > 0.6))
    for side in (-1, 1):  # creases from the armpits
        sketch.fold(
            strip.at(np.array([[side * 0.86, 0.30], [side * 0.6, 0.38], [side * 0.42, 0.40]])), 0.010 * sketch.unit
        )
    sketch.fold(strip.at(spline(np.array([[0.2, 0.80], [0.55, 0.76], [0.9, 0.68]]))), 0.010 * sketch.unit)
    if not tucked:
        hem = strip.at(np.stack([np.linspace(-1, 1, 9), np.full(9, 0.965)], 1))
        canvas.curve(hem, line_colour(top.colour), 0.5 * canvas.line)
    if character.bottom.kind == "overalls":
        _bib(sketch)
