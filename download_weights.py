"""Fetch the published weights into pretrained_weights/, or tell which are missing."""

import argparse
from pathlib import Path

from musepose.cli.entry import Parser, run_script
from musepose.download.weights import GROUPS, YOLOX_URL, WeightsFolder, download, select


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog="download_weights.py",
        description=__doc__,
        epilog="Transfers that broke off are resumed by the next run. HF_ENDPOINT (a mirror of the Hugging Face hub), "
        "HF_HOME (its cache) and the usual proxy variables are honoured.",
    )
    parser.add_argument("--dir", type=Path, default=Path("pretrained_weights"), help="folder (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME,…", help=f"only some of {', '.join(GROUPS)}")
    parser.add_argument("--check", action="store_true", help="fetch nothing, read what is there, tell what is missing")
    parser.add_argument(
        "--with_base_unet",
        action="store_true",
        help="also the base UNet's own weights (3.4 GB), which the MusePose files make unnecessary",
    )
    parser.add_argument("--yolox_url", default=YOLOX_URL, help="another address of the YOLOX weights")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    groups = None if arguments.only is None else [name.strip() for name in arguments.only.split(",") if name.strip()]
    files = select(groups, arguments.with_base_unet)
    folder = WeightsFolder(arguments.dir, arguments.yolox_url)
    missing = folder.check(files) if arguments.check else download(folder, files)
    if not missing:
        print(f"complete: {len(files)} files in {arguments.dir}")
        return 0
    print(f"missing, {len(missing)} of {len(files)} files in {arguments.dir}:")
    for target, reason in missing.items():
        print(f"  {target} ({' '.join(reason.split())})")
    return 1


if __name__ == "__main__":
    run_script(main)
