"""Fetch BUS-BRA on request: ``python -m ynet_lite.sets.download busbra``.

The archive comes from Zenodo (DOI 10.5281/zenodo.7730709, version 1.0 in record 8231412). A cut transfer goes on where
it stopped; size and SHA-256 of the archive, the names in it, and the SHA-256 of every file are checked before the
folder gets its final name. The tests run this against a server on the own machine: they cover the transfer, not Zenodo
itself.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import stat
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from .. import paths
from . import SETS, find, named, verify
from .busbra import BUSBRA

BUSBRA_URL = "https://zenodo.org/records/8231412/files/BUSBRA.zip?download=1"

BUSBRA_BYTES = 133_917_740

BUSBRA_SHA256 = "ba3e6ed19cc37c682d8d39e25435bbf8a555a12cb7e641b5f2117685c95580ff"

CHUNK = 1 << 18

MOST_BYTES = 1 << 30  # unpacked; the real set has 140 MB

MOST_MEMBERS = 20_000


def download_busbra(target=None, url: str = BUSBRA_URL, size: int = BUSBRA_BYTES, sha256: str = BUSBRA_SHA256) -> Path:
    """Fetch, check and unpack BUS-BRA into ``target`` (``data/raw/busbra`` when None); returns that folder.

    An interrupted download keeps ``BUSBRA.zip.part`` beside the folder and goes on at the next call. Nothing is fetched
    when the folder is there and complete. Raises ``FileExistsError`` for a folder with other content,
    ``ConnectionError`` when the transfer keeps breaking, ``ValueError`` for an archive that is not the published one or
    not safe to unpack.
    """
    folder = paths.yours(target) if target is not None else paths.raw() / "busbra"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        report = verify("busbra", folder)
        if report.ok:
            return folder
        raise FileExistsError(f"{folder} is there but not the complete set ({report}); move it away and try again")
    archive = folder.parent / "BUSBRA.zip"
    fetch(url, archive, size=size, sha256=sha256)
    unpack(archive, folder, inside=BUSBRA.inside, name="busbra")
    archive.unlink()
    return folder


def fetch(url: str, target, *, size: int | None = None, sha256: str | None = None, attempts: int = 5, wait: float = 2.0) -> Path:
    """Download ``url`` to the file ``target``, going on from ``<target>.part`` if there is one, and check it.

    ``size`` in bytes and ``sha256`` (hexadecimal) are what the whole file must have; ``attempts`` counts transfers
    without a new byte in a row, ``wait`` is the pause between them in seconds. Raises ``ConnectionError`` (the part is
    kept) or ``ValueError`` (wrong content: the part is removed).
    """
    target = Path(target)
    if target.is_file() and not _difference(target, size, sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures, reason = 0, ""
    while True:
        before = _length(part)
        try:
            complete = _transfer(url, part, size)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            complete, reason = False, str(error) or type(error).__name__
            if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in (408, 416, 429):
                raise ConnectionError(f"{url}: {reason}; is the address still right?") from None
        if complete:
            break
        failures = 0 if _length(part) > before else failures + 1
        if failures >= attempts:
            raise ConnectionError(
                f"{url}: {reason or 'the transfer was cut'} ({failures} times without a new byte); {_length(part)} "
                f"bytes are kept in {part}: try again to go on from there"
            )
        time.sleep(wait)
    wrong = _difference(part, size, sha256)
    if wrong:
        part.unlink()
        raise ValueError(f"{url}: the file is not the expected one ({wrong}); it was removed, try again")
    os.replace(part, target)
    return target


def _transfer(url: str, part: Path, size: int | None) -> bool:
    """One request that appends to ``part``; True when the file is complete."""
    start = _length(part)
    if size is not None and start == size:
        return True
    headers = {"User-Agent": "ynet-lite", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond the part: it is complete, or from another file
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(start):
                return True
            part.unlink()
            return False
        raise
    with response:
        going_on = response.status == 206 and _range_start(response) == start
        if response.status == 206 and not going_on:
            part.unlink(missing_ok=True)
            return False
        if not going_on:
            start = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else size
        with (
            part.open("ab" if going_on else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
                if size is not None and file.tell() > size:
                    return True  # too long: the check that follows says so
    return total is None or _length(part) >= total


def _range_start(response) -> int | None:
    """First byte that the answer says it holds, from ``Content-Range: bytes 10-99/100``."""
    unit, _, span = (response.headers.get("Content-Range") or "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _difference(path: Path, size: int | None, sha256: str | None) -> str:
    """What is wrong with a file; empty when it is as it should be."""
    if size is not None and path.stat().st_size != size:
        return f"{path.stat().st_size} bytes instead of {size}"
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            return f"SHA-256 {found} instead of {sha256}"
    return ""


def unpack(archive, folder, *, inside=(), name: str | None = None, most_bytes: int = MOST_BYTES) -> Path:
    """Unpack a zip archive to ``folder``: all of it, after every check, or nothing.

    Before anything is written every member is checked: no absolute path, no ``..``, no link or special file, no
    encryption, no name twice, at most ``most_bytes`` and `MOST_MEMBERS` in sum, and room on the disk. ``inside`` names
    what the set's folder must hold; it may lie in one outer folder of the archive. With ``name`` its files are compared
    with the kept checksums. Raises ``ValueError``; ``FileExistsError`` when ``folder`` has content.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has content already; move it away")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = _safe_members(opened, archive, most_bytes)
                needed, free = sum(member.file_size for member in members), shutil.disk_usage(temporary).free
                if needed > free:
                    raise ValueError(f"{archive}: needs {needed / 1e6:.0f} MB, {folder.parent} has {free / 1e6:.0f} MB left")
                for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file", leave=False):
                    path = temporary / member.filename
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file, CHUNK)  # checks the CRC at the end
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"{archive}: a damaged archive ({error}); delete it and download again") from None
        top = [path for path in temporary.iterdir() if path.is_dir()]
        candidates = [at for at in (temporary, *top) if all((at / part).exists() for part in inside)]
        if not candidates:
            raise ValueError(f"{archive}: no folder with {', '.join(inside)} in it; this is another archive")
        if name is not None:
            report = verify(name, candidates[0])
            if not report.ok:
                raise ValueError(f"{archive}: {report}")
        if folder.exists():
            folder.rmdir()  # empty, as checked above
        os.replace(candidates[0], folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _safe_members(opened: zipfile.ZipFile, archive: Path, most_bytes: int) -> list[zipfile.ZipInfo]:
    members, seen = [], set()
    for member in opened.infolist():
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or any(sign in member.orig_filename for sign in ("\\", ":", "\0")):
            raise ValueError(f"{archive}: unsafe name {member.orig_filename!r}; members must lie below the archive's root")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive}: {member.filename!r} is a link or a special file; only plain files are unpacked")
        if member.flag_bits & 1:
            raise ValueError(f"{archive}: {member.filename!r} is encrypted")
        if member.is_dir() or path.parts[0] == "__MACOSX":
            continue
        if str(path).casefold() in seen:
            raise ValueError(f"{archive}: {member.filename!r} stands in the archive twice")
        seen.add(str(path).casefold())
        members.append(member)
    total = sum(member.file_size for member in members)
    if total > most_bytes or len(members) > MOST_MEMBERS:
        raise ValueError(
            f"{archive}: {len(members)} files of {total / 1e6:.0f} MB in sum; at most {MOST_MEMBERS} files of "
            f"{most_bytes / 1e6:.0f} MB are unpacked"
        )
    return members


def main(argv: list[str] | None = None) -> int:
    """Command line: fetch a set, or with ``--verify`` compare what is there with the kept checksums."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.sets.download", description=main.__doc__)
    parser.add_argument("name", choices=[one.name for one in SETS if one.kept == one.name])
    parser.add_argument("--to", default=None, help="folder of the set (default: data/raw/<name>)")
    parser.add_argument("--verify", action="store_true", help="download nothing, compare the files with the checksums")
    given = parser.parse_args(argv)
    try:
        if given.verify:
            report = verify(given.name, Path(given.to) if given.to else find(given.name))
            print(report)
            return 0 if report.ok else 1
        if given.name != "busbra":
            print(f"{given.name} cannot be fetched by a program: {named(given.name).how_to_get}", file=sys.stderr)
            return 2
        print(f"BUS-BRA is in {download_busbra(given.to)}; please cite DOI 10.1002/mp.16812 when you use it")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
