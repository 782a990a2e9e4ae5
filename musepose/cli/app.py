"""Serves a page in the browser: picture and dance in, aligned skeleton on the picture in seconds, video out.

    python app.py
    python app.py --port 8000 --folder /scratch/musepose
    python app.py --host 0.0.0.0 --auth me:secret

It listens on this machine only, unless --host or --share says otherwise.
"""

from collections.abc import Sequence
from typing import NoReturn

from musepose.app.options import Settings
from musepose.cli.flags import parse_options


def parse(arguments: Sequence[str] | None) -> Settings:
    return parse_options(Settings, "app.py", __doc__, arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run app.py until Ctrl-C, which ends the process."""
    settings = parse(arguments)
    from musepose.app.server import serve  # imported here, as --help needs no web server

    serve(settings)
