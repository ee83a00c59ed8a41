"""A written report over HTTP, for this machine's browser, with thumbnails of every record.

The page's folder goes out as it lies on disk, read-only. Beside it are what `on_demand.py` makes: a
record's pictures, neighbours and turns by its uid, and the pictures of a question. A request never
names a path of an image folder, and nothing else outside the page's folder is sent.
Foreign names in `Host` are refused, since a web page could have its own name point here (DNS
rebinding), and so is what other sites' pages embed.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import socketserver
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from prism_tune.errors import ConfigError, UserError
from prism_tune.interrupts import Interrupted
from prism_tune.report.page import POLICY
from prism_tune.report.question_pictures import QuestionPictures
from prism_tune.report.serving.on_demand import OnDemand
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir
from prism_tune.run.log import console

logger = logging.getLogger(__name__)

_FOLDERS = ("assets", "data", "pictures", "thumbs")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
}
_HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_MOST_WAITING = 64
"""Connections that have asked nothing yet: a browser has six."""


class Answer(NamedTuple):
    """What is sent: a body and its type."""

    content_type: str
    body: bytes


def serve_report(
    run: RunDir, folder: Path, pictures: QuestionPictures, *, host: str, port: int
) -> None:
    """Serve a report until the user interrupts.

    Args:
        run: whose pool thumbnails are drawn from.
        folder: of the page.
        pictures: of the run's benchmark questions.
        host: address to listen on; one that is not this machine's own lets others see the pool.
        port: 0 for any free one.

    Raises:
        ConfigError: `host` is no host name.
        UserError: the address cannot be listened on.
    """
    with ReportServer(FinishedRun(run), folder, host, port, pictures) as server:
        console.print(f"{server.url}  (Ctrl-C ends it)", soft_wrap=True)
        if not server.is_private:
            logger.warning("%s: whoever reaches this address can see the pool's records", host)
        try:
            server.serve_forever()
        except (KeyboardInterrupt, Interrupted):
            console.print("ended")


class ReportServer(ThreadingHTTPServer):
    """Listens from its construction on; see `serve_report`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        run: FinishedRun,
        folder: Path,
        host: str,
        port: int,
        pictures: QuestionPictures | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.host = host
        self._on_demand = OnDemand(run, pictures)
        self._waiting: dict[socket.socket, None] = {}  # oldest first
        self._waiting_lock = Lock()
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        except UnicodeError as error:  # before it is looked up
            raise ConfigError(
                f"--host: {host!r} is no host name: a part between its dots is empty, longer than "
                "63 characters or of characters that no name has; expected an address of this "
                "machine, as 127.0.0.1"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot listen on {host} port {port}: {error}; `--port 0` takes any free port"
            ) from error

    def server_bind(self) -> None:
        """Bind, without asking a name server for the machine's name."""
        socketserver.TCPServer.server_bind(self)

    def wait_for(self, connection: socket.socket) -> None:
        """Note one that has asked nothing yet; of too many the oldest is closed."""
        with self._waiting_lock:
            self._waiting[connection] = None
            if len(self._waiting) > _MOST_WAITING:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)

    def hear_from(self, connection: socket.socket) -> None:
        """It has asked, or is gone."""
        with self._waiting_lock:
            self._waiting.pop(connection, None)

    @property
    def url(self) -> str:
        """Where the page is."""
        address, port = self.server_address[:2]
        return (
            f"http://[{address!s}]:{port}/"
            if ":" in str(address)
            else f"http://{address!s}:{port}/"
        )

    @property
    def is_private(self) -> bool:
        """Only this machine can reach it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def knows_host(self, name: str) -> bool:
        """Whether a request may call this server so: by number, as localhost, or as `--host` does.

        The port does not matter: it may be forwarded from another one.
        """
        bare = name.rpartition(":")[0] if re.search(r":\d*$", name) else name
        if bare.lower() in ("localhost", self.host.lower()):
            return True
        try:
            ipaddress.ip_address(bare.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def answer(self, path: str) -> Answer | None:
        """What a decoded path stands for; None for nothing."""
        if path == "/data/served.js":
            return Answer(_TYPES[".js"], b'PRISM.data["served"] = true;\n')
        if made := self._on_demand.make(path):
            return Answer(_TYPES[made[0]], made[1])
        file = self._find_file("/index.html" if path == "/" else path)
        return None if file is None else Answer(_TYPES[file.suffix], file.read_bytes())

    def _find_file(self, path: str) -> Path | None:
        root, *parts = path.split("/")
        if root or not parts or (parts[0] not in _FOLDERS and parts != ["index.html"]):
            return None
        if any(part.startswith(".") or {*part} & {"\\", "\0"} for part in parts):
            return None
        file = self.folder.joinpath(*parts).resolve()
        if not file.is_relative_to(self.folder) or file.suffix not in _TYPES:
            return None
        return file if file.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; the base class refuses everything else."""

    server: ReportServer
    protocol_version = "HTTP/1.1"
    timeout = 15  # of seconds that a client may keep a thread waiting
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def handle_one_request(self) -> None:
        """Connections that ask nothing take a thread each, and must not take all."""
        self.server.wait_for(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.hear_from(self.connection)

    def parse_request(self) -> bool:
        """The first line is here."""
        self.server.hear_from(self.connection)
        return super().parse_request()

    def do_GET(self) -> None:
        """Send a file of the page, or a thumbnail."""
        if not self._is_welcome():
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        try:
            answer = self.server.answer(unquote(urlsplit(self.path).path, errors="strict"))
        except (ValueError, OSError):  # no URL, no text, a name that is too long
            answer = None
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def end_headers(self) -> None:
        """Every answer says how little a browser may do with it."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Of the server, without Python's."""
        return "prism_tune"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""
        logger.debug(format, *args)

    def _is_welcome(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.knows_host(hosts[0]):
            return False
        embedded = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        return not embedded or self.headers.get("Sec-Fetch-Mode") == "navigate"
