"""Downloads from a server on this machine that cuts connections, refuses and lies."""

import hashlib
import http.server
import re
import socket
import threading

import numpy as np
import pytest

from botvision.datasets.public.downloads import RemoteFile, download
from botvision.errors import BotvisionError

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
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = begin + 700_000 if action == "cut" else len(content)
        self.wfile.write(content[begin:end])

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


@pytest.fixture
def remote(server):
    return RemoteFile(server.url, len(CONTENT), "sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def fetch(tmp_path):
    """A function that downloads into tmp_path, without waiting, and keeps what it reports."""

    def run(remote):
        run.reports = []
        return download(
            remote, tmp_path / "got", progress=lambda *now: run.reports.append(now), wait=0
        )

    return run


def refused(fetch, remote, *words):
    with pytest.raises(BotvisionError) as caught:
        fetch(remote)
    message = str(caught.value)
    assert "\n" not in message
    for word in (remote.url, *words):
        assert word in message


def test_a_file(fetch, remote, server, tmp_path):
    path = fetch(remote)
    assert path == tmp_path / "got" / "set.zip"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["set.zip"]
    assert fetch.reports == sorted(fetch.reports)
    assert fetch.reports[-1] == (len(CONTENT), len(CONTENT))
    assert server.ranges == [None]


def test_a_file_that_is_there_is_not_fetched_again(fetch, remote, server):
    fetch(remote)
    assert fetch(remote).read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_cut_connections(fetch, remote, server):
    server.plan = ["cut", "cut", 503, "cut", 500]
    assert fetch(remote).read_bytes() == CONTENT
    assert server.ranges == [
        None,
        "bytes=700000-",
        "bytes=1400000-",
        "bytes=1400000-",
        "bytes=2100000-",
        "bytes=2100000-",
    ]


def test_a_later_call_goes_on(fetch, remote, server, tmp_path):
    server.plan = ["cut"] + [503] * 20
    refused(fetch, remote, "HTTP status 503", "700,000 of 3,000,000 bytes", "set.zip.part")
    assert not (tmp_path / "got" / "set.zip").exists()
    server.plan = []
    server.ranges.clear()
    assert fetch(remote).read_bytes() == CONTENT
    assert server.ranges == ["bytes=700000-"]
    assert fetch.reports[0][0] > 700_000


def test_an_interrupted_call_goes_on(fetch, remote, server, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(remote, tmp_path / "got", progress=stop)
    part = (tmp_path / "got" / "set.zip.part").stat().st_size
    assert 0 < part < len(CONTENT)
    assert fetch(remote).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={part}-"]


def test_a_server_without_ranges(fetch, remote, server):
    server.plan = ["cut", "whole"]
    assert fetch(remote).read_bytes() == CONTENT


def test_a_wrong_checksum(fetch, remote, server, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    refused(fetch, remote, "sha256", remote.checksum, "removed")
    assert not any((tmp_path / "got").iterdir())


def test_a_part_of_another_file(fetch, remote, tmp_path):
    """What was there before is checked as well as what came."""
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "set.zip.part").write_bytes(bytes(1000))
    refused(fetch, remote, "sha256", "removed")
    assert fetch(remote).read_bytes() == CONTENT


def test_a_file_of_another_size_under_its_name(fetch, remote, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "set.zip").write_bytes(b"old")
    assert fetch(remote).read_bytes() == CONTENT


def test_a_file_without_checksum(fetch, server):
    assert fetch(RemoteFile(server.url, len(CONTENT))).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there(fetch, remote, server, status, tmp_path):
    server.plan = [status]
    refused(fetch, remote, f"HTTP status {status}")
    assert len(server.ranges) == 1
    assert not any((tmp_path / "got").iterdir())


def test_a_larger_file(fetch, remote, server, tmp_path):
    server.content = CONTENT + b"x"
    refused(fetch, remote, "expected 3,000,000 bytes", "sends more")
    assert not any((tmp_path / "got").iterdir())


def test_a_smaller_file(fetch, remote, server, tmp_path):
    server.content = CONTENT[:-1]
    refused(fetch, remote, "HTTP status 416")
    assert not any((tmp_path / "got").iterdir())


def test_another_range_than_asked_for(fetch, remote, server, monkeypatch):
    server.plan = ["cut"]
    header = Handler.send_header

    def send(self, name, value):
        header(
            self, name, value.replace("bytes 7", "bytes 6") if name == "Content-Range" else value
        )

    monkeypatch.setattr(Handler, "send_header", send)
    refused(fetch, remote, "expected a range from byte 700000")


def test_no_network(fetch, monkeypatch):
    def fail(*arguments, **keywords):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    remote = RemoteFile("http://images.example/zips/set.zip", 10)
    refused(fetch, remote, "Temporary failure in name resolution", "0 of 10 bytes", "network")


def test_no_server(fetch, server, remote):
    server.shutdown()
    server.server_close()
    refused(fetch, remote, "refused", "check the network")


def test_a_fault_of_the_disk_is_not_the_network(fetch, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "set.zip.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        fetch(RemoteFile(server.url, 10**9))
