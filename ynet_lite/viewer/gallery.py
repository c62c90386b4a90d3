"""Retrieval results as one HTML file that opens on a double click: no server, no network, no other file."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from .. import paths
from ..cases.core import Cases
from ..index import UNKNOWN, Index, cases_of, pictures
from . import pages

#: Largest file in bytes: what browsers open at once; 1,000 queries with 10 answers each stay below it.
MOST_BYTES = 60_000_000

# Pictures drawn to estimate the size of the page before the rest is drawn.
_SAMPLE = 24

_STYLE = pages.STYLE + Markup((pages.TEMPLATES / "gallery.css").read_text(encoding="utf-8"))

# Everything that the script needs stands in the page; without it the page is the list of all cases.
_SCRIPT = Markup((pages.TEMPLATES / "gallery.js").read_text(encoding="utf-8"))


def _hash(source: str) -> str:
    """What a Content-Security-Policy calls an inline script or style that it lets pass."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


#: Nothing but images inside the file, this style and this script: no network, no other script even if one slipped in.
POLICY = Markup(
    f"default-src 'none'; img-src data:; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)


def export_gallery(
    path: str | Path,
    queries: Cases,
    database: Cases,
    ranked_by,
    *,
    k: int = 10,
    rows: Sequence[int] | None = None,
    title: str = "Similar cases",
    note: str = "",
    groups: bool = True,
    maps: pages.Maps | None = None,
    side: int = 96,
    most_bytes: int = MOST_BYTES,
) -> Path:
    """Write queries with their ``k`` nearest cases as one HTML file and return its path.

    The page lists every query with its answers, their distances, classes and patients, and the vote of the k. With JavaScript
    one query is shown at a time (list, buttons, arrow keys), k may be lowered, and a class picked: then only the answers of that
    class are shown, while all k still vote. Each picture is stored once. The same input gives the same bytes.

    Parameters
    ----------
    path : file to write, ``.html``; written under a temporary name and renamed.
    queries, database, ranked_by : as in `ynet_lite.explore`.
    rows : which queries (rows of ``queries``); all when None.
    title, note : plain text for the top of the page.
    groups : False leaves patient identifiers out; case ids stay.
    maps : where the network looks, as in `explore`; adds a switch and one more picture per case.
    side : longest side of a picture in pixels. 96 keeps 1,000 queries below 60 MB.
    most_bytes : an error instead of a larger file; what is clearly too large is refused before it is drawn. Mail servers
        often stop files above 20 MB.

    Raises ``ValueError`` as `pages.Retrieval` does, for ``k`` outside 1 to N, rows that do not exist or stand twice, a path
    that does not end in ``.html``, and a page above ``most_bytes``.

    The file holds pixels of the cases: mind the terms of the data before you pass it on.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"export_gallery: {path} must end in .html, so that a browser opens it")
    retrieval = pages.Retrieval(ranked_by, queries, database)
    chosen = _chosen(rows, len(queries))
    sides = {"q": pages.Drawings(queries, side, maps), "d": pages.Drawings(database, side, maps)}
    heat = maps is not None
    symbols: dict[str, pages.Drawing] = {}

    def used(key: str, row: int) -> pages.Drawing:
        """A reference to the picture of a case, which is kept among the symbols."""
        drawing = symbols.setdefault(f"{key}{row}", sides[key].draw(row, heat))
        return replace(drawing, inner=Markup('<use href="#{}{}" width="100%" height="100%"/>').format(key, row))

    labels = [None if queries.class_names[label] == UNKNOWN else int(label) for label in queries.labels[chosen]]
    asked = list(zip(chosen, labels, strict=True))
    lists = [pages.answers(retrieval.of_query(row), database, k, label=label) for row, label in asked]
    needed = [("q", row) for row in chosen] + [("d", int(row)) for row in np.unique(np.concatenate([a["row"] for a in lists]))]
    some = needed[:: max(1, len(needed) // _SAMPLE)]
    estimate = sum(len(sides[key].draw(row, heat).inner) for key, row in some) / len(some) * len(needed)
    _check_size(0.7 * estimate, most_bytes, path, len(chosen), side)  # well below what the file will have: never refused in vain

    sections = []
    for number, ((row, label), found) in enumerate(zip(asked, lists, strict=True), start=1):
        shown = found if groups else found.assign(group=None)
        listed = [(used("d", answer.row), answer) for answer in shown.itertuples()]
        named = None if label is None else queries.class_names[label]
        query = used("q", row), queries.ids[row], named, queries.groups[row] if groups else None
        sections.append((number, -1 if label is None else label, query, pages.vote(found["label"], database.class_names), listed))
    page = pages.render(
        "gallery.html",
        **{"title": title, "note": note, "policy": POLICY, "style": _STYLE, "script": _SCRIPT, "heat": heat},
        **{"sections": sections, "symbols": symbols, "classes": database.class_names, "k": k, "total": len(database)},
        bits=retrieval.bits,
    )
    _check_size(len(page.encode()), most_bytes, path, len(chosen), side)
    return paths.write_text(path, page)


def write_gallery(path: str | Path, index: Index, source: str | Path, answers: pd.DataFrame) -> Path:
    """`export_gallery` of ``answers``, which ``index.search(source)`` gave."""
    asked = cases_of(source)[0].set_index("case_id", drop=False).loc[answers["query"].unique()]
    queries = pictures(asked, index.checkpoint(), index.path.name, answers["label"])
    database = index.cases(answers["id"], asked["label"])
    bits = np.full((len(queries), len(database)), np.iinfo(np.int16).max, np.int16)  # whatever is no answer comes last
    rows, columns = ({name: i for i, name in enumerate(side.ids)} for side in (queries, database))
    bits[answers["query"].map(rows), answers["id"].map(columns)] = answers["bits"]
    k = int(answers.groupby("query").size().min())
    return export_gallery(path, queries, database, bits, k=k, title=f"Similar cases in {index.path.name}", groups=False)


def _chosen(rows: Sequence[int] | None, n: int) -> list[int]:
    given = np.arange(n) if rows is None else np.asarray(rows)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise ValueError(f"export_gallery: rows are whole numbers, at least one, got {rows!r}")
    if given.min() < 0 or given.max() >= n or len(set(given.tolist())) < len(given):
        raise ValueError(f"export_gallery: rows must be different numbers from 0 to {n - 1}, got {given.tolist()[:10]}")
    return given.tolist()


def _check_size(size: float, most: int, path: Path, n: int, side: int) -> None:
    if size > most:
        raise ValueError(
            f"export_gallery: {path.name} with {n} queries would be above {most / 1e6:.1f} MB (at least {size / 1e6:.1f} MB); "
            f"choose fewer queries (rows=), smaller pictures (side={side} now), fewer answers (k=) or a higher most_bytes="
        )
