"""docs/api.md: every block of Python runs as it is printed, one after the other."""

import re
import shutil
from pathlib import Path

import torch

from musepose.media.video_reader import probe
from random_models.tiny_weights import write_published_layout

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
# Another device and smaller figures; nothing else differs from the page.
SMALLER = {
    '"cuda", torch.float16': '"cpu", torch.float32',
    "count=48": "count=4",
    "width=512, height=512": "width=32, height=40, num_inference_steps=2, context_frames=4, context_overlap=1",
    "512, 512, rate": "32, 40, rate",
}


def test_the_page_s_python(stage_2, capsys):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    for figure, smaller in SMALLER.items():
        assert code.count(figure) == 1
        code = code.replace(figure, smaller)
    write_published_layout(Path("pretrained_weights"))
    for target, source in {"images/ref.png": "ref.png", "poses/align/img_ref_video_dance.mp4": "dance.mp4"}.items():
        (Path("assets") / target).parent.mkdir(parents=True)
        shutil.copy(source, Path("assets") / target)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    made = probe("dance.mp4")
    assert (made.width, made.height, made.frames, made.rate) == (32, 40, 4, 15)
    assert [picture.size for picture in names["video"]] == [(32, 40)] * 4
    assert names["array"].shape == (1, 4, 40, 32, 3)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("1 ")] == [
        "1 499 torch.Size([4, 4, 5, 4])"
    ]
    assert torch.equal(names["fifth"], names["third"])  # the saved pipeline, its scheduler included
    assert not torch.equal(names["second"], names["third"])
