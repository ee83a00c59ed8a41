"""The server, asked over real connections: what it sends, and what it does not."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import socket
import time
from threading import Thread

import pytest
from PIL import Image
from support.drawn_runs import write_drawn_run

from prism_tune.errors import ConfigError, UserError
from prism_tune.report.build import build_report
from prism_tune.report.serving.serve import ReportServer
from prism_tune.results.runs import FinishedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = write_drawn_run(tmp_path_factory.mktemp("served"))
    build_report([run])
    (run.root / "secret.txt").write_text("secret")
    (run.root / "report" / "secret.txt").write_text("secret")
    (run.root / "report" / "data" / ".secret.txt").write_text("secret")
    (run.root / "report" / "data" / "link.txt").symlink_to(run.root / "secret.txt")
    (run.root / "report" / "linked").symlink_to(run.root)
    (run.root / "report" / "assets" / "up").symlink_to(run.root)
    return run


@pytest.fixture(scope="module")
def server(run):
    with ReportServer(FinishedRun(run), run.root / "report", "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(server):
    """`ask(path, method=..., **headers)` -> (status, headers, body); the path goes out as it is."""

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": "localhost", **headers}.items():
            for one in value if isinstance(value, tuple) else (value,):
                connection.putheader(name.replace("_", "-"), one)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found

    return ask


def test_the_page_and_what_it_loads(ask, run):
    folder = run.root / "report"
    for path, file in (("/", "index.html"), ("/assets/report.css", "assets/report.css")):
        status, headers, body = ask(path)
        assert (status, body) == (200, (folder / file).read_bytes())
        assert int(headers["content-length"]) == len(body)
    assert ask("/")[1]["content-type"] == "text/html; charset=utf-8"
    assert ask("/data/gallery.js?x=1")[1]["content-type"] == "text/javascript; charset=utf-8"


def test_the_page_is_told_that_it_is_served(ask, run):
    assert (run.root / "report/data/served.js").read_bytes() == b'PRISM.data["served"] = false;\n'
    assert ask("/data/served.js")[2] == b'PRISM.data["served"] = true;\n'


def test_every_answer_limits_what_a_browser_may_do(ask):
    for path in ("/", "/nothing"):
        _, headers, _ = ask(path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert "python" not in headers["server"].lower()
        assert "access-control-allow-origin" not in headers


def test_thumbnails_are_drawn_by_uid(ask, run):
    records = FinishedRun(run).records
    row = next(row for row in range(len(records)) if records.is_ranked_N[row])
    status, headers, body = ask(f"/thumbs/{records.uid(row)}-0.webp")
    assert (status, headers["content-type"]) == (200, "image/webp")
    number = int(records.ids[row].as_py().removeprefix("record-")) % 30
    colour = Image.open(io.BytesIO(body)).convert("RGB").getpixel((20, 20))
    assert colour == pytest.approx((number * 8, 255 - number * 8, 120), abs=8)


def test_no_thumbnail_of_what_is_not_in_the_pool_or_has_no_image(ask, run):
    records = FinishedRun(run).records
    text_only = next(row for row in range(len(records)) if not records.is_ranked_N[row])
    assert ask(f"/thumbs/{records.uid(text_only)}-0.webp")[0] == 404
    assert ask(f"/thumbs/{'0' * 32}-0.webp")[0] == 404


def test_a_record_is_told_with_neighbours_all_turns_and_its_full_pictures(ask, run):
    """What the page on disk leaves out of a large pool."""
    records = FinishedRun(run).records
    row = next(row for row in range(len(records)) if records.is_ranked_N[row])
    uid = records.uid(row)
    status, headers, body = ask(f"/data/record-{uid}.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    name, _, value = body.decode().removesuffix(";\n").partition(" = ")
    assert name == f'PRISM.data["record-{uid}"]'
    card = json.loads(gzip.decompress(base64.b64decode(json.loads(value))))["cards"][str(row)]
    assert card[0] == uid
    assert len(card[3]) == card[4] == 4
    assert len(card[6]["nearest_kept"]) == 4
    assert ask(f"/images/{uid}-0.webp")[0] == 200
    assert ask(f"/images/{uid}-1.webp")[0] == 404
    assert ask(f"/data/record-{'0' * 32}.js")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/data/../../secret.txt",
        "/data/%2e%2e/%2e%2e/secret.txt",
        "/data/..%2f..%2fsecret.txt",
        "/data/%252e%252e/secret.txt",
        "/data/..\\..\\secret.txt",
        "/data/..%5c..%5csecret.txt",
        "/data/link.txt",
        "/linked/secret.txt",
        "/assets/up/secret.txt",
        "/secret.txt",
        "/data/.secret.txt/../link.txt",
        "//secret.txt",
        "/data//link.txt",
        "/%00",
        "/data/a%00.js",
        "/data/%ff.js",
        "/data",
        "/data/",
        "/../scores.parquet",
        "/thumbs/..%2f..%2f..%2f..%2fpool%2fimages%2f1.png",
        "/thumbs/../../../../pool/images/1.png",
        "/etc/passwd",
        "http://localhost/secret.txt",
        "http://[",
        "*",
        "/assets/" + "x" * 5000 + ".js",
    ],
)
def test_nothing_else_is_sent(ask, path):
    status, _, body = ask(path)
    assert status == 404
    assert b"secret" not in body
    assert b"root:" not in body


def test_hidden_files_are_not_sent(ask):
    assert ask("/data/.secret.txt")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "<b>"])
def test_read_only(ask, method):
    status, headers, body = ask("/index.html", method)
    assert status == 501
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert b"<b>" not in body


def test_head_sends_no_body(server):
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9000", "LOCALHOST", "127.0.0.1:8000", "[::1]:80", "10.0.0.7"]
)
def test_hosts_that_cannot_be_rebound_are_known(ask, host):
    assert ask("/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "",
     "localhost@evil.example", ("localhost", "evil.example")],
)  # fmt: skip
def test_foreign_names_are_refused(ask, host):
    status, _, body = ask("/", Host=host)
    assert status == 403
    assert len(body) < 100


def test_a_request_without_host_is_refused(server):
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


def test_other_sites_may_link_to_the_page_but_not_embed_its_data(ask):
    embedding = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    assert ask("/data/gallery.js", **embedding)[0] == 403
    assert ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert ask("/data/gallery.js", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="no-cors")[0] == 200


def test_only_this_machine_is_listened_to_unless_asked(run):
    for host, is_private in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with ReportServer(FinishedRun(run), run.root / "report", host, 0) as server:
            assert server.is_private is is_private


def test_a_name_given_as_host_is_known(run):
    with ReportServer(FinishedRun(run), run.root / "report", "localhost", 0) as server:
        server.host = "workstation.lab"
        assert server.knows_host("workstation.lab:8000")
        assert not server.knows_host("other.lab")


def test_a_port_in_use_is_a_clear_error(run, server):
    port = server.server_address[1]
    with pytest.raises(UserError, match=f"port {port}.*--port 0"):
        ReportServer(FinishedRun(run), run.root / "report", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".lab"])
def test_a_host_that_is_no_name_is_a_clear_error(run, host):
    with pytest.raises(ConfigError, match=rf"^--host: '{host}' is no host name: .*127\.0\.0\.1"):
        ReportServer(FinishedRun(run), run.root / "report", host, 0)


def test_a_pool_that_is_gone_has_no_thumbnails(tmp_path):
    run = write_drawn_run(tmp_path)
    build_report([run])
    (tmp_path / "pool" / "pool.json").unlink()
    report_run = FinishedRun(run)
    with ReportServer(report_run, run.root / "report", "127.0.0.1", 0) as server:
        assert server.answer(f"/thumbs/{report_run.records.uid(1)}-0.webp") is None
        assert server.answer("/") is not None


def test_connections_that_ask_nothing_do_not_hold_others_up(server, ask):
    idle = [socket.create_connection(server.server_address[:2]) for _ in range(200)]
    try:
        begin = time.monotonic()
        assert ask("/")[0] == 200
        assert time.monotonic() - begin < 5
        # the oldest of them were closed, and none of their threads is left
        idle[0].settimeout(5)
        assert idle[0].recv(1) == b""
    finally:
        for connection in idle:
            connection.close()
