"""Serves the page: its limits, its address, and nothing from or to anywhere else."""

import os
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from musepose.app.options import Settings
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable

FILE_ROUTE = "/gradio_api/file="
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # Gradio's page needs the exceptions
OPEN = "warning: whoever reaches {where} may use this page and its GPU: give --auth USER:PASS"


def serve(settings: Settings) -> NoReturn:
    """Serve until Ctrl-C or SIGTERM, and end the process.

    Raises UserError: Gradio is missing, an option is invalid, the port is taken.
    """
    desk, page, _ = launch(settings)
    status = 0
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as leaving:  # of entry.run_script, for SIGTERM
        status = leaving.code
    desk.queue.close()
    page.close(verbose=False)
    print("the page is closed", flush=True)
    sys.stderr.flush()
    os._exit(status)  # the libraries' own threads abort Python's clean-up; all jobs have ended


def launch(settings: Settings) -> tuple[Any, Any, str]:
    """Start serving. → the desk, Gradio's page, its address. Raises UserError as `serve`."""
    auth = _auth(settings.auth)
    check_writable(settings.folder, folder=True)
    _environment(settings.folder.absolute())
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("Gradio is not installed: run `make app`, or pip install -r requirements-app.txt") from None
    from musepose.app.desk import Desk
    from musepose.app.page import build_page
    from musepose.app.style import CSS, theme

    if settings.open_to_others:
        where = "its public address" if settings.share else settings.host
        print(OPEN.format(where=where), file=sys.stderr, flush=True)
    desk = Desk(settings)
    desk.start_removing()
    page = build_page(desk)
    page.queue(default_concurrency_limit=8)
    try:
        _, local, public = page.launch(
            server_name=settings.host,
            server_port=settings.port or free_port(settings.host),
            share=settings.share,
            auth=auth,
            max_file_size=int(settings.max_upload * 2**20),
            theme=theme(),
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,  # errors that nobody expected: their texts may hold paths
            ssr_mode=False,
            allowed_paths=[],
            footer_links=["api"],
            enable_monitoring=False,
            run_history=False,
            pwa=False,
            mcp_server=False,
            inbrowser=False,
            app_kwargs={"middleware": [_guard()]},
        )
    except OSError:
        raise UserError(f"port {settings.port} of {settings.host} is taken: give another with --port") from None
    for address in filter(None, (local, public)):
        print(f"the page: {address}", flush=True)
    threading.Thread(target=_import_torch, name="musepose-import", daemon=True).start()
    return desk, page, local


def free_port(host: str) -> int:
    """A port that nobody listens on; Gradio itself takes only those from 7860 on."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def _environment(folder: Path) -> None:
    """Gradio reads these when it is imported: no telemetry, and every file that it keeps or serves in our folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "cached")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_MCP_SERVER"):
        os.environ.pop(name, None)


def _guard() -> Any:
    """Refuses what Gradio would fetch from elsewhere for a visitor, and forbids the browser to load from elsewhere."""
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse

    class Guard:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            path = scope.get("path", "")
            if path.startswith(FILE_ROUTE) and "://" in path.replace(":/", "://", 1)[: len(FILE_ROUTE) + 12]:
                await PlainTextResponse("File not allowed.", 403)(scope, receive, send)
                return

            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
                await send(message)

            await self.app(scope, receive, with_policy if scope["type"] == "http" else send)

    return Middleware(Guard)


def _auth(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise UserError("--auth is not USER:PASS: give a name, a colon and a password")
    return name, password


def _import_torch() -> None:
    """Now, so that the first visitor need not wait for it."""
    import musepose.inference.memory_estimate  # noqa: F401
