"""Fetch BUS-BRA on request: ``python -m ynet_lite.sets.download busbra``.

The archive comes from Zenodo (DOI 10.5281/zenodo.7730709, version 1.0 in record 8231412). Size and SHA-256 of the archive, then
the SHA-256 of every file are checked before the folder gets its final name.
"""

import argparse
import http.client
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

from tqdm.auto import tqdm

from .. import paths
from ..cases.formats import sha256 as sha256_of
from ..cases.manifest import kept
from . import SETS, named
from .busbra import BUSBRA
from .folders import DataSet, verify

BUSBRA_URL = "https://zenodo.org/records/8231412/files/BUSBRA.zip?download=1"
BUSBRA_BYTES = 133_917_740
BUSBRA_SHA256 = "ba3e6ed19cc37c682d8d39e25435bbf8a555a12cb7e641b5f2117685c95580ff"
CHUNK = 1 << 18


def download_busbra(target=None, url: str = BUSBRA_URL, size: int = BUSBRA_BYTES, sha256: str = BUSBRA_SHA256) -> Path:
    """Fetch, check and unpack BUS-BRA into ``target`` (``data/raw/busbra`` when None), unless it is complete; that folder.

    Raises ``FileExistsError`` for a folder with other content, and what `fetch` and `unpack` raise.
    """
    folder = paths.yours(target) if target is not None else paths.raw() / "busbra"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        report = verify(BUSBRA, folder)
        if report.ok:
            return folder
        raise FileExistsError(f"{folder} is there but not the complete set ({report}); move it away and try again")
    archive = folder.parent / "BUSBRA.zip"
    fetch(url, archive, size, sha256)
    unpack(archive, folder, BUSBRA)
    archive.unlink()
    return folder


def fetch(url: str, target: Path, size: int, sha256: str, *, attempts: int = 5, wait: float = 2.0) -> Path:
    """Download ``url`` to the file ``target``, going on from ``<target>.part``, and check ``size`` (bytes) and ``sha256``.

    ``attempts`` counts transfers without a new byte in a row, ``wait`` is the pause between them in seconds. Raises
    ``ConnectionError`` (the part is kept) or ``ValueError`` (wrong content: the part is removed).
    """
    if target.is_file() and not _difference(target, size, sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if _length(part) > size:
        part.unlink()  # of another file
    failures = 0
    while (before := _length(part)) < size:
        reason = "the transfer was cut"
        try:
            _transfer(url, part, size)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason, code = str(error) or type(error).__name__, getattr(error, "code", 0)
            if code == 416:  # the server has nothing beyond the part: its file is another one
                break
            if 400 <= code < 500 and code not in (408, 429):
                raise ConnectionError(f"{url}: {reason}; is the address still right?") from None
        now = _length(part)
        failures = 0 if now > before else failures + 1
        if failures >= attempts:
            lost = f"{reason} ({failures} times without a new byte)"
            raise ConnectionError(f"{url}: {lost}; {now} bytes are kept in {part}: try again to go on from there")
        if now < size:
            time.sleep(wait)
    wrong = _difference(part, size, sha256)
    if wrong:
        part.unlink()
        raise ValueError(f"{url}: the file is not the expected one ({wrong}); it was removed, try again")
    return part.replace(target)


def _transfer(url: str, part: Path, size: int) -> None:
    """One request that appends to ``part``, or writes it anew where the server cannot go on; stops after ``size`` bytes."""
    start = _length(part)
    headers = {"User-Agent": "ynet-lite", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
        start = start if response.status == 206 else 0
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while file.tell() <= size and (block := response.read(CHUNK)):
                file.write(block)
                bar.update(len(block))


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _difference(path: Path, size: int, sha256: str) -> str:
    """What is wrong with a file; empty when it is as it should be."""
    if _length(path) != size:
        return f"{_length(path)} bytes instead of {size}"
    found = sha256_of(path)
    return "" if found == sha256.lower() else f"SHA-256 {found} instead of {sha256}"


def unpack(archive: Path, folder: Path, one: DataSet) -> None:
    """Unpack a zip archive, which `fetch` has checked, to ``folder``: all of it, or nothing.

    The set ``one`` may lie in one outer folder of the archive. Its files are compared with the kept checksums. Raises
    ``ValueError``; ``OSError`` when ``folder`` has content.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True) as made:
        temporary = Path(made)
        try:
            with zipfile.ZipFile(archive) as opened:
                members = tqdm(opened.infolist(), desc=f"unpacking {archive.name}", unit="file", leave=False)
                opened.extractall(temporary, members)  # never outside of it, never a link; checks the CRC at the end
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"{archive}: a damaged archive ({error}); delete it and download again") from None
        places = [temporary, *(path for path in temporary.iterdir() if path.is_dir())]
        found = next((at for at in places if all((at / part).exists() for part in one.inside)), None)
        if found is None:
            raise ValueError(f"{archive}: no folder with {', '.join(one.inside)} in it; this is another archive")
        report = verify(one, found)
        if not report.ok:
            raise ValueError(f"{archive}: {report}")
        if folder.exists():
            folder.rmdir()  # refuses a folder with content
        found.replace(folder)


def main(argv: list[str] | None = None) -> int:
    """Command line: fetch a set, or with ``--verify`` compare what is there with the kept checksums."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.sets.download", description=main.__doc__)
    parser.add_argument("name", choices=[one.name for one in SETS if one.kept == one.name])
    parser.add_argument("--to", default=None, help="folder of the set (default: data/raw/<name>)")
    parser.add_argument("--verify", action="store_true", help="download nothing, compare the files with the checksums")
    given = parser.parse_args(argv)
    try:
        if given.verify:
            report = verify(named(given.name), given.to or None)
            print(f"{report}{kept(f'{given.name}-offenders', report.offenders)}")
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
