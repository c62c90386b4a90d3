"""The manifest: one table that says everything about a data set, and the checks that keep its splits honest."""

import re
import unicodedata
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths

REQUIRED = ("case_id", "image", "label", "group")
SEPARATOR = ";"  # between several mask files of one case
EMPTY = "empty"  # mask cell of a case that is known to show no lesion
NO_CLASS = ("none", "null", "na", "n/a", "?", "-")
SHOWN = 5  # offenders that an error lists


class ManifestError(ValueError):
    """A manifest that cannot be used; the message lists the first ``offenders`` by row and says what would be right.

    With the ``name`` of the set, its end says where all of them are written down (see `kept`).
    """

    def __init__(self, message: str, offenders: Sequence[str] = (), name: str = ""):
        super().__init__(message + (kept(f"{name}-offenders", offenders) if name else ""))
        self.offenders = tuple(offenders)


def read_manifest(path) -> pd.DataFrame:
    """Read a manifest CSV (see `read_text`) with its paths made absolute, relative to the CSV's folder.

    A blank ``mask`` cell means "outline unknown", the word ``empty`` "known to show no lesion"; several mask files are separated
    by ``;``. Raises ``FileNotFoundError`` and `ManifestError`. The table is only read here; `check_manifest` judges it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"manifest {path}: no such file; it must be a CSV with the columns {', '.join(REQUIRED)} and fold or split"
        )
    table = read_text(path, f"manifest {path}")
    base = path.resolve().parent
    for column in ("image", "mask"):
        if column in table:
            parts = [[part if part == EMPTY else _place(base, part) for part in files(cell)] for cell in table[column]]
            table[column] = [SEPARATOR.join(names) for names in parts]
    return table


def read_text(path: Path, name: str, tabs: bool = False) -> pd.DataFrame:
    """A table in UTF-8, divided by commas, or with ``tabs`` by tabs where its first line has more of them; stripped text cells.

    Fully blank lines are left out, but the index keeps counting them: ``index + 2`` is the line of the file as long as no cell
    holds a line break. Raises `ManifestError`, which calls the file ``name``.
    """
    try:
        first = path.read_bytes().partition(b"\n")[0]
        mark, divided = ("tab", "\t") if tabs and first.count(b"\t") > first.count(b",") else ("comma", ",")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # no index: rows that end in a comma which the header lacks would move all columns by one
            settings = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
            table = pd.read_csv(path, sep=divided, encoding="utf-8-sig", **settings).fillna("")
    except pd.errors.EmptyDataError:
        raise ManifestError(f"{name}: the file is empty; its first line must name the columns") from None
    except pd.errors.ParserWarning:
        raise ManifestError(
            f"{name}: its rows have more cells than the first line has names; a {mark} at the end of the rows does this: "
            "remove it, or put one at the end of the first line too"
        ) from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{name}: not a {'comma- or tab' if tabs else 'comma'}-separated table in UTF-8 ({error})") from None
    table.columns = [str(column).strip() for column in table.columns]
    if table.columns.has_duplicates:
        raise ManifestError(f"{name}: a column name stands twice in {list(table.columns)}")
    table = table.map(str.strip)
    return table[(table != "").any(axis=1)]


def _place(base: Path, part: str) -> str:
    """The path of a file; found also where its name was written on another system: backslashes, another Unicode form."""
    slashed = part.replace("\\", "/")
    forms = [part, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return str(base / next((form for form in forms if (base / form).exists()), part))


def files(cell) -> list[str]:
    """The parts of an ``image`` or ``mask`` cell: file names (or the word ``empty``), none for a blank cell."""
    parts = [part.strip() for part in _text(cell).split(SEPARATOR) if part.strip()]
    return [EMPTY if part.lower() == EMPTY else part for part in parts]


def row_names(table: pd.DataFrame) -> list[str]:
    """How errors name the rows: ``row L`` with L the line in the CSV (index + 2; the header is line 1)."""
    integers = pd.api.types.is_integer_dtype(table.index)
    return [f"row {int(i) + 2}" if integers else f"row {i}" for i in table.index]


def first_few(items: Sequence[str]) -> str:
    """``a, b, c, d, e and 7 more``."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def kept(name: str, lines: Sequence[str]) -> str:
    """Where all ``lines`` are written down, as the end of a message, when they are more than `first_few` shows.

    name : of the file, without its ending: in the folder of the cache, where it is not a whole path.
    """
    if len(lines) <= SHOWN:
        return ""
    path = paths.cache() / f"{name}.txt"
    try:
        paths.write_text(path, "\n".join([*lines, ""]))
    except OSError:
        return ""  # the message holds the first ones, and that is what matters
    return f" (all of them in {path})"


