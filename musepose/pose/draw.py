"""Draws poses as the pose guider was trained on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from musepose.pose.types import DRAWN_LIMBS, HAND_EDGE_COLOURS, HAND_EDGES, HAND_POINT_COLOUR, JOINT_COLOURS, Pose

JOINT_RADIUS = 4  # pixels
HAND_POINT_RADIUS = 3
FACE_POINT_RADIUS = 3
FACE_POINT_COLOUR = (255, 255, 255)
LIMB_BRIGHTNESS = 0.6  # limbs are darker than the joints drawn on top of them
MAX_STROKE_WIDTH = 8
_DARKENED = (np.arange(256) * LIMB_BRIGHTNESS).astype(np.uint8)


@dataclass(frozen=True)
class Style:
    """How poses are drawn; the default is what the released weights learned."""

    colors: str = "musepose"  # or openpose, with red and blue exchanged
    face: bool = False
    line_width: float = 1.0  # times the width of strokes and points


PUBLISHED = Style()
GRID = 64  # pixels
CANVAS_WIDTH = 1024  # aligned poses are drawn at this width, with the dance video's aspect ratio
VIDEO_HEIGHT = 768  # and resized to this height, with the reference image's aspect ratio


def draw_poses(poses: Sequence[Pose], height: int, width: int, style: Style = PUBLISHED) -> np.ndarray:
    """Draw body joints, limbs and hands of every pose on black; faces if `style` asks for them.

    Returns uint8 RGB (height, width, 3), by default in OpenPose's palette with red and blue exchanged; black without
    poses. Stroke widths are in pixels of this picture, so drawing at another size changes the look.
    """
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    for draw in (_draw_limbs, _draw_joints, _draw_hands, *([_draw_face] if style.face else [])):
        for pose in poses:
            draw(canvas, pose, style.line_width)
    return canvas if style.colors == PUBLISHED.colors else np.ascontiguousarray(canvas[..., ::-1])


def canvas_size(frame_width: int, frame_height: int) -> tuple[int, int]:
    """(width, height) that aligned poses are drawn at, for a dance video of this size."""
    return CANVAS_WIDTH, max(1, int(CANVAS_WIDTH * frame_height / frame_width))


def video_size(image_width: int, image_height: int) -> tuple[int, int]:
    """(width, height) of the aligned pose video, for a reference image of this size; the width rounded down to even."""
    return max(2, int(VIDEO_HEIGHT * image_width / image_height) // 2 * 2), VIDEO_HEIGHT


def draw_video_frame(
    pose: Pose | None,
    frame_size: tuple[int, int],
    image_size: tuple[int, int],
    style: Style = PUBLISHED,
) -> np.ndarray:
    """One frame of the aligned pose video, uint8 RGB, `video_size(*image_size)`; black if `pose` is None.

    `frame_size` and `image_size` are (width, height) of the dance video and of the reference image. `pose` is
    normalised to the reference image. Drawing with the dance video's aspect ratio and then resizing to the reference
    image's distorts the strokes as in the training data of the released weights.
    """
    width, height = canvas_size(*frame_size)
    canvas = draw_poses([] if pose is None else [pose], height, width, style)
    return cv2.resize(canvas, video_size(*image_size), interpolation=cv2.INTER_LINEAR)


def draw_pose_map(
    pose: Pose | None,
    picture_size: tuple[int, int],  # width, height
    detect_resolution: int,  # pixels, short side of the detector's input
    image_resolution: int,  # pixels, short side of the drawing
    style: Style = PUBLISHED,
) -> np.ndarray:
    """A picture's own, unaligned pose, uint8 RGB, with sides that are multiples of 64; black if `pose` is None."""
    width, height = grid_size(*picture_size, detect_resolution)
    drawing = draw_poses([] if pose is None else [pose], height, width, style)
    return cv2.resize(drawing, grid_size(width, height, image_resolution), interpolation=cv2.INTER_LINEAR)


def grid_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) with the short side scaled to `short_side`, then both rounded to the nearest multiple of 64."""
    factor = short_side / min(width, height)
    return tuple(max(round(side * factor / GRID), 1) * GRID for side in (width, height))


def stroke_width(length: float) -> int:
    """Half-width of a limb, and thickness of a finger edge, in pixels: one more each time the length doubles."""
    return min(MAX_STROKE_WIDTH, max(1, math.floor(3 + math.log2(max(length, 1.0) / 10))))


def _scaled(pixels: int, line_width: float) -> int:
    return max(1, round(pixels * line_width))


def _pixels(points: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    height, width = canvas.shape[:2]
    return points * (width, height)


def _draw_limbs(canvas: np.ndarray, pose: Pose, line_width: float) -> None:
    body = _pixels(pose.body, canvas)
    for (start, end), colour in zip(DRAWN_LIMBS, JOINT_COLOURS[: len(DRAWN_LIMBS)], strict=True):
        if not (pose.body_visible[start] and pose.body_visible[end]):
            continue
        dx, dy = body[start] - body[end]
        length = math.hypot(dx, dy)
        centre = tuple(int(value) for value in (body[start] + body[end]) / 2)
        axes = (int(length / 2), _scaled(stroke_width(length), line_width))
        outline = cv2.ellipse2Poly(centre, axes, int(math.degrees(math.atan2(dy, dx))), 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, colour)
    cv2.LUT(canvas, _DARKENED, dst=canvas)


def _draw_joints(canvas: np.ndarray, pose: Pose, line_width: float) -> None:
    radius = _scaled(JOINT_RADIUS, line_width)
    for point, visible, colour in zip(_pixels(pose.body, canvas), pose.body_visible, JOINT_COLOURS, strict=True):
        if visible:
            cv2.circle(canvas, (int(point[0]), int(point[1])), radius, colour, thickness=-1)


def _draw_hands(canvas: np.ndarray, pose: Pose, line_width: float) -> None:
    radius = _scaled(HAND_POINT_RADIUS, line_width)
    hands = _pixels(pose.hands, canvas).astype(int)
    # As in training, hand points on or beyond the left or top border count as not found.
    shown = pose.hands_visible & (hands > 0).all(axis=-1)
    for hand, found in zip(hands, shown, strict=True):
        for (start, end), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
            if found[start] and found[end]:
                thickness = _scaled(stroke_width(math.dist(hand[start], hand[end])), line_width)
                cv2.line(canvas, hand[start].tolist(), hand[end].tolist(), colour, thickness)
        for point in hand[found]:
            cv2.circle(canvas, point.tolist(), radius, HAND_POINT_COLOUR, thickness=-1)


def _draw_face(canvas: np.ndarray, pose: Pose, line_width: float) -> None:
    """White points, as OpenPose draws a face."""
    radius = _scaled(FACE_POINT_RADIUS, line_width)
    for point in _pixels(pose.face, canvas)[pose.face_visible].astype(int):
        cv2.circle(canvas, point.tolist(), radius, FACE_POINT_COLOUR, thickness=-1)
