"""The manifest: one table that says everything about a data set, and the checks that keep its splits honest."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

REQUIRED = ("case_id", "image", "label", "group")

SEPARATOR = ";"  # between several mask files of one case

EMPTY = "empty"  # mask cell of a case that is known to show no lesion

SHOWN = 5  # offenders that an error lists


class ManifestError(ValueError):
    """A manifest that cannot be used; the message lists the first ``offenders`` by row and says what would be right."""

    def __init__(self, message: str, offenders: Sequence[str] = ()):
        super().__init__(message)
        self.offenders = tuple(offenders)


def read_manifest(path) -> pd.DataFrame:
    """Read a manifest CSV: every cell as text without outer blanks, paths made absolute relative to the CSV's folder.

    Fully blank lines are left out, but the index keeps counting them, so that ``index + 2`` is the line of the file (as
    long as no cell holds a line break). A blank ``mask`` cell means "outline unknown", the word ``empty`` "known to
    show no lesion"; several mask files are separated by ``;``. Raises ``FileNotFoundError`` when there is no such file
    and `ManifestError` when it is not a CSV table. The table is only read here; `check_manifest` judges it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"manifest {path}: no such file; it must be a CSV with the columns {', '.join(REQUIRED)} and fold or split"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # no index: rows that end in a comma which the header lacks would move all columns by one
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig", index_col=False
            )
    except pd.errors.EmptyDataError:
        raise ManifestError(f"manifest {path}: the file is empty; its first line must name the columns") from None
    except pd.errors.ParserWarning:
        raise ManifestError(
            f"manifest {path}: its rows have more cells than the first line has names; a comma at the end of the rows does this: "
            "remove it, or put one at the end of the first line too"
        ) from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"manifest {path}: not a comma-separated table in UTF-8 ({error})") from None
    table = table.fillna("")
    table.columns = [str(column).strip() for column in table.columns]
    if len(set(table.columns)) < len(table.columns):
        raise ManifestError(f"manifest {path}: a column name stands twice in {list(table.columns)}")
    table = table.apply(lambda column: column.str.strip()) if len(table) else table
    table = table[(table != "").any(axis=1)] if len(table) else table
    base = path.resolve().parent
    for column in ("image", "mask"):
        if column in table:
            table[column] = [SEPARATOR.join(_place(part, base) for part in files(cell)) for cell in table[column]]
    return table


def files(cell) -> list[str]:
    """The parts of an ``image`` or ``mask`` cell: file names (or the word ``empty``), none for a blank cell."""
    parts = [] if _is_blank(cell) else [part.strip() for part in str(cell).split(SEPARATOR) if part.strip()]
    return [EMPTY if part.lower() == EMPTY else part for part in parts]


def check_manifest(table: pd.DataFrame, name: str, *, need_files: bool = True, folder=None) -> pd.DataFrame:
    """Return a clean copy of ``table`` (text labels, integer folds, a ``mask`` column), or raise one `ManifestError`.

    Parameters
    ----------
    table : columns ``case_id, image, label, group`` and ``fold`` (integers) or ``split`` (``train`` / ``test``),
    optional
        ``mask`` and any others. The index is kept; rows are named as ``index + 2``, their line in the CSV.
    name : what the error calls the set.
    need_files : also require that every image and mask file exists.
    folder : what relative paths are relative to; the current folder when None.

    The error has one line per kind of problem (missing column, empty table, blank cell or NaN label, duplicate case,
    one class only, one class written in two ways, fold or split that is none, one side empty, patient on two sides, missing
    file) with its first five offenders.
    """
    problems: list[str] = []
    missing = [column for column in REQUIRED if column not in table]
    if "fold" not in table and "split" not in table:
        missing.append("fold (integers) or split (train / test)")
    if missing:
        hint = " (one column only: the CSV must be separated by commas)" if len(table.columns) == 1 else ""
        raise ManifestError(f"{name}: missing column(s) {', '.join(missing)}; found {', '.join(map(str, table.columns))}{hint}")
    if len(table) == 0:
        raise ManifestError(f"{name}: the manifest has no rows; it needs at least one case of each of two classes")

    table = table.copy()
    if "mask" not in table:
        table["mask"] = ""
    rows = row_names(table)
    blank = {column: table[column].map(_is_blank).to_numpy(bool) for column in REQUIRED}
    for column, wrong in blank.items():
        what = "label is blank or NaN" if column == "label" else f"{column} is blank"
        _add(problems, wrong, lambda i: rows[i], f"{what}; every case needs one")
    for column in REQUIRED:
        table[column] = ["" if bad else str(value).strip() for value, bad in zip(table[column], blank[column], strict=True)]
    table["mask"] = ["" if _is_blank(value) else str(value).strip() for value in table["mask"]]

    ids = table["case_id"]
    _add(
        problems,
        (ids.duplicated(keep="first") & (ids != "")).to_numpy(),
        lambda i: f"{rows[i]} {ids.iloc[i]!r}",
        "case_id stands in an earlier row already; it must be unique",
    )
    classes = sorted(set(table["label"]) - {""})
    if len(classes) < 2:
        problems.append(f"one class only: {classes}; retrieval by class needs at least two")
    no_class = table["label"].str.lower().isin(NO_CLASS).to_numpy()
    _add(
        problems, no_class, lambda i: f"{rows[i]} {table['label'].iloc[i]!r}", "label says that there is none; leave the row out"
    )
    for column, what in (("label", "each class"), ("group", "each patient")):
        alike: dict[str, list[str]] = {}
        for value in sorted(set(table[column]) - {""}):
            alike.setdefault(_spelling(value), []).append(value)
        slips = [
            " and ".join(map(ascii if column == "label" else repr, several)) for several in alike.values() if len(several) > 1
        ]
        if slips:
            problems.append(
                f"{column}s that differ only in capitals or blanks, in the form of a number or in Unicode; write {what} in one "
                f"way: {first_few(slips)}"
            )
    if "fold" in table and "split" in table:
        problems.append("both fold and split divide the cases; keep one of the two columns")
    for column in ("fold", "split"):
        if column in table:
            _check_sides(table, column, rows, blank["group"], problems)
    if need_files:
        _check_files(table, rows, folder, problems)
    if problems:
        raise ManifestError(f"{name}: {len(problems)} problem(s) in the manifest\n- " + "\n- ".join(problems))
    if "fold" in table:
        table["fold"] = [int(float(value)) for value in table["fold"]]
    return table


