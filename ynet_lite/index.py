"""An archive that can be searched: one SQLite file of codes, which grows, shrinks and answers."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import os
import secrets
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from . import paths
from .cases.core import Cases
from .cases.formats import read_image, sha256
from .cases.from_folder import manifest_from_folder
from .cases.loading import BOX, letterbox
from .cases.manifest import ManifestError, first_few, kept, read_manifest, row_names
from .checkpoint import Checkpoint
from .encoding import represent
from .hashing import Codes, HammingIndex, pack, percentile, usual_distances
from .search import SHIPPED, load_shipped

_TABLES = """
CREATE TABLE cases (id TEXT PRIMARY KEY, code BLOB NOT NULL, label TEXT NOT NULL, patient TEXT NOT NULL, image TEXT NOT NULL,
                    sha256 TEXT NOT NULL, added TEXT NOT NULL, thumbnail BLOB) WITHOUT ROWID;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
FORMAT = "1"
_REMEDY = "restore it from a copy, or build it anew"
CHUNK = 128  # files that one job encodes, and that one transaction writes
FAR = 95  # percentile from which on a distance is called unusual
UNKNOWN = "unknown"  # the class of a picture without a label
MOST_SHOWN = 20_000  # cases that fit into a page


@dataclass(frozen=True)
class Added:
    """What became of the files given to an index: two counts, and who is not in it and why."""

    added: int
    known: int  # in the index already, with the same picture
    failed: pd.DataFrame  # id, file, reason
    left_out: pd.DataFrame  # file, reason: what of a folder is no case


@lru_cache(maxsize=2)
def load_model(model: str) -> Checkpoint:
    """A network by the name of a shipped one or by the path of a checkpoint; kept in memory, since each job asks for it."""
    return load_shipped(model)[0] if model in SHIPPED else Checkpoint.load(model)


