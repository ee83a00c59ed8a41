"""An address on this machine that sends what a test has written down, byte by byte."""

import socketserver
import threading

import pytest


class Replies:
    """Each request gets the next of `replies`, raw, and its connection is closed."""

    def __init__(self):
        self.replies = []
        self.requests = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                lines = list(iter(lambda: self.rfile.readline().strip().decode("latin-1"), ""))
                headers = dict(line.lower().split(": ", 1) for line in lines[1:])
                self.rfile.read(int(headers.get("content-length", 0)))
                outer.requests.append(lines)
                self.wfile.write(outer.replies.pop(0))

        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.tcp.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.tcp.server_address[1]}/v1"
        threading.Thread(target=self.tcp.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.tcp.shutdown()
        self.tcp.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    running = Replies()
    yield running
    running.close()
