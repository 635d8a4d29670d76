"""Files from a server on this machine that cuts connections, refuses and lies."""

import hashlib
import http.server
import re
import socket
import threading
import time

import numpy as np
import pytest

from botvision.errors import BotvisionError
from botvision.shards import fetch as fetching
from botvision.shards.fetch import fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; ``plan`` says what each request gets: "cut", a status, "whole" or "".

    An answer with "cut" ends after 700,000 bytes, one with "whole" knows no ranges.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = []
        self.ranges = []
        self.content = CONTENT
        self.url = f"http://127.0.0.1:{self.server_address[1]}/set.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        action = self.server.plan.pop(0) if self.server.plan else ""
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if isinstance(action, int):
            self.send_error(action)
            return
        content = self.server.content
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and action != "whole" else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = begin + 700_000 if action == "cut" else len(content)
        self.wfile.write(content[begin:end])
        if action == "cut":
            time.sleep(0.3)  # a client drops what it has not read when the connection ends

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


SUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """A function that fetches the server's file, without waiting, and keeps what it reports."""
    monkeypatch.setattr(fetching, "_WAIT", 0.0)

    def run(checksum=SUM):
        run.reports = []
        path = tmp_path / "set.zip"
        tell = lambda *now: run.reports.append(now)  # noqa: E731
        fetch(server.url, path, size=len(CONTENT), checksum=checksum, progress=tell)
        return path.read_bytes()

    return run


def refused(get, url, *words):
    with pytest.raises(BotvisionError) as caught:
        get()
    message = str(caught.value)
    assert "\n" not in message
    for word in (url, *words):
        assert word in message


def test_a_file(get, server, tmp_path):
    assert get() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]
    assert get.reports == sorted(get.reports)
    assert get.reports[-1] == (len(CONTENT), len(CONTENT))
    assert server.ranges == [None]


def test_cut_connections(get, server):
    server.plan = ["cut", "cut", 503, "cut", 500]
    assert get() == CONTENT
    begun = ["bytes=700000-", "bytes=1400000-", "bytes=1400000-", "bytes=2100000-"]
    assert server.ranges == [None, *begun, "bytes=2100000-"]


def test_a_later_call_goes_on(get, server, tmp_path):
    server.plan = ["cut"] + [503] * 20
    refused(get, server.url, "503")
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip.part"]
    server.plan = []
    server.ranges.clear()
    assert get() == CONTENT
    assert server.ranges == ["bytes=700000-"]
    assert get.reports[0][0] > 700_000


def test_a_server_without_ranges(get, server):
    server.plan = ["cut", "whole"]
    assert get() == CONTENT


def test_a_file_without_checksum(get):
    assert get(checksum="") == CONTENT


def test_an_md5(get):
    assert get(checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}") == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT + b"x", CONTENT[:-1]])
def test_another_file(get, server, tmp_path, content):
    server.content = content
    refused(get, server.url, "expected 3,000,000 bytes of sha256", "Start again")
    assert not any(tmp_path.iterdir())


def test_a_part_of_another_file(get, server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(bytes(1000))
    refused(get, server.url, "expected 3,000,000 bytes of sha256")
    assert get() == CONTENT


@pytest.mark.parametrize(("status", "said"), [(403, "403"), (404, "no such file"), (410, "410")])
def test_a_file_that_is_not_there(get, server, status, said, tmp_path):
    server.plan = [status]
    refused(get, server.url, said)
    assert len(server.ranges) == 1
    assert not any(tmp_path.iterdir())


def test_no_network(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(fetching, "_WAIT", 0.0)
    url = "http://images.example/zips/set.zip"
    refused(
        lambda: fetch(url, tmp_path / "set.zip", size=10),
        url,
        "Temporary failure in name resolution",
    )
    assert not any(tmp_path.iterdir())


def test_no_server(get, server, tmp_path):
    server.shutdown()
    server.server_close()
    refused(get, server.url, "cannot be fetched", "connect")
    assert not any(tmp_path.iterdir())


def test_a_fault_of_the_disk_is_not_the_network(get, tmp_path):
    (tmp_path / "set.zip.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        get()
