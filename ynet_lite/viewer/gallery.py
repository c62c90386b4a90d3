"""Retrieval results as one HTML file that opens on a double click: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import paths
from ..cases.core import Cases
from . import pages

#: Largest file in bytes: what browsers open at once; 1,000 queries with 10 answers each stay below it.
MOST_BYTES = 60_000_000

# Pictures drawn to estimate the size of the page before the rest is drawn.
_SAMPLE = 24

_STYLE = (
    pages.STYLE.strip()
    + """
body{margin:0;background:#fff}
.ynl{max-width:1180px;margin:0 auto;padding:16px}
.ynl h1{font-size:26px;margin:8px 0}
.ynl h2{font-size:18px;margin:0 0 8px;overflow-wrap:anywhere}
.ynl .case{margin:0;padding:16px 0;border-top:1px solid #767676;content-visibility:auto;contain-intrinsic-size:auto 420px}
.ynl .controls{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin:14px 0}
.ynl .controls .controls{margin:0}
.ynl .controls[hidden],.ynl [hidden]{display:none}
.ynl select,.ynl button,.ynl input{font:inherit;color:inherit}
.ynl select,.ynl button{min-height:34px;max-width:100%;padding:3px 10px;background:#fff;border:1px solid #595959}
.ynl select,.ynl button{border-radius:4px}
.ynl button:disabled{color:#4a4a4a;border-style:dotted}
.ynl input{accent-color:#0072B2}
.ynl label{display:inline-flex;gap:8px;align-items:center;max-width:100%}
.ynl .controls>*,.ynl select{min-width:0}
.ynl :focus-visible,:focus-visible{outline:3px solid #0072B2;outline-offset:2px}
.skip{position:absolute;left:-999em}
.skip:focus{position:static}
.skip{color:#00497a}
.drawings{position:absolute;width:0;height:0}
.ynl:has(#outlines:not(:checked)){--outline:none}
.ynl:has(#maps:checked){--heat:inline}
@media (max-width:480px){.ynl{padding:10px}.ynl label{flex-wrap:wrap}.ynl .controls>*{max-width:100%}}
@media print{.controls,.skip{display:none!important}.ynl .case{content-visibility:visible;break-inside:avoid}}
"""
)

# Everything that the script needs stands in the page; without it the page is the list of all cases.
_SCRIPT = """"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cases = [...document.querySelectorAll("section.case")];
  const [pick, only, k, shownK, where] = ["pick", "only", "k", "shown-k", "where"].map(byId);
  const classes = [...only.options].slice(1).map((option) => option.textContent);
  const ALL = cases.length;
  cases.forEach((section, i) => pick.add(new Option(section.querySelector("h2").textContent, i)));
  pick.add(new Option("all query cases, as a list", ALL));

  const isolated = (text) => Object.assign(document.createElement("bdi"), { textContent: text });
  const joined = (names, between) => names.flatMap((text, i) => (i ? [between, isolated(text)] : [isolated(text)]));

  function vote(section, items) {
    const counts = new Map();
    for (const item of items) counts.set(+item.dataset.label, (counts.get(+item.dataset.label) || 0) + 1);
    const ordered = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const leaders = ordered.filter((entry) => entry[1] === ordered[0][1]).map((entry) => entry[0]);
    const own = +section.dataset.label;
    const listed = ordered.flatMap(([label, n], i) => [i ? ", " : "", isolated(classes[label]), ` ${n}`]);
    const verdict = document.createElement("strong");
    verdict.className = "verdict";
    verdict.append(leaders.length > 1 ? "Level between " : "Most votes: ", ...joined(leaders.map((i) => classes[i]), " and "));
    if (leaders.length === 1 && leaders[0] === own) verdict.append(", the query's class.");
    else verdict.append("; the query is ", isolated(classes[own]), ".");
    section.querySelector(".vote").replaceChildren(`Vote of the ${items.length} nearest: `, ...listed, ". ", verdict);
  }

  function show() {
    const chosen = +pick.value;
    cases.forEach((section, i) => {
      section.hidden = chosen !== ALL && chosen !== i;
      if (section.hidden) return;
      const items = [...section.querySelectorAll("ol > li")];
      items.forEach((item, rank) => {
        item.hidden = rank >= +k.value || (only.value !== "" && item.dataset.label !== only.value);
      });
      section.querySelector(".none").hidden = items.some((item) => !item.hidden);
      vote(section, items.slice(0, +k.value));
    });
    shownK.textContent = k.value;
    byId("previous").disabled = chosen === 0;
    byId("next").disabled = chosen >= ALL - 1;
    where.textContent = chosen === ALL ? `all ${ALL} query cases` : `query case ${chosen + 1} of ${ALL}`;
  }

  function go(i) {
    if (i < 0 || i >= ALL) return;
    pick.value = i;
    show();
  }

  const fromAddress = () => cases.findIndex((section) => `#${section.id}` === location.hash);
  for (const control of [pick, only, k]) control.addEventListener("input", show);
  byId("previous").addEventListener("click", () => go((+pick.value === ALL ? 1 : +pick.value) - 1));
  byId("next").addEventListener("click", () => go(+pick.value + 1));
  addEventListener("hashchange", () => go(fromAddress()));
  addEventListener("keydown", (event) => {
    if (event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey || +pick.value === ALL) return;
    if (event.key === "ArrowLeft") go(+pick.value - 1);
    if (event.key === "ArrowRight") go(+pick.value + 1);
  });
  byId("choose").hidden = false;
  k.value = k.max;
  pick.value = Math.max(0, fromAddress());
  show();
})();
"""


def _hash(source: str) -> str:
    """What a Content-Security-Policy calls an inline script or style that it lets pass."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


#: Nothing but images inside the file, this style and this script: no network, no other script even if one slipped in.
POLICY = (
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
    one query is shown at a time (list, buttons, arrow keys), a class may be picked and k lowered; without it all are listed.
    Each picture is stored once however often it is an answer. The same input gives the same bytes.

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
    symbols: dict[str, str] = {}

    def used(key: str, row: int) -> pages.Drawing:
        drawing = sides[key].draw(row, heat)
        box = f"0 0 {drawing.width} {drawing.height}"
        symbols.setdefault(f"{key}{row}", f'<symbol id="{key}{row}" viewBox="{box}">{drawing.inner}</symbol>\n')
        return drawing

    lists = [pages.answers(retrieval, retrieval.of_query(row), database, k, label=int(queries.labels[row])) for row in chosen]
    needed = [("q", row) for row in chosen] + [("d", int(row)) for row in np.unique(np.concatenate([a["row"] for a in lists]))]
    some = needed[:: max(1, len(needed) // _SAMPLE)]
    estimate = sum(len(sides[key].draw(row, heat).inner) for key, row in some) / len(some) * len(needed)
    _check_size(0.7 * estimate, most_bytes, path, len(chosen), side)  # well below what the file will have: never refused in vain

    sections = []
    for number, (row, found) in enumerate(zip(chosen, lists, strict=True), start=1):
        label = int(queries.labels[row])
        items = []
        for answer in found.itertuples():
            drawing = used("d", answer.row)
            card = pages.answer_card(drawing, answer, retrieval.bits, inner=_use("d", answer.row), groups=groups)
            items.append(f'<li data-label="{database.labels[answer.row]}">{card}</li>')
        group = queries.groups[row] if groups else None
        case_id, class_name = queries.ids[row], queries.class_names[label]
        query = pages.query_card(used("q", row), case_id, class_name, group, inner=_use("q", row))
        votes = pages.vote(found["label"].tolist(), database.class_names)
        sections.append(
            f'<section class="case" id="case-{number}" aria-labelledby="head-{number}" data-label="{label}">\n'
            f'<h2 id="head-{number}">{number}. {pages.name(case_id)} ({pages.name(class_name)})</h2>\n'
            f'<p class="vote">{pages.vote_html(votes, class_name)}</p>\n'
            f'<div class="result">{query}\n<ol class="cards">\n' + "\n".join(items) + "\n</ol></div>\n"
            '<p class="none" hidden>None of these answers is of the class chosen above.</p>\n</section>\n'
        )
    parts = [_head(title, note, len(chosen), database, k, heat), *sections, _tail(symbols)]
    content = "".join(parts).encode()
    _check_size(len(content), most_bytes, path, len(chosen), side)
    with paths.replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def _use(key: str, row: int) -> str:
    return f'<use href="#{key}{row}" width="100%" height="100%"/>'


def _chosen(rows: Sequence[int] | None, n: int) -> list[int]:
    if rows is None:
        return list(range(n))
    given = np.asarray(rows)
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


def _head(title: str, note: str, n: int, database: Cases, k: int, heat: bool) -> str:
    classes = "".join(f'<option value="{i}">{pages.text(c)}</option>' for i, c in enumerate(database.class_names))
    attention = '<label><input type="checkbox" id="maps" autocomplete="off"> Attention maps</label>' if heat else ""
    said = f"<p>{pages.text(note)}</p>\n" if note else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{pages.text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<div class="ynl">
<a class="skip" href="#cases">Skip to the cases</a>
<header>
<h1>{pages.text(title)}</h1>
<p><strong>{pages.NOTICE}</strong></p>
{said}<p>{n} query cases, each with the {k} nearest of {len(database)} database cases. Equal distances stand in order of case id.
{pages.LEGEND}</p>
<div class="controls" role="group" aria-label="What is shown">
<div class="controls" id="choose" hidden>
<label>Query case <select id="pick" autocomplete="off"></select></label>
<button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button>
<label>Answers <input type="range" id="k" min="1" max="{k}" value="{k}" autocomplete="off">
<output id="shown-k">{k}</output></label>
<label>Only class <select id="only" autocomplete="off"><option value="">all classes</option>{classes}</select></label>
<span id="where" role="status"></span>
</div>
<label><input type="checkbox" id="outlines" checked autocomplete="off"> Outlines</label>
{attention}
</div>
</header>
<main id="cases" tabindex="-1">
"""


def _tail(symbols: dict[str, str]) -> str:
    return f"""</main>
<svg class="drawings" aria-hidden="true" focusable="false">
{"".join(symbols.values())}</svg>
</div>
<script>{_SCRIPT}</script>
</body>
</html>
"""
