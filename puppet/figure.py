"""Painting of one figure, part by part from back to front."""

from puppet.character import Character
from puppet.hair import paint_back_hair, paint_front_hair
from puppet.head import HeadPlan, paint_face
from puppet.kinematics import Skeleton
from puppet.limbs import arm_is_behind, paint_arm, paint_leg
from puppet.motion import Stance
from puppet.paint import Canvas, Painted
from puppet.sketch import Sketch, line_colour
from puppet.torso import paint_neck, paint_seat, paint_skirt, paint_top
from puppet.view import View, nearness


def paint_figure(
    character: Character, stance: Stance, skeleton: Skeleton, view: View, width: int, height: int, supersample: int = 2
) -> Painted:
    """Paint the figure on a transparent image of the given size."""
    canvas = Canvas(width, height, view.unit, supersample)
    sketch = Sketch(canvas, character, skeleton, stance, view)
    plan = HeadPlan(sketch)
    behind = [side for side in (0, 1) if arm_is_behind(sketch, side)]

    paint_back_hair(plan)
    for side in behind:
        paint_arm(sketch, side)
    for side in sorted((0, 1), key=lambda s: nearness(skeleton.knees[s] + skeleton.ankles[s])):
        paint_leg(sketch, side)
    paint_seat(sketch)
    paint_neck(sketch)
    if character.wears_skirt:
        paint_skirt(sketch)
    if character.top.kind in ("tank", "dress"):
        canvas.shape(sketch.trunk(-0.12, 0.4).outline(), character.skin, line_colour(character.skin), 190)
    paint_top(sketch)
    paint_face(plan)
    paint_front_hair(plan)
    for side in sorted({0, 1} - set(behind), key=lambda s: nearness(skeleton.hands[s, 0])):
        paint_arm(sketch, side)
    return canvas.finish()
