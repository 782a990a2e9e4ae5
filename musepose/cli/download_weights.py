"""Downloads the published weights into pretrained_weights/, or lists which are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musepose.cli.flags import parse_options
from musepose.download.weights import GROUPS, YOLOX_URL, WeightsFolder, download, select
from musepose.utils.options import option

EPILOG = (
    "The next run resumes interrupted downloads. HF_ENDPOINT (a mirror of the Hugging Face hub), HF_HOME (its cache) "
    "and the usual proxy variables are honoured."
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of download_weights.py."""

    dir: Path = option(Path("pretrained_weights"), "folder of the weights", metavar="DIR")
    only: str | None = option(None, f"download only these groups: {', '.join(GROUPS)}", metavar="NAME,…")
    check: bool = option(False, "download nothing: check the files that exist, list those that are missing")
    with_base_unet: bool = option(False, "also the base UNet's weights (3.4 GB), which only training stage 1 needs")
    yolox_url: str = option(YOLOX_URL, "URL of the YOLOX weights", metavar="URL")


def parse(arguments: Sequence[str] | None) -> Settings:
    return parse_options(Settings, "download_weights.py", __doc__, arguments, EPILOG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run download_weights.py. Returns the exit status: 1 if a file is missing."""
    settings = parse(arguments)
    groups = None if settings.only is None else [name.strip() for name in settings.only.split(",") if name.strip()]
    files = select(groups, settings.with_base_unet)
    folder = WeightsFolder(settings.dir, settings.yolox_url)
    missing = folder.check(files) if settings.check else download(folder, files)
    if not missing:
        print(f"complete: {len(files)} files in {settings.dir}")
        return 0
    print(f"missing, {len(missing)} of {len(files)} files in {settings.dir}:")
    for target, reason in missing.items():
        print(f"  {target} ({' '.join(reason.split())})")
    return 1
