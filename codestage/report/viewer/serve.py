"""Serving the page to this machine alone, until it is stopped."""

import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from codestage.errors import UserError
from codestage.report.viewer.app import Status, make_app

HOST = "127.0.0.1"


def serve(
    folders: Sequence[Path],
    status: Status,
    *,
    port: int,
    ready: Callable[[str, int], None],
    open_browser: bool = False,
) -> None:
    """Answer on 127.0.0.1 until Ctrl-C; `ready` is told the address with its token, and the
    port. Port 0: any free one.

    Raises:
        UserError: a folder does not exist, or the port is taken.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the one that `codestage run` writes to")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} cannot be had ({error}); take another with --port, or 0"
            ) from None
        listener.listen()  # from here on the address answers, if only once the server runs
        token, ticket = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        had = listener.getsockname()[1]
        address = f"http://{HOST}:{had}/?token="
        app = make_app(folders, status, token, {ticket} if open_browser else set())
        ready(address + token, had)
        if open_browser:
            # A browser's command line can be read by every user of the machine: this one opens once.
            webbrowser.open(address + ticket)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])