def _is_blank(value) -> bool:
    """Blank, None or NaN; also the text ``nan`` that a careless export leaves behind."""
    if value is None or (not isinstance(value, str) and bool(pd.isna(value))):
        return True
    return str(value).strip().lower() in ("", "nan", "<na>")


NO_CLASS = ("none", "null", "na", "n/a", "?", "-")


def _spelling(value: str) -> str:
    """``value`` without what two spellings of one name differ in: capitals, blanks, invisible signs, Unicode form, 01 and 1.0."""
    text = unicodedata.normalize("NFKC", value).casefold()
    text = " ".join("".join(sign for sign in text if unicodedata.category(sign) != "Cf").split())
    if re.fullmatch(r"\d+(\.\d*)?", text):
        whole, _, part = text.partition(".")
        part = part.rstrip("0")
        text = (whole.lstrip("0") or "0") + (f".{part}" if part else "")
    return text


def row_names(table: pd.DataFrame) -> list[str]:
    """How errors name the rows: ``row L`` with L the line in the CSV (index + 2; the header is line 1)."""
    integers = pd.api.types.is_integer_dtype(table.index)
    return [f"row {int(i) + 2}" if integers else f"row {i}" for i in table.index]


def first_few(items: Sequence[str], count: int | None = None) -> str:
    """``a, b, c, d, e and 7 more``."""
    total = len(items) if count is None else count
    shown = list(items[:SHOWN])
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def _add(problems: list[str], wrong: np.ndarray, describe, what: str) -> None:
    index = np.flatnonzero(wrong)
    if len(index):
        problems.append(f"{what}: " + first_few([describe(i) for i in index[:SHOWN]], len(index)))


def _integer(value) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if np.isfinite(number) and number == int(number) else None


def _check_sides(table: pd.DataFrame, column: str, rows: list[str], no_group: np.ndarray, problems: list[str]) -> None:
    values = list(table[column])
    if column == "fold":
        sides = [_integer(value) for value in values]
        right = "fold must be a whole number"
    else:
        sides = [value if value in ("train", "test") else None for value in map(_text, values)]
        right = "split must be 'train' or 'test' (validation is drawn from the training patients)"
        table[column] = [_text(value) for value in values]
    wrong = np.array([side is None for side in sides])
    _add(problems, wrong, lambda i: f"{rows[i]} has {values[i]!r}", right)
    present = sorted({side for side in sides if side is not None})
    if len(present) < 2 and not wrong.any():
        problems.append(f"every case has {column} {present[0]!r}; queries and database both need cases, so at least two")
    where: dict[str, dict] = {}
    for i, (group, side) in enumerate(zip(table["group"], sides, strict=True)):
        if side is not None and not no_group[i]:
            where.setdefault(group, {}).setdefault(side, rows[i])
    leaks = [
        f"patient {group!r} in " + " and ".join(f"{column} {side} ({row})" for side, row in sorted(seen.items()))
        for group, seen in where.items()
        if len(seen) > 1
    ]
    if leaks:
        problems.append(
            f"{len(leaks)} patient(s) (group) in two {column}s; all cases of a patient must share one: " + first_few(leaks)
        )


def _text(value) -> str:
    return "" if _is_blank(value) else str(value).strip()


def _check_files(table: pd.DataFrame, rows: list[str], folder, problems: list[str]) -> None:
    base = Path(folder) if folder is not None else Path()
    for column in ("image", "mask"):
        lost, wrong = [], []
        for row, cell in zip(rows, table[column], strict=True):
            parts = files(cell)
            if EMPTY in parts and (column == "image" or len(parts) > 1):
                wrong.append(f"{row} {cell!r}")
                continue
            lost += [f"{row} {part}" for part in parts if part != EMPTY and not (base / part).is_file()]
            if column == "image" and len(parts) > 1:
                wrong.append(f"{row} {cell!r}")
        if lost:
            hint = "" if column == "image" else " (leave the cell blank if the outline is unknown)"
            problems.append(f"{column} file not found{hint}: {first_few(lost)}")
        if wrong:
            right = "image must name one file" if column == "image" else f"mask mixes {EMPTY!r} with files"
            problems.append(f"{right}: {first_few(wrong)}")


def _place(part: str, base: Path) -> str:
    return part if part == EMPTY else str(base / part)
