"""The transfer, against a server on this machine; the archive is made here. Zenodo itself is never asked."""

from __future__ import annotations

import hashlib
import http.server
import io
import stat
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ynet_lite import paths
from ynet_lite.sets import download
from ynet_lite.sets.busbra import BUSBRA
from ynet_lite.sets.download import download_busbra, fetch, main, unpack

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


class Server:
    """Serves ``content``; ``plan`` says for each request how many bytes to send before the connection is cut."""

    def __init__(self, content: bytes, ranges: bool = True):
        self.content, self.ranges, self.plan, self.asked, self.status = content, ranges, [], [], None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/set.zip"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.status:
            handler.send_error(self.status)
            return
        total, start = len(self.content), 0
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{total}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(total - start))
        handler.end_headers()
        limit = self.plan.pop(0) if self.plan else None
        body = self.content[start:] if limit is None else self.content[start : start + limit]
        handler.wfile.write(body)
        handler.close_connection = True

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    started = []

    def start(content=CONTENT, **settings) -> Server:
        started.append(Server(content, **settings))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(autouse=True)
def no_proxy_and_no_pauses(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(server, target, content=CONTENT, **settings):
    return fetch(server.url, target, len(content), digest(content), wait=0.0, **settings)


def test_plain_download_and_no_second_one(serve, tmp_path):
    server = serve()
    target = get(server, tmp_path / "deep" / "set.zip")
    assert target.read_bytes() == CONTENT and not target.with_name("set.zip.part").exists()
    get(server, target)
    assert server.asked == [None]


def test_a_cut_transfer_goes_on_where_it_stopped(serve, tmp_path):
    server = serve()
    server.plan = [1_000_000, 700_000]
    assert get(server, tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1700000-"]


def test_a_part_from_an_earlier_call_is_used(serve, tmp_path):
    server = serve()
    server.plan = [1_200_000, 0, 0]
    with pytest.raises(ConnectionError, match="1200000 bytes"):
        get(server, tmp_path / "set.zip", attempts=2)
    assert (tmp_path / "set.zip.part").stat().st_size == 1_200_000 and not (tmp_path / "set.zip").exists()
    server.asked.clear()
    assert get(server, tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.asked == ["bytes=1200000-"]


def test_a_server_without_ranges_starts_over(serve, tmp_path):
    server = serve(ranges=False)
    server.plan = [500_000]
    assert get(server, tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_a_complete_part_is_taken_and_one_that_is_too_long_is_not(serve, tmp_path):
    server = serve()
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    assert get(server, tmp_path / "set.zip").read_bytes() == CONTENT and server.asked == []
    (tmp_path / "other.zip.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "other.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["content", "longer", "shorter", "old part"])
def test_a_wrong_file_is_refused_and_removed(serve, tmp_path, how):
    wrong = {"content": b"x" + CONTENT[1:], "longer": CONTENT + b"x", "shorter": CONTENT[:-1], "old part": CONTENT}[how]
    server = serve(wrong)
    if how == "old part":
        (tmp_path / "set.zip.part").write_bytes(b"y" * 1000)
    with pytest.raises(ValueError, match="not the expected one"):
        get(server, tmp_path / "set.zip")
    assert not (tmp_path / "set.zip.part").exists()
    assert not (tmp_path / "set.zip").exists()


def test_a_wrong_address_fails_at_once(serve, tmp_path):
    server = serve()
    server.status = 404
    with pytest.raises(ConnectionError, match="404"):
        get(server, tmp_path / "set.zip")
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(ConnectionError, match="503"):
        get(server, tmp_path / "set.zip", attempts=3)
    assert len(server.asked) == 4


# ---- archives


def archive_of(path, members: dict[str, bytes], change=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change:
                change(info)
            file.writestr(info, content)
    return path


def only(tmp_path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:/evil.txt", "a\\..\\evil.txt", "link"])
def test_no_name_and_no_link_leads_out_of_the_folder(tmp_path, name, monkeypatch):
    def link(info):
        info.create_system = 3
        info.external_attr = ((stat.S_IFLNK if info.filename == "link" else stat.S_IFREG) | 0o777) << 16

    seen = []
    monkeypatch.setattr(download, "verify", lambda name, folder: seen.extend(folder.rglob("*")) or Report())
    archive = archive_of(tmp_path / "a.zip", {"good.txt": b"1", name: b"/etc/passwd"}, link)
    unpack(archive, tmp_path / "inner" / "set", replace(BUSBRA, inside=("good.txt",)))
    assert only(tmp_path) == ["a.zip", "inner"] and only(tmp_path / "inner") == ["set"]
    assert len(seen) >= 2 and not any(path.is_symlink() for path in (tmp_path / "inner").rglob("*"))


class Report:
    ok = True


def test_a_damaged_archive_leaves_nothing(tmp_path):
    archive = archive_of(tmp_path / "a.zip", {"one": CONTENT[:5000], "two": CONTENT[:5000]})
    content = bytearray(archive.read_bytes())
    content[2000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        unpack(archive, tmp_path / "set", replace(BUSBRA, inside=()))
    (tmp_path / "b.zip").write_bytes(content[:3000])
    with pytest.raises(ValueError, match="damaged"):
        unpack(tmp_path / "b.zip", tmp_path / "set", replace(BUSBRA, inside=()))
    assert only(tmp_path) == ["a.zip", "b.zip"]


def test_another_archive_and_a_full_folder_are_refused(tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "a.zip", {"other/x.txt": b"1"})
    with pytest.raises(ValueError, match="another archive"):
        unpack(archive, tmp_path / "set", replace(BUSBRA, inside=("bus_data.csv",)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("precious")
    monkeypatch.setattr(download, "verify", lambda name, folder: Report())
    with pytest.raises(OSError):
        unpack(archive, tmp_path / "set", replace(BUSBRA, inside=("x.txt",)))
    assert (tmp_path / "set" / "mine.txt").read_text() == "precious"
    assert only(tmp_path) == ["a.zip", "set"]


# ---- all of it


@pytest.fixture
def small_set(tmp_path, monkeypatch) -> bytes:
    """A zip laid out as the published one, and its list of checksums in place of the real list."""
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "png")
    files = {
        "bus_data.csv": b"ID\n",
        "5-fold-cv.csv": b"ID\n",
        "Images/bus_0001-l.png": picture.getvalue(),
        "Masks/mask_0001-l.png": picture.getvalue(),
    }
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "busbra.sha256").write_text("".join(f"{digest(data)}  {name}\n" for name, data in files.items()))
    monkeypatch.setattr(paths, "splits", lambda: splits)
    members = {f"BUSBRA/{name}": data for name, data in files.items()}
    return archive_of(tmp_path / "made.zip", {**members, "__MACOSX/BUSBRA/._x": b"junk"}).read_bytes()


def test_download_busbra(serve, small_set, tmp_path):
    server = serve(small_set)
    server.plan = [len(small_set) // 3]
    target = tmp_path / "raw" / "busbra"
    settings = {"url": server.url, "size": len(small_set), "sha256": digest(small_set)}
    assert download_busbra(target, **settings) == target
    assert only(target) == ["5-fold-cv.csv", "Images", "Masks", "bus_data.csv"]
    assert only(tmp_path / "raw") == ["busbra"]  # no archive, no part, no temporary folder
    asked = len(server.asked)
    download_busbra(target, **settings)
    assert len(server.asked) == asked
    (target / "bus_data.csv").write_text("changed")
    with pytest.raises(FileExistsError, match="bus_data.csv"):
        download_busbra(target, **settings)


def test_an_archive_with_other_files_is_refused(serve, small_set, tmp_path):
    (paths.splits() / "busbra.sha256").write_text("0" * 64 + "  bus_data.csv\n")
    server = serve(small_set)
    with pytest.raises(ValueError, match="changed: bus_data.csv"):
        download_busbra(tmp_path / "raw" / "busbra", server.url, len(small_set), digest(small_set))
    assert not (tmp_path / "raw" / "busbra").exists()


def test_command_line(serve, small_set, tmp_path, monkeypatch, capsys):
    server = serve(small_set)
    defaults = (None, server.url, len(small_set), digest(small_set))
    monkeypatch.setattr(download.download_busbra, "__defaults__", defaults)
    monkeypatch.setattr(paths, "raw", lambda: tmp_path / "raw")
    assert main(["busbra"]) == 0 and "cite" in capsys.readouterr().out
    assert main(["busbra", "--verify", "--to", str(tmp_path / "raw" / "busbra")]) == 0
    (tmp_path / "raw" / "busbra" / "bus_data.csv").unlink()
    assert main(["busbra", "--verify", "--to", str(tmp_path / "raw" / "busbra")]) == 1
    assert "missing: bus_data.csv" in capsys.readouterr().out
    assert main(["busbra"]) == 1 and "error:" in capsys.readouterr().err
    assert main(["busi"]) == 2 and "by hand" in capsys.readouterr().err
