"""What the clickable pages share (`explore` in a notebook, `export_gallery` as a file): answers, drawings, templates.

Nothing here knows of widgets or files. The HTML stands in ``templates/``; every text from data is escaped in one place, `text`.
"""

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from ..cases.core import Cases
from ..checkpoint import Checkpoint
from ..encoding import distances, encode, encode_floats
from ..hashing import Codes, check_models, hamming, pack, percentile, usual_distances, whole

NOTICE = "Research software, not a medical device."

LEGEND = "Orange: outline of the lesion. Blue frame and \u2713: the query's class; red dashed frame and \u2717: another class."

#: A callable that says where a network looks: uint8 image (C, H, W) -> float (H, W) in [0, 1].
Maps = Callable[[np.ndarray], np.ndarray]

_HEAT_LEVELS = 32  # steps of an attention map's colour scale: a smooth map of many is several times as large
_HEAT_OPACITY = 0.65  # of the strongest attention: the image must stay visible under it

TEMPLATES = Path(__file__).parent / "templates"


def text(value) -> Markup:
    """``value`` as HTML text or attribute: markup escaped, characters that cannot be shown or stored replaced by U+FFFD."""
    if isinstance(value, Markup):
        return value
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(value)))


def name(value) -> Markup:
    """An id or a class name as HTML; isolated, so that right-to-left characters in it cannot reorder what stands beside it."""
    return Markup("<bdi>") + text(value) + Markup("</bdi>")


def distance_text(distance, bits: int | None) -> str:
    """ "12 of 64 bits" for codes, a number with two digits (or whole) otherwise."""
    if bits is not None:
        return f"{int(distance)} of {bits} bits"
    return f"distance {int(distance)}" if isinstance(distance, (int, np.integer)) else f"distance {distance:.2f}"


_FORM = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=text, **_FORM)
ENVIRONMENT.filters |= {"name": name, "distance": distance_text}

#: Colours: text at least 7 : 1 on white, frames at least 3 : 1; the meaning of a colour is doubled by a line style and a word.
STYLE = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))


def render(template: str, **values) -> str:
    """A page from ``templates/``: ``values`` are escaped unless they are `Markup` of our own."""
    about = {"notice": NOTICE, "legend": LEGEND, "none_of_class": "None of these answers is of the class chosen above."}
    return ENVIRONMENT.get_template(template).render(**about | {"style": STYLE} | values)


# --- which cases answer -----------------------------------------------------------------------------------------------


