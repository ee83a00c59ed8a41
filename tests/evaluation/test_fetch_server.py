"""`prism-tune data` against a hub: a server on this machine that speaks the hub's protocol.

The command, `datasets` and `huggingface_hub` are the real ones, in a process of their own.
"""

import hashlib
import io
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.evaluation.language.tasks import find_split_files
from prism_tune.run.folder import read_json

HUB_ID = "Rowan/hellaswag"
REVISION = "5" * 40
ROWS = {
    "ind": [24, 92], "activity_label": ["Roof shingle removal", "Clean and jerk"],
    "ctx_a": ["A man is sitting on a roof.", "A lady walks to a barbell."],
    "ctx_b": ["he", "she"], "ctx": ["A man is sitting on a roof. he", "A lady walks. she"],
    "endings": [["a", "b", "c", "d"], ["e", "f", "g", "h"]], "label": ["3", "0"],
}  # fmt: skip


def make_repository():
    content = io.BytesIO()
    pq.write_table(pa.table(ROWS), content)
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    card += "  - {split: validation, path: data/validation-*}\n---\n"
    name = "data/validation-00000-of-00001.parquet"
    return {"README.md": card.encode(), name: content.getvalue()}


class Hub(ThreadingHTTPServer):
    """Serves one dataset; `asked` are the paths of the files that were fetched."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = make_repository()
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def names(self):
        return ["data", *self.files]

    def entry(self, name):
        if name == "data":
            return {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
        content = self.files[name]
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = orjson.loads(body)["paths"]
        found = [self.server.entry(name) for name in wanted if name in self.server.names]
        self.answer(200, orjson.dumps(found))

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        api = f"/api/datasets/{HUB_ID}"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{REVISION}"):
            files = [{"rfilename": name} for name in self.server.files]
            about = {"_id": "1", "id": HUB_ID, "sha": REVISION, "siblings": files, "tags": []}
            self.answer(200, orjson.dumps({**about, "private": False, "disabled": False}))
        elif path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            prefix = f"{below}/" if below else ""
            names = [name for name in self.server.names if name.startswith(prefix)]
            self.answer(200, orjson.dumps([self.server.entry(name) for name in names]))
        elif path.startswith(f"/datasets/{HUB_ID}/resolve/"):
            self.send_file(path.removeprefix(f"/datasets/{HUB_ID}/resolve/").partition("/")[2])
        else:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def send_file(self, name):
        content = self.server.files.get(name)
        if content is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.server.asked.append(name)
        etag = self.server.entry(name)["oid"]
        self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def fetch(folder, *, endpoint, home):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    del environment["HF_HUB_OFFLINE"]
    command = [sys.executable, "-m", "prism_tune", "data", "hellaswag", "--to", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_benchmark_is_fetched_at_a_revision_and_once(hub, tmp_path):
    folder, home = tmp_path / "hellaswag", tmp_path / "home"
    done = fetch(folder, endpoint=hub.address, home=home)
    assert done.returncode == 0, done.stderr
    (files,) = find_split_files("hellaswag", folder).values()
    assert pq.read_table(files).to_pydict() == ROWS
    record = read_json(folder / "source.json")
    assert (record["hub_id"], record["revision"]) == (HUB_ID, REVISION)
    assert record["files"]["validation.parquet"]["num_rows"] == 2
    num_asked = len(hub.asked)
    again = fetch(folder, endpoint=hub.address, home=home)
    assert again.returncode == 0, again.stderr
    assert "there already" in again.stderr
    assert len(hub.asked) == num_asked


def test_a_hub_that_does_not_answer_is_said_in_one_message(tmp_path):
    done = fetch(tmp_path / "x", endpoint="http://127.0.0.1:9", home=tmp_path / "home")
    assert done.returncode == 1
    assert "hellaswag: Rowan/hellaswag cannot be fetched from the hub" in done.stderr
    assert "Traceback" not in done.stderr