def check_manifest(table: pd.DataFrame, name: str, *, need_files: bool = True, folder=None) -> pd.DataFrame:
    """Return a clean copy of ``table`` (text labels, integer folds, a ``mask`` column), or raise one `ManifestError`.

    Parameters
    ----------
    table : columns ``case_id, image, label, group`` and ``fold`` (integers) or ``split`` (``train`` / ``test``), optional
        ``mask`` and any others. The index is kept; rows are named as ``index + 2``, their line in the CSV.
    name : what the error calls the set.
    need_files : also require that every image and mask file exists, relative paths below ``folder`` (the current one when None).

    The error has one line per kind of problem with its first five offenders; where there are more, all are written down (`kept`).
    """
    missing = [column for column in REQUIRED if column not in table]
    if "fold" not in table and "split" not in table:
        missing.append("fold (integers) or split (train / test)")
    if missing:
        hint = " (one column only: the CSV must be separated by commas)" if len(table.columns) == 1 else ""
        raise ManifestError(f"{name}: missing column(s) {', '.join(missing)}; found {', '.join(map(str, table.columns))}{hint}")
    if len(table) == 0:
        raise ManifestError(f"{name}: the manifest has no rows; it needs at least one case of each of two classes")

    table = table.assign(mask=table["mask"] if "mask" in table else "")
    rows = np.array(row_names(table), object)
    problems: dict[str, list[str]] = {}

    def problem(what: str, offenders: list[str]) -> None:
        if offenders:
            problems[what] = offenders

    def named(column: str, wrong) -> list[str]:
        return [f"{row} {value!r}" for row, value in zip(rows[wrong], table[column].to_numpy(object)[wrong], strict=True)]

    for column in (*REQUIRED, "mask"):
        table[column] = [_text(value) for value in table[column]]
    for column in REQUIRED:
        what = "label is blank or NaN" if column == "label" else f"{column} is blank"
        problem(f"{what}; every case needs one", list(rows[table[column] == ""]))
    twice = (table["case_id"].duplicated() & (table["case_id"] != "")).to_numpy()
    problem("case_id stands in an earlier row already; it must be unique", named("case_id", twice))
    classes = sorted(set(table["label"]) - {""})
    if len(classes) < 2:
        problems[f"one class only: {classes}; retrieval by class needs at least two"] = []
    none = table["label"].str.lower().isin(NO_CLASS).to_numpy()
    problem("label says that there is none; leave the row out", named("label", none))
    for column, what, show in (("label", "each class", ascii), ("group", "each patient", repr)):
        spelt: dict[object, list[str]] = {}
        for value in sorted(set(table[column]) - {""}):
            spelt.setdefault(_spelling(value), []).append(value)
        problem(
            f"{column}s that differ only in capitals or blanks, in the form of a number or in Unicode; write {what} in one way",
            [" and ".join(map(show, several)) for several in spelt.values() if len(several) > 1],
        )
    if "fold" in table and "split" in table:
        problems["both fold and split divide the cases; keep one of the two columns"] = []
    for column in ("fold", "split"):
        if column in table:
            _check_sides(table, column, rows, problem)
    if need_files:
        _check_files(table, rows, Path(folder or ""), problem)
    if problems:
        shown = [f"{what}: {first_few(those)}" if those else what for what, those in problems.items()]
        every = [f"{what}: {one}" for what, those in problems.items() for one in those]
        head = f"{name}: {len(problems)} problem(s) in the manifest"
        cut = max(map(len, problems.values())) > SHOWN
        raise ManifestError("\n- ".join([head, *shown]), every, name if cut else "")
    return table


def _text(value) -> str:
    """A cell as text without outer blanks; nothing for None and NaN, also for the text ``nan`` that a careless export leaves."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in ("nan", "<na>") else text


def _spelling(value: str) -> str | Decimal:
    """``value`` without what two spellings of one name differ in: capitals, blanks, invisible signs, Unicode form, 01 and 1.0."""
    text = unicodedata.normalize("NFKC", value).casefold()
    text = " ".join("".join(sign for sign in text if unicodedata.category(sign) != "Cf").split())
    return Decimal(text) if re.fullmatch(r"\d+(\.\d*)?", text) else text


def _check_sides(table: pd.DataFrame, column: str, rows: np.ndarray, problem) -> None:
    """Put folds as numbers and splits as text into ``table``; report what is neither, an empty side and divided patients."""
    values = table[column].to_numpy(object)
    if column == "fold":
        numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").astype(float)
        sides = [int(number) if number.is_integer() else None for number in numbers]
        right = "fold must be a whole number"
    else:
        sides = [_text(value) if _text(value) in ("train", "test") else None for value in values]
        right = "split must be 'train' or 'test' (validation is drawn from the training patients)"
    seen = pd.DataFrame({"group": table["group"].to_numpy(), "side": pd.Series(sides, dtype=object), "row": rows})
    wrong = seen["side"].isna().to_numpy()
    problem(right, [f"{row} has {value!r}" for row, value in zip(rows[wrong], values[wrong], strict=True)])
    if not wrong.any():
        table[column] = sides
        if len(set(sides)) < 2:
            problem(f"queries and database both need cases, so at least two {column}s", [f"every case has {column} {sides[0]!r}"])
    seen = seen[~wrong & (seen["group"] != "")].drop_duplicates(["group", "side"])
    seen = seen[seen["group"].duplicated(keep=False)].sort_values(["side"], kind="stable")
    seen["where"] = [f"{column} {side} ({row})" for side, row in zip(seen["side"], seen["row"], strict=True)]
    leaks = [f"patient {group!r} in {' and '.join(where)}" for group, where in seen.groupby("group", sort=False)["where"]]
    problem(f"{len(leaks)} patient(s) (group) in two {column}s; all cases of a patient must share one", leaks)


def _check_files(table: pd.DataFrame, rows: np.ndarray, base: Path, problem) -> None:
    for column in ("image", "mask"):
        lost, wrong = [], []
        for row, cell in zip(rows, table[column], strict=True):
            parts = files(cell)
            if len(parts) > 1 and column == "image" or EMPTY in parts and (column == "image" or len(parts) > 1):
                wrong.append(f"{row} {cell!r}")
            lost += [f"{row} {part}" for part in parts if part != EMPTY and not (base / part).is_file()]
        hint = "" if column == "image" else " (leave the cell blank if the outline is unknown)"
        if any("\\" in part or not part.isascii() for part in lost):
            hint += " (folders are divided by /; letters with accents must have the same Unicode form as the file's name)"
        problem(f"{column} file not found{hint}", lost)
        problem("image must name one file" if column == "image" else f"mask mixes {EMPTY!r} with files", wrong)
