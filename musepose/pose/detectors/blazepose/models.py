"""BlazePose's six networks as files: where they lie, what proves them, what they take and give."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from musepose.utils.errors import UserError
from musepose.utils.files import require_file

FOLDER = Path("pretrained_weights/blazepose")  # where download_weights.py puts them
LITERT_HINT = "pip install ai-edge-litert==2.3.0"
FETCH_HINT = "run `python download_weights.py --only blazepose`"

# Google's wheel that holds the files, Apache-2.0. This release, as others hold other networks or none.
WHEEL = "mediapipe"
WHEEL_RELEASE = "0.10.21"


@dataclass(frozen=True)
class ModelFile:
    """One .tflite file."""

    name: str  # without its suffix
    folder: str  # in the wheel, below mediapipe/modules
    bytes: int
    sha256: str
    side: int  # pixels of the square picture that it takes
    outputs: tuple[tuple[int, ...], ...]  # shapes, in their order
    unwanted: tuple[int, ...] = ()  # places among the outputs of those that nothing here asks for

    @property
    def file(self) -> str:
        """Its name in the networks' folder."""
        return f"{self.name}.tflite"

    @property
    def target(self) -> str:
        """Path below the weights folder."""
        return f"{FOLDER.name}/{self.file}"

    @property
    def member(self) -> str:
        """Path in the wheel."""
        return f"mediapipe/modules/{self.folder}/{self.name}.tflite"


POSE_DETECTION = ModelFile(
    "pose_detection",
    "pose_detection",
    2959046,
    "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    224,
    ((1, 2254, 12), (1, 2254, 1)),  # boxes with four key points; scores
)
POSE_LANDMARK = ModelFile(
    "pose_landmark_full",
    "pose_landmark",
    6440512,
    "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    256,
    ((1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117)),  # 39 × 5; presence; mask; heat maps; 39 × 3 metres
    unwanted=(2,),  # the mask takes half of the time
)
HAND_LANDMARK = ModelFile(
    "hand_landmark_full",
    "hand_landmark",
    5478917,
    "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    224,
    ((1, 63), (1, 1), (1, 1), (1, 63)),  # 21 × 3; presence; right or left; 21 × 3 metres
)
HAND_RECROP = ModelFile(
    "hand_recrop",
    "holistic_landmark",
    123792,
    "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    256,
    ((1, 1, 1, 4),),  # two points
)
FACE_LANDMARK = ModelFile(
    "face_landmark",
    "face_landmark",
    1242398,
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    192,
    ((1, 1, 1, 1404), (1, 1, 1, 1)),  # 468 × 3; presence
)
FACE_DETECTION = ModelFile(
    "face_detection_short_range",
    "face_detection",
    229714,
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    128,
    ((1, 896, 16), (1, 896, 1)),  # boxes with six key points; scores
)
MODEL_FILES = (POSE_DETECTION, POSE_LANDMARK, HAND_LANDMARK, HAND_RECROP, FACE_LANDMARK, FACE_DETECTION)


def is_whole(content: bytes, file: ModelFile) -> bool:
    """Whether these bytes are the published file."""
    return len(content) == file.bytes and hashlib.sha256(content).hexdigest() == file.sha256


def read_model(folder: str | os.PathLike, file: ModelFile) -> bytes:
    """The bytes of a network in the networks' folder.

    Raises UserError where the file is missing, empty, cannot be read, or is not the published one.
    """
    path = require_file(Path(folder) / file.file, FETCH_HINT)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    if not is_whole(content, file):
        raise UserError(f"{path} is damaged or another file (its hash is wrong): delete it and {FETCH_HINT}")
    return content
