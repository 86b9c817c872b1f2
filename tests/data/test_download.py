"""Downloads from a server on this machine that behaves, and from some that don't."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading
import urllib.request

import numpy as np
import pytest

from tenfold.data import cifar, download, load_dataset
from tenfold.errors import DataError, DownloadError

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_003, np.uint8).tobytes()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's ``files`` and behaves as the first part of the path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, manner, name = self.path.split("/", 2)
        asked = self.headers.get("Range")
        self.server.asked.append((manner, asked))
        content = self.server.files[name]
        if manner == "missing":
            self.send_error(404)
            return
        if manner == "busy":
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and manner != "norange" else 0
        if start >= len(content) > 0:
            self.send_error(416)
            return
        body = content[start:]
        if manner == "wrong":
            body = bytes(len(body))
        if manner == "long":
            body += b"more"
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if manner == "dies":
            body = body[:300_000]
        self.wfile.write(body)
        if manner == "dies":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.files = {"a.bin": CONTENT}
    served.asked = []
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def remote(server, *manners, content=CONTENT, name="a.bin"):
    port = server.server_address[1]
    urls = tuple(f"http://127.0.0.1:{port}/{manner}/{name}" for manner in manners)
    return download.Remote(name, len(content), hashlib.sha256(content).hexdigest(), urls)


def fetched(folder, *remotes, seen=None):
    return download.fetch("Test", remotes, folder, (seen if seen is not None else []).append)


def test_a_file_comes_whole_with_progress(server, tmp_path):
    seen = []
    path = fetched(tmp_path, remote(server, "good"), seen=seen)
    assert path == tmp_path / "a.bin" and path.read_bytes() == CONTENT
    assert {(p.stage, p.total, p.unit) for p in seen} == {("download", len(CONTENT), "bytes")}
    assert [p.done for p in seen] == sorted(p.done for p in seen) and seen[-1].done == len(CONTENT)
    assert list(tmp_path.iterdir()) == [path]


def test_what_came_before_is_gone_on_with(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:400_000])
    assert fetched(tmp_path, remote(server, "good")).read_bytes() == CONTENT
    assert server.asked == [("good", "bytes=400000-")]


def test_a_server_without_ranges_begins_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 400_000)
    assert fetched(tmp_path, remote(server, "norange")).read_bytes() == CONTENT


def test_a_server_that_dies_is_asked_for_the_rest(server, tmp_path):
    assert fetched(tmp_path, remote(server, "dies", "good")).read_bytes() == CONTENT
    assert server.asked == [
        ("dies", None),
        ("dies", "bytes=300000-"),
        ("dies", "bytes=600000-"),
        ("good", "bytes=900000-"),
    ]


@pytest.mark.parametrize("manner", ["missing", "busy", "wrong", "long"])
def test_the_next_mirror_is_tried(server, tmp_path, manner):
    assert fetched(tmp_path, remote(server, manner, "good")).read_bytes() == CONTENT


def test_the_next_archive_is_tried(server, tmp_path):
    other = CONTENT[::-1]
    server.files["b.bin"] = other
    path = fetched(tmp_path, remote(server, "missing"), remote(server, "good", content=other, name="b.bin"))
    assert path == tmp_path / "b.bin" and path.read_bytes() == other


def test_a_spoilt_beginning_is_thrown_away(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 400_000)
    assert fetched(tmp_path, remote(server, "good")).read_bytes() == CONTENT
    assert server.asked == [("good", "bytes=400000-"), ("good", None)]


def test_a_beginning_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetched(tmp_path, remote(server, "good")).read_bytes() == CONTENT


def test_a_whole_part_needs_no_server(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetched(tmp_path, remote(server, "missing")).read_bytes() == CONTENT
    assert server.asked == []


def test_wrong_content_is_never_kept(server, tmp_path):
    with pytest.raises(DownloadError, match="not the official archive") as caught:
        fetched(tmp_path, remote(server, "wrong"))
    assert list(tmp_path.iterdir()) == []
    assert "TENFOLD_DATA" in caught.value.hint and str(tmp_path) in caught.value.hint


def test_every_failure_is_named_once(server, tmp_path):
    with pytest.raises(DownloadError, match=r"HTTP 404 Not Found.*HTTP 503") as caught:
        fetched(tmp_path, remote(server, "missing", "missing", "busy"))
    assert caught.value.message.count("404") == 1
    assert caught.value.http_status == 502


def test_offline_is_said(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    away = download.Remote("a.bin", 5, "0" * 64, (f"http://127.0.0.1:{port}/a.bin",))
    with pytest.raises(DownloadError, match="refused"):
        fetched(tmp_path, away)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        with pytest.raises(DownloadError, match=r"no answer|timed out"):
            fetched(tmp_path, download.Remote("a.bin", 5, "0" * 64, (url,)))


def test_a_dataset_is_downloaded_unpacked_and_found_again(server, tmp_path, monkeypatch):
    """The whole way of load_dataset("cifar10") where it is nowhere, with archives of ten images a file."""
    import dataclasses

    whole = cifar.VARIANTS["cifar10"]
    layout = dataclasses.replace(whole.layouts[0], rows=(10, 10))
    monkeypatch.setitem(cifar.VARIANTS, "cifar10", dataclasses.replace(whole, layouts=(layout,)))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        files = {layout.meta: "\n".join(f"c{i}" for i in range(10)).encode()}
        rows = np.zeros((10, 3073), np.uint8)
        rows[:, 0] = np.arange(10)
        files |= {name: rows.tobytes() for name in layout.files}
        for name, content in files.items():
            member = tarfile.TarInfo(f"{layout.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    server.files[layout.archive] = packed.getvalue()
    one = remote(server, "good", content=packed.getvalue(), name=layout.archive)
    monkeypatch.setitem(download.REMOTES, "cifar10", (one,))
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    seen = []
    dataset = load_dataset("cifar10", report=seen.append)
    assert {p.stage for p in seen} == {"download", "read"}
    assert len(dataset["train"]) == 40 and len(dataset["val"]) == 10 and len(dataset["test"]) == 10
    assert (tmp_path / "cache" / "data" / layout.folder / "test_batch.bin").is_file()
    assert not (tmp_path / "cache" / "data" / layout.archive).exists()
    monkeypatch.setattr(urllib.request, "urlopen", None)
    assert load_dataset("cifar10").fingerprint == dataset.fingerprint


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be kept in"):
        download.archive(cifar.VARIANTS["cifar10"], tmp_path / "file" / "data", lambda p: None)


def test_every_archive_has_the_official_address_and_a_hash():
    for name, remotes in download.REMOTES.items():
        archives = {layout.archive for layout in cifar.VARIANTS[name].layouts}
        assert {r.file for r in remotes} == archives
        for one in remotes:
            assert len(bytes.fromhex(one.sha256)) == 32 and 160e6 < one.size < 180e6
            assert all(url.startswith("https://") and url.endswith(f"/{one.file}") for url in one.urls)
            assert any("cs.toronto.edu" in url for url in one.urls) and len(one.urls) > 1
