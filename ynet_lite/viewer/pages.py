"""What the clickable pages share (`explore` in a notebook, `export_gallery` as a file): answers, drawings, pieces of HTML.

Nothing here knows of widgets or files. Every text that comes from data is escaped in one place, `text`.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image

from ..cases.core import Cases
from ..checkpoint import Checkpoint
from ..encoding import distances, encode_floats
from ..hashing import Codes, check_models, hamming, pack

NOTICE = "Research software, not a medical device."

#: A callable that says where a network looks: uint8 image (C, H, W) -> float (H, W) in [0, 1].
Maps = Callable[[np.ndarray], np.ndarray]

# Steps of an attention map's colour scale: few, because a smooth map of many is several times as large.
_HEAT_LEVELS = 32

# Opacity of the strongest attention: the image must stay visible under it.
_HEAT_OPACITY = 0.65

# What is drawn inside a picture is styled by its class alone: where a picture is used again (SVG <use>), selectors with ancestors
# do not reach it, but inherited variables do.
#: Colours: text at least 7 : 1 on white, frames at least 3 : 1; the meaning of a colour is doubled by a line style and a word.
STYLE = """
.ynl{--outline:inline;--heat:none;container-type:inline-size;box-sizing:border-box;padding:12px;background:#fff;color:#1a1a1a;
 font:15px/1.4 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
.ynl *{box-sizing:border-box}
.ynl.with-maps{--heat:inline}
.ynl.no-outlines{--outline:none}
.ynl-under,.ynl-outline{display:var(--outline);fill:none;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.ynl-under{stroke:#000;stroke-width:3.5px}
.ynl-outline{stroke:#E69F00;stroke-width:2px}
.ynl-heat{display:var(--heat)}
.ynl .cards{display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start;margin:0;padding:0;list-style:none}
.ynl .result{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start}
.ynl .result>ol{flex:1 1 290px}
.ynl .cards li{margin:0;padding:0}
.ynl .card{width:146px;margin:0;padding:4px;border:3px solid #595959}
.ynl .card.query{border-color:#000}
.ynl .card.same{border-color:#0072B2}
.ynl .card.other{border:3px dashed #D55E00}
.ynl .picture{display:block;width:100%;height:auto;aspect-ratio:1;background:#000}
.ynl figcaption{margin-top:4px;font-size:13px;line-height:1.35;overflow-wrap:anywhere}
.ynl figcaption>b,.ynl figcaption>span{display:block}
.ynl .quiet{color:#4a4a4a}
.ynl p{margin:8px 0}
.ynl .alert{padding:8px;border:2px solid #b00020;color:#8a0019;background:#fff}
@container (max-width:350px){.ynl .cards{gap:6px}.ynl .card{width:calc(50cqw - 4px)}}
"""


def text(value) -> str:
    """``value`` as HTML text or attribute: markup escaped, characters that cannot be shown or stored replaced by U+FFFD."""
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(value))
    return html.escape(shown, quote=True)


def name(value) -> str:
    """An id or a class name as HTML; isolated, so that right-to-left characters in it cannot reorder what stands beside it."""
    return f"<bdi>{text(value)}</bdi>"


# --- which cases answer -----------------------------------------------------------------------------------------------


class Retrieval:
    """Distances of queries to a database, from whatever ranks them.

    Parameters
    ----------
    ranked_by : one of

        - a `Checkpoint`: cases are encoded with it and ranked as its ``Config.ranking`` says; new images can be asked;
        - a pair of `Codes` ``(query_codes, database_codes)``: Hamming distance;
        - an array (Q, N) of distances, smaller = nearer.
    queries, database : the `Cases` on both sides, Q and N of them, with the same class names.

    ``bits`` is the code length, None where no hash code ranks; ``checkpoint`` is None unless one was given.

    Raises ``ValueError`` when classes, ids or shapes do not fit, for distances that are not finite, for an empty side.
    """

    def __init__(self, ranked_by, queries: Cases, database: Cases):
        if len(queries) == 0 or len(database) == 0:
            raise ValueError(f"pages: {len(queries)} queries and {len(database)} database cases; both sides need cases")
        if queries.class_names != database.class_names:
            raise ValueError(
                f"pages: queries have the classes {list(queries.class_names)}, the database {list(database.class_names)}; "
                "both must be parts of one set"
            )
        self.checkpoint: Checkpoint | None = None
        self._packed: tuple[np.ndarray, np.ndarray] | None = None
        self._matrix: np.ndarray | None = None
        self._base: dict[str, np.ndarray] = {}
        if isinstance(ranked_by, Checkpoint):
            self._encode(ranked_by, queries, database)
        elif isinstance(ranked_by, (tuple, list)) and len(ranked_by) == 2 and all(isinstance(c, Codes) for c in ranked_by):
            for side, codes, cases in zip(("query", "database"), ranked_by, (queries, database), strict=True):
                if not np.array_equal(codes.ids, cases.ids):
                    raise ValueError(
                        f"pages: the {side} codes belong to other cases (ids or their order differ); encode them anew"
                    )
            check_models(*(codes.model for codes in ranked_by))
            self._packed = ranked_by[0].packed, ranked_by[1].packed
            hamming(self._packed[0][:1], self._packed[1][:1])  # refuses two code lengths
        elif isinstance(ranked_by, np.ndarray):
            if ranked_by.shape != (len(queries), len(database)) or ranked_by.dtype.kind not in "iuf":
                raise ValueError(
                    f"pages: distances must be numbers of shape {(len(queries), len(database))}, "
                    f"got {ranked_by.dtype} {ranked_by.shape}"
                )
            if not np.isfinite(ranked_by).all():
                raise ValueError("pages: distances hold NaN or infinity")
            self._matrix = ranked_by
        else:
            raise ValueError(
                "pages: ranked_by is a Checkpoint, a pair (query codes, database codes) or an array of distances (Q, N), "
                f"got {type(ranked_by).__name__}"
            )
        self.bits = 8 * self._packed[1].shape[1] if self._packed else None
        self._place = np.argsort(np.argsort(database.ids, kind="stable"))
        self._shape = len(queries), len(database)

    def _encode(self, checkpoint: Checkpoint, queries: Cases, database: Cases) -> None:
        cfg = checkpoint.cfg
        if cfg.aggregation:
            raise ValueError(
                f"pages: method {cfg.method} makes its codes in a step after the network; give those codes or distances instead"
            )
        if checkpoint.class_names != database.class_names:
            raise ValueError(
                f"pages: the checkpoint knows the classes {list(checkpoint.class_names)}, the cases {list(database.class_names)}"
            )
        found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
        self.checkpoint = checkpoint
        if cfg.ranking == "hamming":
            self._packed = pack(found["code"]), pack(base["code"])
        else:
            self._matrix, self._base = distances(cfg, found, base), base

    def of_query(self, query: int, bits: int | None = None) -> np.ndarray:
        """Distances of one query to the whole database, (N,). ``bits``: use only the first bits of the codes."""
        if not 0 <= query < self._shape[0]:
            raise ValueError(f"pages: query {query}; there are {self._shape[0]}, counted from 0")
        if self._packed is None:
            self._no_bits(bits)
            return self._matrix[query]
        return prefix_hamming(self._packed[0][query : query + 1], self._packed[1], self.bits if bits is None else bits)[0]

    def of_case(self, case: Cases, bits: int | None = None) -> np.ndarray:
        """The same for a new image, given as `Cases` of one; needs a checkpoint."""
        if self.checkpoint is None:
            raise ValueError("pages: a new image needs the network that made the codes; give a checkpoint")
        found = encode_floats(self.checkpoint.model, self.checkpoint.cfg, case)
        if self._packed is None:
            self._no_bits(bits)
            return distances(self.checkpoint.cfg, found, self._base)[0]
        return prefix_hamming(pack(found["code"]), self._packed[1], self.bits if bits is None else bits)[0]

    def _no_bits(self, bits: int | None) -> None:
        if bits is not None:
            raise ValueError(f"pages: {bits} bits were asked for, but no hash code ranks these cases")

    def order(self, distance: np.ndarray) -> np.ndarray:
        """Database rows by (distance, case id), int64 (N,)."""
        return np.lexsort((self._place, distance))


def prefix_hamming(packed_q: np.ndarray, packed_db: np.ndarray, bits: int) -> np.ndarray:
    """Hamming distances of the first ``bits`` bits of packed codes: ``d = sum_{i < bits} [q_i != n_i]``, int16 (Q, N).

    A prefix is a shorter code, not the best one of its length: the network was trained for all bits together.
    Raises ``ValueError`` unless ``1 <= bits <= code length``.
    """
    length = 8 * packed_db.shape[1]
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= length:
        raise ValueError(f"pages: the first {bits!r} bits of a code of {length}; give a whole number from 1 to {length}")
    # bits that are zero on both sides add nothing
    kept = np.packbits(np.arange(length) < bits, bitorder="big")
    return hamming(packed_q & kept, packed_db & kept)


def answers(
    retrieval: Retrieval, distance: np.ndarray, database: Cases, k: int, *, label: int | None = None, only: int | None = None
) -> pd.DataFrame:
    """The ``k`` nearest cases, or the ``k`` nearest of class ``only``; equal distances in order of ``case_id``.

    Columns: ``rank`` (place in the ranking of the whole database, from 1), ``row`` (of ``database``), ``case_id``, ``label``
    (class name), ``group``, ``distance``, ``same`` (whether the class is ``label``; None when that is unknown).
    Fewer than ``k`` rows where the class has fewer cases. Raises ``ValueError`` unless ``1 <= k <= N``.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= len(database):
        raise ValueError(f"pages: k = {k!r}; the database has {len(database)} cases, so k is a whole number from 1 to that")
    order = retrieval.order(distance)
    places = np.arange(len(order)) if only is None else np.flatnonzero(database.labels[order] == only)
    places = places[:k]
    rows = order[places]
    labels = database.labels[rows]
    return pd.DataFrame(
        {
            "rank": places + 1,
            "row": rows,
            "case_id": database.ids[rows],
            "label": [database.class_names[i] for i in labels],
            "group": database.groups[rows],
            "distance": distance[rows],
            "same": [None if label is None else bool(i == label) for i in labels],
        }
    )


def vote(labels: Sequence[str], class_names: Sequence[str]) -> list[tuple[str, int]]:
    """Votes per class, most first, equal ones in the order of ``class_names``; classes without a vote are left out."""
    counts = [(c, list(labels).count(c)) for c in class_names]
    return sorted((pair for pair in counts if pair[1]), key=lambda pair: -pair[1])


def vote_html(votes: list[tuple[str, int]], own: str | None) -> str:
    """One sentence on the votes, one on who leads and whether that is the query's class (``own``, None when unknown)."""
    n = sum(count for _, count in votes)
    leaders = [label for label, count in votes if count == votes[0][1]]
    listed = ", ".join(f"{name(label)} {count}" for label, count in votes)
    if len(leaders) > 1:
        verdict = f"Level between {' and '.join(map(name, leaders))}"
    else:
        verdict = f"Most votes: {name(leaders[0])}"
    if own is not None:
        verdict += ", the query&#x27;s class" if leaders == [own] else f"; the query is {name(own)}"
    return f'Vote of the {n} nearest: {listed}. <strong class="verdict">{verdict}.</strong>'


# --- how a case looks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """Inside of an SVG picture of ``width`` x ``height`` units: the image, its attention map if any, its outlines if known."""

    width: int
    height: int
    inner: str
    outlined: bool


@dataclass(eq=False)
class Drawings:
    """Drawings of the cases of one set, each made once.

    side : longest side of an embedded image in pixels; larger images are reduced, smaller ones kept.
    maps : where the network looks, for `draw` with ``heat=True``.
    """

    cases: Cases
    side: int = 128
    maps: Maps | None = None
    _made: dict[tuple[int, bool], Drawing] = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.side, bool) or not isinstance(self.side, (int, np.integer)) or self.side < 16:
            raise ValueError(f"pages: side of a picture is a whole number of at least 16 pixels, got {self.side!r}")

    def draw(self, row: int, heat: bool = False) -> Drawing:
        """One case, cropped to its content. Raises ``ValueError`` for an attention map that is not float (H, W) in [0, 1]."""
        key = (int(row), bool(heat))
        if key not in self._made:
            self._made[key] = self._draw(int(row), heat)
        return self._made[key]

    def _draw(self, row: int, heat: bool) -> Drawing:
        image, mask = self.cases.images[row], self.cases.masks[row]
        window = self.cases.box(row)
        image, mask = image[(slice(None), *window)], mask[window]
        height, width = mask.shape
        place = f'width="{width}" height="{height}" preserveAspectRatio="none"'
        parts = [f'<image href="{_image_uri(image, self.side)}" {place}/>']
        if heat:
            parts.append(f'<image class="ynl-heat" href="{_heat_uri(self._map(row)[window], self.side)}" {place}/>')
        path = outline_path(mask) if self.cases.has_mask[row] else ""
        if path:
            parts += [f'<path class="ynl-{kind}" d="{path}"/>' for kind in ("under", "outline")]
        return Drawing(width, height, "".join(parts), bool(path))

    def _map(self, row: int) -> np.ndarray:
        if self.maps is None:
            raise ValueError("pages: an attention map was asked for, but no callable maps= was given")
        image = self.cases.images[row]
        what = f"pages: the attention map of case {str(self.cases.ids[row])!r}"
        try:
            found = np.asarray(self.maps(image.copy()), np.float64)
        except Exception as error:  # the callable is the user's: whatever it raises is told with the case it failed on
            raise ValueError(f"{what} could not be made ({type(error).__name__}: {error})") from error
        # written so that NaN fails too
        if found.shape != image.shape[1:] or not ((found >= 0) & (found <= 1)).all():
            got = f"shape {found.shape}"
            if np.isfinite(found).any():
                got += f", {np.nanmin(found):.3g} to {np.nanmax(found):.3g}"
            raise ValueError(f"{what} must be (H, W) = {image.shape[1:]} with values in [0, 1], got {got}")
        return found


def outline_path(mask: np.ndarray) -> str:
    """SVG path around ``mask >= 1``, ``mask >= 2`` ... in pixels (a pixel covers a unit square); "" for an empty mask.

    uint8 (H, W). Corners of pixels are cut, by at most half a pixel.
    """
    from skimage.measure import approximate_polygon, find_contours  # imported late: it takes longer than the rest

    pieces = []
    for value in range(1, int(mask.max(initial=0)) + 1):
        # a border of background closes the lines of a lesion that touches the edge
        for line in find_contours(np.pad(mask >= value, 1).astype(float), 0.5):
            corners = np.clip(approximate_polygon(line, 0.3) - 0.5, 0, mask.shape)
            points = [f"{x:.4g} {y:.4g}" for y, x in corners[:-1]]
            pieces.append("M" + "L".join(points) + "Z")
    return "".join(pieces)


def data_uri(image: Image.Image, **options) -> str:
    """A picture as PNG inside a URI; the same picture gives the same text."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _reduced(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    return image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)


def _image_uri(image: np.ndarray, side: int) -> str:
    array = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return data_uri(_reduced(Image.fromarray(np.ascontiguousarray(array)), side))


def _heat_uri(values: np.ndarray, side: int) -> str:
    """Attention in [0, 1] as colours that are the less transparent the stronger it is."""
    from matplotlib import colormaps  # imported late: only for maps

    grey = _reduced(Image.fromarray(values.astype(np.float32)), side)
    levels = np.round(np.asarray(grey).clip(0, 1) * (_HEAT_LEVELS - 1)).astype(np.uint8)
    scale = np.linspace(0, 1, _HEAT_LEVELS)
    coloured = Image.fromarray(levels, "L")
    coloured.putpalette((colormaps["inferno"](scale)[:, :3] * 255).round().astype(np.uint8).tobytes())
    return data_uri(coloured, transparency=(scale * _HEAT_OPACITY * 255).round().astype(np.uint8).tobytes())


# --- pieces of HTML ---------------------------------------------------------------------------------------------------


def picture(drawing: Drawing, alt: str, inner: str | None = None) -> str:
    """An SVG picture that screen readers announce as ``alt`` (not yet escaped); ``inner`` replaces what is drawn."""
    inside = drawing.inner if inner is None else inner
    return (
        f'<svg class="picture" viewBox="0 0 {drawing.width} {drawing.height}" role="img" aria-label="{text(alt)}">{inside}</svg>'
    )


def distance_text(distance, bits: int | None) -> str:
    """ "12 of 64 bits" for codes, a number with two digits (or whole) otherwise."""
    if bits is not None:
        return f"{int(distance)} of {bits} bits"
    return f"distance {int(distance)}" if isinstance(distance, (int, np.integer)) else f"distance {distance:.2f}"


def query_card(
    drawing: Drawing, case_id: str, label: str | None, group: str | None, *, inner: str | None = None, what: str = "Query"
) -> str:
    """The query: picture, id, class and patient where known."""
    alt = f"{what} {case_id}" + (f", class {label}" if label is not None else ", class unknown")
    lines = [f"<b>{text(what)}</b>", f"<span>{name(label)}</span>" if label is not None else "<span>class unknown</span>"]
    lines += _who(case_id, group)
    return _card("query", drawing, alt, lines, inner)


def answer_card(drawing: Drawing, answer, bits: int | None, *, inner: str | None = None, groups: bool = True) -> str:
    """One answer (a row of `answers`): picture, rank, distance, class, id, patient; framed by whether the class is the same."""
    far = distance_text(answer.distance, bits)
    kind, words, sign = {
        True: ("same", ", the same class", " \u2713"),
        False: ("other", ", another class", " \u2717"),
    }.get(answer.same, ("", "", ""))
    alt = f"Answer {answer.rank}: case {answer.case_id}, {far}, class {answer.label}{words}"
    mark = f'<span class="mark" aria-hidden="true">{sign}</span>' if sign else ""
    lines = [f"<b>{answer.rank}. {text(far)}</b>", f'<span class="class">{name(answer.label)}{mark}</span>']
    lines += _who(answer.case_id, answer.group if groups else None)
    return _card(kind, drawing, alt, lines, inner)


def _who(case_id: str, group: str | None) -> list[str]:
    lines = [f'<span class="quiet">{name(case_id)}</span>']
    return lines if group is None else [*lines, f'<span class="quiet">patient {name(group)}</span>']


def _card(kind: str, drawing: Drawing, alt: str, lines: list[str], inner: str | None) -> str:
    if drawing.outlined:
        alt += ", lesion outlined"
    shown = picture(drawing, alt, inner)
    return f'<figure class="card {kind}">{shown}<figcaption>{"".join(lines)}</figcaption></figure>'


LEGEND = (
    "Orange: outline of the lesion. Blue frame and \u2713: the query&#x27;s class; red dashed frame and \u2717: another class."
)