def encode_files(
    files: Sequence[str | Path], model: str = "busbra-full", *, jobs: int = 1, chunk: int = CHUNK
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Codes of image files, in order and chunk by chunk: (packed uint8 (n, bits / 8), the n reasons why one has no code).

    A reason is "" where all is well; the code of a file that cannot be read is 0. Memory holds a few chunks. ``jobs`` processes
    of joblib do the work, inside ``joblib.parallel_config(backend=...)`` those of a cluster. Codes do not depend on ``jobs``.
    """
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
    starts = range(0, len(files), chunk)
    yield from parallel(joblib.delayed(_encode)(str(model), [str(f) for f in files[i : i + chunk]]) for i in starts)


@torch.inference_mode()
def _encode(model: str, files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    checkpoint = load_model(model)
    cfg = checkpoint.cfg
    pictures, reasons = np.zeros((len(files), cfg.channels, cfg.size, cfg.size), np.uint8), []
    for picture, file in zip(pictures, files, strict=True):
        try:
            picture[:] = letterbox(read_image(file, cfg.channels), cfg.size)[0]
            reasons.append("")
        except (ValueError, ImportError) as error:
            reasons.append(str(error).removeprefix(f"{file}: "))
    # few at a time: what a small batch needs stays in the processor's cache
    parts = [represent(checkpoint.model, cfg, part.float()).code.float() for part in torch.from_numpy(pictures).split(16)]
    codes = pack(torch.cat(parts).numpy())
    codes[[bool(reason) for reason in reasons]] = 0
    return codes, reasons


def cases_of(source: str | Path, patient: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cases in a folder (see `manifest_from_folder`), a CSV or one image, ``case_id, image, label, group`` with whole paths;
    and what of a folder was left out.

    Of the columns of a CSV only ``image`` is needed here: ``case_id`` is the file's name where it is missing, ``label`` and
    ``group`` (the patient) are blank. Raises ``FileNotFoundError`` and `ManifestError`.
    """
    source, left_out = paths.yours(source), pd.DataFrame({"file": [], "reason": []})
    if source.is_dir():
        table, left_out = manifest_from_folder(source, patient)
        table["image"] = [os.path.abspath(source / image) for image in table["image"]]
    elif not source.is_file():
        raise FileNotFoundError(f"{source}: no such folder or file")
    else:
        table = read_manifest(source) if source.suffix.lower() == ".csv" else pd.DataFrame({"image": [os.path.abspath(source)]})
        if "image" not in table:
            raise ManifestError(f"{source}: no column image; found {', '.join(table.columns)}")
        blank = [row for row, image in zip(row_names(table), table["image"], strict=True) if not image]
        if blank:
            raise ManifestError(f"{source}: no image in {first_few(blank)}{kept(f'{source.name}-offenders', blank)}", blank)
    table = table.reindex(columns=["case_id", "image", "label", "group"], fill_value="")
    table["case_id"] = table["case_id"].where(table["case_id"] != "", [Path(image).stem for image in table["image"]])
    twice = sorted(set(table["case_id"][table["case_id"].duplicated()]))
    if twice:
        where = kept(f"{source.name}-offenders", twice)
        raise ManifestError(f"{source}: case_id must be unique; more than once: {first_few(twice)}{where}", twice)
    return table, left_out


class Index(contextlib.AbstractContextManager):
    """One SQLite file: of each case the id, the packed code, label, patient, image file, its SHA-256 and the day it came.

    `build` makes one or goes on with one that was interrupted, ``Index(path)`` opens it. What is being added when a process
    dies is not in it; two writers wait for each other. The patient is kept as a keyed hash (enough to leave out the same one;
    the key lies in the file, so it hides names from readers, not from who tries all names), with ``keep_patients`` as given.

    Raises ``FileNotFoundError``, and ``ValueError`` where the file is no index, or where its codes were made by another
    network than ``model`` (default: the one that it was built with).
    """

    def __init__(self, path: str | Path, model: str | Path = ""):
        self.path = paths.yours(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such index; make one with: ynet index FOLDER -o {self.path.name}")
        self._base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            self.about = dict(self._base.execute("SELECT name, value FROM about"))
        except sqlite3.DatabaseError as error:
            self._base.close()
            raise ValueError(f"{self.path}: not an index, or damaged ({error}); {_REMEDY}") from error
        lacks = {"format", "model", "fingerprint", "bits", "key", "thumbnails"} - set(self.about)
        if lacks:
            raise ValueError(f"{self.path}: damaged, it does not say its {', '.join(sorted(lacks))}; {_REMEDY}")
        if self.about["format"] != FORMAT:
            raise ValueError(f"{self.path}: an index of format {self.about['format']}, this version reads format {FORMAT}")
        self._base.execute("PRAGMA secure_delete = ON")
        self.model = _model(model or self.about["model"])
        self._loaded: tuple | None = None

    @classmethod
    def build(
        cls,
        path: str | Path,
        source: str | Path,
        model: str | Path = "busbra-full",
        *,
        patient: str = "",
        keep_patients: bool = False,
        thumbnails: bool = False,
        jobs: int = 1,
        progress: bool = True,
    ) -> tuple[Index, Added]:
        """Encode the cases of ``source`` (see `cases_of`) into a new index, or into what an interrupted call left of it.

        ``thumbnails`` keeps a small picture of each case: pages show it where the image file is not at hand.
        """
        path, cases, model = paths.yours(path), cases_of(source, patient), _model(model)
        if not path.exists() or not path.stat().st_size:
            checkpoint, key = load_model(model), "" if keep_patients else secrets.token_hex(32)
            about = {"format": FORMAT, "model": model, "fingerprint": checkpoint.weights_id(), "bits": checkpoint.cfg.bits}
            about |= {"key": key, "thumbnails": int(thumbnails)}
            try:
                with paths.replacing(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as base:
                    base.executescript(_TABLES)
                    base.executemany("INSERT INTO about VALUES (?, ?)", [(name, str(value)) for name, value in about.items()])
                    base.commit()
            except sqlite3.OperationalError as error:
                raise OSError(f"{path}: cannot be written ({error}); make room and try again") from error
        index = cls(path, model)
        return index, index._add(*cases, jobs, progress)

    def __len__(self) -> int:
        """Number of cases."""
        return self._base.execute("SELECT count(*) FROM cases").fetchone()[0]

    def close(self) -> None:
        self._base.close()

    def __exit__(self, *_) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._base:  # ends in a commit, after an error in a rollback
                self._base.execute("BEGIN IMMEDIATE")
                yield self._base
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: cannot be written ({error}); nothing of this step was kept") from error

    def checkpoint(self) -> Checkpoint:
        """The network of its codes. Raises ``ValueError`` where the file under its name is another one now."""
        checkpoint = load_model(self.model)
        if checkpoint.weights_id() != self.about["fingerprint"]:
            raise ValueError(
                f"{self.path}: its codes were made by another network ({self.about['fingerprint']}) than {self.model} "
                f"({checkpoint.weights_id()}); name the right one as model, or build the index anew"
            )
        return checkpoint

    def _patient(self, name: str) -> str:
        key = self.about["key"]
        return hmac.new(bytes.fromhex(key), name.encode(), hashlib.sha256).hexdigest()[:32] if key else name

    def add(self, source: str | Path, *, patient: str = "", jobs: int = 1, progress: bool = True) -> Added:
        """Encode what is new in ``source`` (see `cases_of`). Each chunk of files is written whole or not at all; a file that
        cannot be read is listed and the others go on."""
        return self._add(*cases_of(source, patient), jobs, progress)

    def _add(self, table: pd.DataFrame, left_out: pd.DataFrame, jobs: int, progress: bool) -> Added:
        self.checkpoint()
        there, failed, new = dict(self._base.execute("SELECT id, sha256 FROM cases")), [], []
        known = added = start = 0
        digests = [sha256(file) if Path(file).is_file() else "" for file in table["image"]]
        for row in table.assign(sha256=digests).itertuples():
            if not row.sha256:
                failed.append((row.case_id, row.image, "no such file"))
            elif row.case_id not in there:
                new.append(row)
            elif there[row.case_id] == row.sha256:
                known += 1
            else:
                failed.append((row.case_id, row.image, "this id belongs to another picture; remove that one first"))
        with tqdm(total=len(new), desc=f"encoding for {self.path.name}", unit="case", disable=not progress) as bar:
            for codes, reasons in encode_files([row.image for row in new], self.model, jobs=jobs):
                rows = new[start : start + len(codes)]
                start += len(codes)
                failed += [(row.case_id, row.image, reason) for row, reason in zip(rows, reasons, strict=True) if reason]
                lines = [self._line(row, code) for row, code, bad in zip(rows, codes, reasons, strict=True) if not bad]
                if lines:
                    with self._writing() as base:  # another writer may have been here since: what it added stays
                        sql = "INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, date('now'), ?) ON CONFLICT DO NOTHING"
                        added += base.executemany(sql, lines).rowcount
                bar.update(len(codes))
        return Added(added, known, pd.DataFrame(failed, columns=["id", "file", "reason"]), left_out)

    def _line(self, row, code: np.ndarray) -> tuple:
        small = None
        if int(self.about["thumbnails"]):
            file = io.BytesIO()
            Image.fromarray(letterbox(read_image(row.image, 3), 96)[0].transpose(1, 2, 0)).save(file, "PNG")
            small = file.getvalue()
        folder = self.path.resolve().parent
        image = os.path.relpath(row.image, folder) if Path(row.image).is_relative_to(folder) else row.image
        return row.case_id, code.tobytes(), row.label, self._patient(row.group or Path(row.image).stem), image, row.sha256, small

    def remove(self, ids: Sequence[str]) -> None:
        """Remove cases: their lines are overwritten in the file. ``KeyError`` where an id is unknown; then none is removed."""
        with self._writing() as base:
            unknown = [id for id in ids if not base.execute("SELECT 1 FROM cases WHERE id = ?", (id,)).fetchone()]
            if unknown:
                raise KeyError(f"{self.path.name} has no case {first_few(unknown)}; nothing was removed")
            base.executemany("DELETE FROM cases WHERE id = ?", [(id,) for id in ids])
        self._base.execute("VACUUM")

    def info(self) -> dict:
        """What is in it: cases, patients, classes with counts, dates, network, size of the file in bytes."""
        sql = "SELECT count(*), count(DISTINCT patient), min(added), max(added) FROM cases"
        about = dict(zip(("cases", "patients", "first added", "last added"), self._base.execute(sql).fetchone(), strict=True))
        about["classes"] = dict(self._base.execute("SELECT label, count(*) FROM cases GROUP BY label ORDER BY label"))
        about |= {name: self.about[name] for name in ("model", "fingerprint", "bits")}
        about["patients kept as"] = "keyed hashes" if self.about["key"] else "given"
        return about | {"thumbnails": self.about["thumbnails"] == "1", "bytes": self.path.stat().st_size}

    def _load(self) -> tuple[pd.DataFrame, Codes, dict[str, HammingIndex], np.ndarray]:
        """Lines in id order, their codes, searchers by class, `usual_distances`; read anew where anybody has written since."""
        version = self._base.execute("PRAGMA data_version").fetchone()[0], self._base.total_changes
        if self._loaded is None or self._loaded[0] != version:
            if not len(self):
                raise ValueError(f"{self.path}: the index is empty")
            try:
                lines = self._base.execute("SELECT id, code, label, patient, image, sha256 FROM cases ORDER BY id").fetchall()
                table = pd.DataFrame(lines, columns=["id", "code", "label", "patient", "image", "sha256"])
                packed = np.frombuffer(b"".join(table.pop("code")), np.uint8).reshape(len(table), -1)
                labels = np.unique(table["label"], return_inverse=True)[1]
                codes = Codes(packed, table["id"].to_numpy(str), labels, int(self.about["bits"]), self.about["fingerprint"])
            except (sqlite3.DatabaseError, TypeError, ValueError) as error:
                raise ValueError(f"{self.path}: damaged ({error}); {_REMEDY}") from error
            self._loaded = version, table, codes, {"": HammingIndex(codes)}, usual_distances(codes, table["patient"])
        return self._loaded[1:]

    def search(
        self,
        source: str | Path,
        k: int = 10,
        *,
        patient: str = "",
        exclude_same_patient: bool = False,
        label: str = "",
        include_itself: bool = False,
        jobs: int = 1,
    ) -> pd.DataFrame:
        """The ``k`` cases nearest to an image, or to each image of a folder or CSV (see `cases_of`); fewer if there are no more.

        Parameters
        ----------
        patient : of one image, where the index does not hold that picture; of a folder, as in `cases_of`. (A CSV has ``group``.)
        exclude_same_patient : leave out cases of the query's patient.
        label : only cases of this class.
        include_itself : also list the same picture, which is left out otherwise.

        Returns
        -------
        DataFrame ``query, rank, id, label, patient, image, bits, percentile``. ``bits`` that differ; equal ones in order of id.
        ``percentile``: how many in a hundred cases of the index have their nearest case of another patient closer than that.
        Near 100 the image is unlike what the index holds. A low number proves nothing: noise has near answers, too.
        Raises ``ValueError`` where no image can be read, warns where some cannot.
        """
        self.checkpoint()
        asked, _ = cases_of(source, patient)
        if k < 1:
            raise ValueError(f"k = {k}; at least one answer must be asked for")
        source = paths.yours(source)
        if (source.is_dir() and not patient) or (source.is_file() and source.suffix.lower() != ".csv"):
            asked["group"] = patient
        encoded = list(encode_files(list(asked["image"]), self.model, jobs=jobs))
        asked["code"] = [code for codes, _ in encoded for code in codes]
        asked["reason"] = [reason for _, reasons in encoded for reason in reasons]
        bad = [f"{row.image}: {row.reason}" for row in asked.itertuples() if row.reason]
        where = first_few(bad) + kept(f"{self.path.resolve()}.queries", bad)
        if len(bad) == len(asked):
            raise ValueError(where)
        if bad:
            warnings.warn(f"{len(bad)} of {len(asked)} images cannot be read: {where}", stacklevel=2)
        read = asked[asked["reason"] == ""].itertuples()
        return pd.concat([self._answers(row, k, exclude_same_patient, label, include_itself) for row in read], ignore_index=True)

    def _answers(self, query, k: int, exclude_same_patient: bool, label: str, include_itself: bool) -> pd.DataFrame:
        table, codes, searchers, usual = self._load()
        itself = (table["sha256"] == sha256(query.image)).to_numpy()
        leave = np.zeros(len(table), bool) if include_itself else itself.copy()
        if exclude_same_patient:
            patients = {*table["patient"][itself], *([self._patient(query.group)] if query.group else [])}
            if not patients:
                raise ValueError(f"exclude_same_patient: {query.image} is not in the index; say who its patient is")
            leave |= table["patient"].isin(patients).to_numpy()
        places = np.flatnonzero(table["label"] == label) if label else np.arange(len(table))
        if not len(places):
            raise ValueError(f"no case of class {label!r}; the classes are {', '.join(map(repr, sorted(set(table['label']))))}")
        if label not in searchers:
            searchers[label] = HammingIndex(Codes(codes.packed[places], codes.ids[places], codes.labels[places], codes.bits))
        # every case that is left out may stand before the k-th answer
        bits, rows = searchers[label].search(query.code[None], min(k + int(leave[places].sum()), len(places)))
        rows, bits = places[rows[0]], bits[0].astype(int)
        rows, bits = rows[~leave[rows]][:k], bits[~leave[rows]][:k]
        about = {"rank": np.arange(1, len(rows) + 1), "bits": bits, "percentile": percentile(bits, usual)}
        answers = table.iloc[rows].reset_index(drop=True).assign(query=query.case_id, **about)
        return answers[["query", "rank", "id", "label", "patient", "image", "bits", "percentile"]]

    def codes(self) -> Codes:
        """The codes of all cases, in order of id."""
        return self._load()[1]

    def cases(self, ids: Sequence[str] | None = None, classes: Sequence[str] = ()) -> Cases:
        """Its pictures in order of id, all or those of ``ids``, for a page to click through; ``classes`` as in `pictures`.

        Raises ``ValueError`` where there are too many for a page, or where pictures are neither on disk nor kept as thumbnails.
        """
        table = self._load()[0].rename(columns={"id": "case_id", "patient": "group"})
        table = table if ids is None else table[table["case_id"].isin(set(ids))]
        if len(table) > MOST_SHOWN:
            raise ValueError(f"{self.path}: {len(table)} cases are too many for a page (at most {MOST_SHOWN}); use search")
        files = [self.path.resolve().parent / image for image in table["image"]]
        kept = dict(self._base.execute("SELECT id, thumbnail FROM cases WHERE thumbnail IS NOT NULL"))
        shown = [file if file.is_file() else kept.get(name, file) for name, file in zip(table["case_id"], files, strict=True)]
        return pictures(table.assign(image=shown), self.checkpoint(), self.path.name, classes)


def pictures(table: pd.DataFrame, checkpoint: Checkpoint, name: str, classes: Sequence[str] = ()) -> Cases:
    """The pictures of `cases_of` as `Cases` at the network's size; see `without_outlines`.

    Raises ``ValueError`` that lists files that cannot be read.
    """
    found, bad = [], []
    for image in table["image"]:
        try:
            found.append(squared(read_image(image, checkpoint.cfg.channels), checkpoint.cfg.size))
        except (ValueError, ImportError) as error:
            bad.append(str(error))
    if bad:
        where = kept(f"{name}-pictures", bad)
        raise ValueError(f"{name}: {len(bad)} of {len(table)} pictures cannot be shown: {first_few(bad)}{where}")
    return without_outlines(found, table, name, classes)


def squared(image: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """An image (C, H, W) in a square (C, size, size), and where: its `BOX`."""
    square, box = letterbox(image, size)
    return square, (*image.shape[1:], *box)


def without_outlines(found: Sequence, table: pd.DataFrame, name: str, classes: Sequence[str] = ()) -> Cases:
    """`Cases` of images from `squared` and of their ``case_id, label, group``; a blank label is the class "unknown".

    ``classes``: names of classes beside those of the table.
    """
    images, boxes = zip(*found, strict=True)
    about = pd.DataFrame(boxes, columns=list(BOX)).assign(
        case_id=list(table["case_id"]), label=[label or UNKNOWN for label in table["label"]], group=list(table["group"]), fold=0
    )
    class_names = tuple(sorted({*about["label"], *(label or UNKNOWN for label in classes)}))
    rows = np.array([class_names.index(label) for label in about["label"]])
    images, n = np.stack(images), len(images)
    return Cases(images, np.zeros_like(images[:, 0]), np.zeros(n, bool), rows, about, class_names=class_names, name=name)


def _model(model: str | Path) -> str:
    return str(model) if str(model) in SHIPPED else os.path.abspath(paths.yours(model))
