"""Options of app.py."""

from dataclasses import dataclass
from pathlib import Path

from musepose.utils.options import option

LIMITS = "limits"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of app.py."""

    host: str = option(LOOPBACK[0], "address to listen on; 0.0.0.0 lets other machines in")
    port: int = option(7860, "port to listen on; 0: any free one", low=0, high=65535)
    share: bool = option(False, "also open a public address through Gradio's servers")
    auth: str | None = option(None, "ask for this name and password first", metavar="USER:PASS")
    folder: Path = option(Path("output/app"), "folder of uploads and results", metavar="DIR")
    device: str | None = option(None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if there is one, else cpu")
    max_upload: float = option(200.0, "largest file, MB", above=0, group=LIMITS)
    max_seconds: float = option(60.0, "longest part of a dance, seconds", above=0, group=LIMITS)
    max_megapixels: float = option(50.0, "largest picture, megapixels", above=0, group=LIMITS)
    max_jobs: int = option(20, "most jobs that wait or run at a time", low=1, group=LIMITS)
    keep_hours: float = option(24.0, "remove uploads and results that are so old", above=0, group=LIMITS)

    @property
    def open_to_others(self) -> bool:
        """Whether others than this machine's users reach the page, without a password."""
        return (self.share or self.host not in LOOPBACK) and self.auth is None
