"""What a check has found: each line printed as soon as it is known, and the same kept whole in a JSON file."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.utils.files import complete_file


@dataclass
class Report:
    """The lines so far, in the order in which they came.

    A line is a dict: `part`, `what`, its values, and `ok`: True or False where it was held against a bound, None where
    it only tells. `error` says what went wrong, `left_out` why there is nothing.
    """

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    running: str | None = None  # the section at work
    finished: list[str] = field(default_factory=list)  # sections, whether they succeeded or not

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Go on with a report that another process began. Raises OSError, ValueError: there is none."""
        return cls(path, **json.loads(path.read_text(encoding="utf-8")))

    def say(self, part: int, what: str, ok: bool | None = None, **values: Any) -> None:
        """Print a line, and keep it. Names of values are words joined by underscores, with their unit at the end."""
        line = {"part": part, "what": what, "ok": ok, **values}
        self.lines.append(line)
        print(render(line), flush=True)
        self.save()

    def save(self) -> None:
        """Raises UserError where the file cannot be written."""
        content = {"lines": self.lines, "running": self.running, "finished": self.finished}
        with complete_file(self.path) as partial:
            partial.write_text(json.dumps(content, indent=1) + os.linesep, encoding="utf-8")

    @property
    def failures(self) -> int:
        """Lines that missed their bound, or tell of an error."""
        return sum(line["ok"] is False for line in self.lines)


def render(line: dict[str, Any]) -> str:
    """A line of the report as it is printed."""
    if "error" in line:
        return f"{line['part']}  {line['what']}: FAILED: {line['error']}"
    if "left_out" in line:
        return f"{line['part']}  {line['what']}: left out: {line['left_out']}"
    values = [f"{name.replace('_', ' ')} {_show(v)}" for name, v in line.items() if name not in ("part", "what", "ok")]
    verdict = {True: ["ok"], False: ["OUT OF BOUNDS"], None: []}[line["ok"]]
    return f"{line['part']}  {line['what']}" + (": " + ", ".join(values + verdict) if values + verdict else "")


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "none" if value is None else str(value)
