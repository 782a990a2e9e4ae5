"""The results of a check: each line is printed at once, and all lines are saved as JSON."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.utils.files import complete_file


@dataclass
class Report:
    """The lines so far, in order.

    A line is a dict: `part`, `what`, its values, and `ok`: True or False if it was compared with a bound, None for a
    measurement alone. `error` is the reason of a failure, `left_out` why there is no result.
    """

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    running: str | None = None  # the section in progress
    finished: list[str] = field(default_factory=list)  # sections, failed ones included

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Load a report that another process saved. Raises OSError, ValueError: there is none."""
        return cls(path, **json.loads(path.read_text(encoding="utf-8")))

    def add(self, part: int, what: str, ok: bool | None = None, **values: Any) -> None:
        """Print, append and save a line. Names of values are words joined by underscores, the unit last."""
        line = {"part": part, "what": what, "ok": ok, **values}
        self.lines.append(line)
        print(render(line), flush=True)
        self.save()

    def save(self) -> None:
        """Write the JSON file. Raises UserError: it cannot be written."""
        content = {"lines": self.lines, "running": self.running, "finished": self.finished}
        with complete_file(self.path) as partial:
            partial.write_text(json.dumps(content, indent=1) + os.linesep, encoding="utf-8")

    @property
    def failures(self) -> int:
        """How many lines are out of bounds or errors."""
        return sum(line["ok"] is False for line in self.lines)


def render(line: dict[str, Any]) -> str:
    """A line of the report as text."""
    if "error" in line:
        return f"{line['part']}  {line['what']}: FAILED: {line['error']}"
    if "left_out" in line:
        return f"{line['part']}  {line['what']}: left out: {line['left_out']}"
    values = [f"{name.replace('_', ' ')} {_show(v)}" for name, v in line.items() if name not in ("part", "what", "ok")]
    verdict = {True: ["ok"], False: ["OUT OF BOUNDS"], None: []}[line["ok"]]
    return f"{line['part']}  {line['what']}" + (": " + ", ".join(values + verdict) if values + verdict else "")


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "none" if value is None else str(value)