class Retrieval:
    """Distances of queries to a database, from whatever ranks them.

    Parameters
    ----------
    ranked_by : a `Checkpoint`, which encodes the cases, ranks them as its ``Config.ranking`` says, and can be asked new images; a
        pair of `Codes` ``(query_codes, database_codes)`` for Hamming distance; or distances (Q, N), smaller = nearer.
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
        self._codes: Codes | None = None  # of the database
        self._groups = database.groups
        if isinstance(ranked_by, Checkpoint):
            ranked_by = self._encode(ranked_by, queries, database)
        if isinstance(ranked_by, (tuple, list)) and len(ranked_by) == 2 and all(isinstance(c, Codes) for c in ranked_by):
            for side, codes, cases in zip(("query", "database"), ranked_by, (queries, database), strict=True):
                if not np.array_equal(codes.ids, cases.ids):
                    raise ValueError(f"pages: the {side} codes belong to other cases (ids or order differ); encode them anew")
            check_models(*(codes.model for codes in ranked_by))
            hamming(*(codes.packed[:1] for codes in ranked_by))  # refuses two code lengths
            self._asked, self._codes = ranked_by[0].packed, ranked_by[1]
        elif isinstance(ranked_by, np.ndarray):
            if ranked_by.shape != (len(queries), len(database)) or ranked_by.dtype.kind not in "iuf":
                raise ValueError(
                    f"pages: distances must be numbers of shape {(len(queries), len(database))}, "
                    f"got {ranked_by.dtype} {ranked_by.shape}"
                )
            if not np.isfinite(ranked_by).all():
                raise ValueError("pages: distances hold NaN or infinity")
            self._asked = ranked_by
        else:
            raise ValueError(
                "pages: ranked_by is a Checkpoint, a pair (query codes, database codes) or an array of distances (Q, N), "
                f"got {type(ranked_by).__name__}"
            )
        self.bits = self._codes.bits if self._codes is not None else None

    def _encode(self, checkpoint: Checkpoint, queries: Cases, database: Cases) -> tuple[Codes, ...] | np.ndarray:
        """The codes of both sides, or their distances (Q, N) where the network ranks by something else."""
        cfg = checkpoint.cfg
        if cfg.aggregation:
            raise ValueError(
                f"pages: method {cfg.method} makes its codes in a step after the network; give those codes or distances instead"
            )
        if checkpoint.class_names != database.class_names:
            raise ValueError(
                f"pages: the checkpoint knows the classes {list(checkpoint.class_names)}, the cases {list(database.class_names)}"
            )
        self.checkpoint = checkpoint
        if cfg.ranking == "hamming":
            return encode(checkpoint, queries), encode(checkpoint, database)
        found, self._base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
        return distances(cfg, found, self._base)

    def of_query(self, query: int, bits: int | None = None) -> np.ndarray:
        """Distances of one query to the whole database, (N,).

        ``bits``: use only the first bits of the codes, ``d = sum_{i < bits} [q_i != n_i]``. A prefix is a shorter code, not the
        best one of its length: the network was trained for all bits together.
        """
        return self._distances(self._asked[query : query + 1], bits)

    def of_case(self, case: Cases, bits: int | None = None) -> np.ndarray:
        """The same for a new image, given as `Cases` of one; needs a checkpoint."""
        found = encode_floats(self.checkpoint.model, self.checkpoint.cfg, case)
        return self._distances(pack(found["code"]) if self.bits else distances(self.checkpoint.cfg, found, self._base), bits)

    def _distances(self, asked: np.ndarray, bits: int | None) -> np.ndarray:
        """``asked`` is the packed code of one case, (1, code length / 8), or its distances where no hash code ranks, (1, N)."""
        if self._codes is None:
            return asked[0]
        first = np.arange(self.bits) < (bits or self.bits)
        kept = np.packbits(first, bitorder="big")  # bits that are zero on both sides add nothing
        return hamming(asked & kept, self._codes.packed & kept)[0]

    @cached_property
    def _usual(self) -> np.ndarray:
        return usual_distances(self._codes, self._groups)

    def percentile(self, distance: float) -> float:
        """How many in a hundred database cases have their nearest case of another patient closer; NaN without hash codes."""
        return float(percentile(distance, self._usual)) if self._codes is not None else float("nan")


def answers(distance: np.ndarray, database: Cases, k: int, *, label: int | None = None, leave: int | None = None) -> pd.DataFrame:
    """The ``k`` nearest cases; equal distances in order of ``case_id``. ``leave``: a row that is no answer, the query itself.

    Columns: ``rank`` (from 1), ``row`` (of ``database``), ``case_id``, ``label`` (class name), ``group``, ``distance``, ``same``
    (whether the class is ``label``; None when that is unknown). Raises ``ValueError`` unless ``1 <= k <= N``,
    N without the row that is left.
    """
    most = len(database) - (leave is not None)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most:
        raise ValueError(f"pages: k = {k!r}; {most} cases can be answers, so k is a whole number from 1 to that")
    ids = database.ids
    rows = np.lexsort((ids, distance))
    rows = rows[rows != leave][:k] if leave is not None else rows[:k]
    labels = database.labels[rows]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(rows) + 1),
            "row": rows,
            "case_id": ids[rows],
            "label": [database.class_names[i] for i in labels],
            "group": database.groups[rows],
            "distance": distance[rows],
            "same": [None if label is None else bool(i == label) for i in labels],
        }
    )


def vote(labels: Sequence[str], class_names: Sequence[str]) -> list[tuple[str, int]]:
    """Votes per class, most first, equal ones in the order of ``class_names``; classes without a vote are left out."""
    return Counter(sorted(labels, key=class_names.index)).most_common()  # which keeps equal counts in this order


# --- how a case looks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """Inside of an SVG picture of ``width`` x ``height`` units: the image, its attention map if any, its outlines if known."""

    width: int
    height: int
    inner: Markup
    outlined: bool


@dataclass(eq=False)
class Drawings:
    """Drawings of the cases of one set, each made once."""

    cases: Cases
    side: int = 128  # longest side of an embedded image in pixels; larger images are reduced, smaller ones kept
    maps: Maps | None = None  # for `draw` with ``heat=True``

    def __post_init__(self):
        whole("pages: side of a picture in pixels", self.side, 16)
        self._made = cache(self._draw)

    def draw(self, row: int, heat: bool = False) -> Drawing:
        """One case, cropped to its content. Raises ``ValueError`` for an attention map that is not float (H, W) in [0, 1]."""
        return self._made(int(row), bool(heat))

    def _draw(self, row: int, heat: bool) -> Drawing:
        image, mask = self.cases.content(row)
        height, width = mask.shape
        place = f'width="{width}" height="{height}" preserveAspectRatio="none"'
        parts = [f'<image href="{_image_uri(image, self.side)}" {place}/>']
        if heat:
            shown = self._map(row)[self.cases.box(row)]
            parts.append(f'<image class="ynl-heat" href="{_heat_uri(shown, self.side)}" {place}/>')
        path = outline_path(mask) if self.cases.has_mask[row] else ""
        if path:
            parts += [f'<path class="ynl-{kind}" d="{path}"/>' for kind in ("under", "outline")]
        return Drawing(width, height, Markup("".join(parts)), bool(path))

    def _map(self, row: int) -> np.ndarray:
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


def _image_uri(image: np.ndarray, side: int) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
    picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=None)
    return data_uri(picture)


def _heat_uri(values: np.ndarray, side: int) -> str:
    """Attention in [0, 1] as colours that are the less transparent the stronger it is."""
    from matplotlib import colormaps  # imported late: only for maps

    grey = Image.fromarray(values.astype(np.float32))
    grey.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=None)
    levels = np.round(np.asarray(grey).clip(0, 1) * (_HEAT_LEVELS - 1)).astype(np.uint8)
    scale = np.linspace(0, 1, _HEAT_LEVELS)
    coloured = Image.fromarray(levels, "L")
    coloured.putpalette((colormaps["inferno"](scale)[:, :3] * 255).round().astype(np.uint8).tobytes())
    return data_uri(coloured, transparency=(scale * _HEAT_OPACITY * 255).round().astype(np.uint8).tobytes())
