"""A page in the notebook: choose a case or upload an image, see the most similar known cases."""

import contextlib
import warnings
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import pandas as pd

from .. import drawing
from ..cases.core import Cases
from ..cases.formats import read_image
from ..cases.from_folder import SUFFIXES
from ..encoding import encode_floats
from ..index import FAR, Index, squared, without_outlines
from . import pages

MOST_BYTES = 8_000_000  # of an upload; Jupyter itself takes at most 10 MB in one message
MOST_PIXELS = 40_000_000  # of an upload, read from its header: a small file can unpack to a huge picture
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # besides DICOM: kinds of files taken, as Pillow calls them
MOST_ANSWERS = 50  # longest list that the page offers
LONGEST_NAME = 60
_UPLOADED = -1  # the choice "uploaded image" in the list of queries, whose other values are rows


@dataclass(frozen=True)
class View:
    """What the page shows: its whole state."""

    query: int = 0  # row of the query case
    k: int = 10  # length of the list
    bits: int | None = None  # how many of the first bits of the code are compared; None for all
    only: str = ""  # a class name: of the k nearest only the cases of this class are shown; "" for all. All k vote
    outlines: bool = True  # whether lesion outlines are shown
    maps: bool = False  # whether attention maps are shown
    upload: Cases | None = None  # one image that is asked instead of the query, see `read_upload`


class Explorer:
    """The page without its controls: a `View` in, rows or HTML or a figure out. Parameters as in `explore`."""

    def __init__(self, queries: Cases, database: Cases, ranked_by, *, maps: pages.Maps | None = None, side: int = 128):
        self.retrieval = pages.Retrieval(ranked_by, queries, database)
        self.queries, self.database, self.maps, self.side = queries, database, maps, side
        self._queries, self._database = (pages.Drawings(cases, side, maps) for cases in (queries, database))

    def html(self, view: View) -> str:
        """The page. Raises ``ValueError`` for a view that cannot be shown, and when an attention map fails."""
        nearest, shown = self.answers(view)
        answers = [(self._database.draw(answer.row, view.maps), answer) for answer in shown.itertuples()]
        if view.upload is not None:
            drawing = pages.Drawings(self._with_outline(view.upload), self.side, self.maps).draw(0, view.maps)
            query = drawing, view.upload.ids[0], None, None, "Uploaded image"
        else:
            case_id, label, group = (side[view.query] for side in (self.queries.ids, self.queries.labels, self.queries.groups))
            query = self._queries.draw(view.query, view.maps), case_id, self.queries.class_names[label], group
        votes = pages.vote(nearest["label"], self.database.class_names)
        about = {"bits": view.bits or self.retrieval.bits, "far": None}
        if view.bits in (None, self.retrieval.bits) and (far := self.retrieval.percentile(nearest["distance"].iloc[0])) >= FAR:
            about["far"] = far
        return pages.render("explore.html", view=view, query=query, votes=votes, answers=answers, **about)

    def _with_outline(self, upload: Cases) -> Cases:
        """An uploaded image with the outline that the network predicts, where it predicts any."""
        checkpoint = self.retrieval.checkpoint
        if checkpoint.model.segmentation is None:
            return upload
        predicted = encode_floats(checkpoint.model, checkpoint.cfg, upload, masks=True)["masks"] * upload.content_mask
        return replace(upload, masks=predicted.astype(np.uint8), has_mask=predicted.any((1, 2)), mask_names=checkpoint.mask_names)

    def figure(self, k: int = 10):
        """The page as one matplotlib figure (`drawing.retrieval_page`): the first query of each class."""
        rows = np.unique(self.queries.labels, return_index=True)[1]
        distance = np.stack([self.retrieval.of_query(row) for row in rows])
        return drawing.retrieval_page(self.queries.take(rows), self.database, range(len(rows)), distance, k)

    def answers(self, view: View) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The ``k`` nearest, which vote, and those of them that are shown."""
        if view.upload is not None:
            distance, label = self.retrieval.of_case(view.upload, view.bits), None
        else:
            distance, label = self.retrieval.of_query(view.query, view.bits), int(self.queries.labels[view.query])
        itself = view.query if self.queries is self.database and view.upload is None else None
        nearest = pages.answers(distance, self.database, view.k, label=label, leave=itself)
        return nearest, nearest[nearest["label"] == view.only] if view.only else nearest


def read_upload(content: bytes, filename: str, size: int, channels: int) -> Cases:
    """An uploaded file as `Cases` of one, read in memory only.

    The pixels are those of ``read_image`` and ``letterbox``, so that a file has one code however it is given. ``filename``
    is kept as the case id, without folders and cut to 60 characters. The case has no known outline; its label means nothing.

    Raises ``ValueError``, written for the page, for an empty file, one above `MOST_BYTES` or `MOST_PIXELS`, another kind (by name
    and by content), several pages, or damage.
    """
    shown = PurePath(filename.replace("\\", "/")).name
    shown = shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 1]}\u2026"
    if len(content) == 0:
        raise ValueError(f"{shown}: the file is empty")
    if len(content) > MOST_BYTES:
        raise ValueError(f"{shown}: {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB are taken, make it smaller")
    if PurePath(filename).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{shown}: {', '.join(FORMATS)}, DICOM files are taken, by the end of their name; convert it to PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged headers
        array = read_image(bytes(content), channels, name=shown, most=MOST_PIXELS, formats=FORMATS)
    return without_outlines([squared(array, size)], pd.DataFrame({"case_id": [shown], "label": "", "group": ""}), "upload")


def uploaded_file(value) -> tuple[str, bytes] | None:
    """Name and content in the ``value`` of a ``FileUpload``, of ipywidgets 8 (a tuple) or 7 (a dictionary); None if empty."""
    if not value:
        return None
    filename, part = next(iter(value.items())) if isinstance(value, dict) else (value[0]["name"], value[0])
    return filename, bytes(part["content"])


def explore(
    queries, database: Cases | None = None, ranked_by=None, *, k: int = 10, maps: pages.Maps | None = None, side: int = 128
):
    """A page to click through: a query case or an uploaded image, and the ``k`` most similar cases of the database.

    ``explore("my.index")`` shows a saved index (see `ynet_lite.index.Index`): each of its cases asks for the others.

    Parameters
    ----------
    queries, database : `Cases` on both sides, parts of one set.
    ranked_by : a `Checkpoint` (then images can be uploaded), a pair ``(query codes, database codes)``, or distances (Q, N);
        see `ynet_lite.viewer.pages.Retrieval`.
    k : length of the list at first.
    maps : where the network looks: a callable, uint8 image (C, H, W) -> float (H, W) in [0, 1]. Called when maps are
        switched on, once per shown case.
    side : longest side of a picture in pixels.

    Returns
    -------
    An ``ipywidgets.VBox`` (JupyterLab, Colab, Binder) that shows itself as the last line of a cell. Without ipywidgets: the
    matplotlib figure of `ynet_lite.drawing.retrieval_page` with the first query of each class. Uploads are never written to disk.

    Raises ``ValueError`` as `pages.Retrieval` does, and for ``k`` outside 1 to N.
    """
    checkpoint = None
    if database is None:
        with contextlib.nullcontext(queries) if isinstance(queries, Index) else Index(queries) as index:
            queries, codes, checkpoint = index.cases(), index.codes(), index.checkpoint()
        database, ranked_by = queries, (codes, codes)
    explorer = Explorer(queries, database, ranked_by, maps=maps, side=side)
    explorer.retrieval.checkpoint = checkpoint or explorer.retrieval.checkpoint
    explorer.answers(View(k=k))  # refuses a wrong k before anything is shown
    try:
        import ipywidgets
    except ImportError:
        from matplotlib import pyplot

        figure = explorer.figure(k)
        pyplot.close(figure)  # the last line of a cell shows it; an open figure would be shown twice
        return figure
    return _Page(explorer, k, ipywidgets).box


class _Page:
    """Controls around an `Explorer`: every change makes a `View`, the view makes the page."""

    def __init__(self, explorer: Explorer, k: int, widgets):
        self.explorer = explorer
        self.upload: Cases | None = None
        self._quiet = False
        queries, database, bits = explorer.queries, explorer.database, explorer.retrieval.bits
        labels = [queries.class_names[label] for label in queries.labels]
        self._options = [(f"{case} ({label})", row) for row, (case, label) in enumerate(zip(queries.ids, labels, strict=True))]
        wide = {"style": {"description_width": "initial"}}
        slider = {**wide, "continuous_update": False}
        most = min(max(MOST_ANSWERS, k), len(database) - (queries is database))
        classes = [("all classes", ""), *((c, c) for c in database.class_names)]
        # by the names that a `View` gives them
        self.controls = {
            "query": widgets.Dropdown(options=self._options, value=0, description="Query case", **wide),
            "only": widgets.Dropdown(options=classes, description="Only class", **wide),
            "k": widgets.IntSlider(value=k, min=1, max=most, description="Answers (k)", **slider),
        }
        if bits is not None and bits > 8:
            lengths = {"value": bits, "min": 8, "max": bits, "step": 8}
            self.controls["bits"] = widgets.IntSlider(description="First bits of the code", **lengths, **slider)
        self.controls["outlines"] = widgets.ToggleButton(value=True, description="Outlines", tooltip="Show lesion outlines")
        if explorer.maps is not None:
            said = "Show where the network looks"
            self.controls["maps"] = widgets.ToggleButton(value=False, description="Attention", tooltip=said)
        for control in self.controls.values():
            control.observe(self._show, "value")
        shown = list(self.controls.values())
        if explorer.retrieval.checkpoint is not None:
            said = f"PNG, JPEG, TIFF, BMP or DICOM, at most {MOST_BYTES / 1e6:.0f} MB; the file stays in memory"
            self.file = widgets.FileUpload(accept=",".join(SUFFIXES), multiple=False, description="Upload image", tooltip=said)
            self.file.layout.width = "auto"
            self.file.observe(self._uploaded, "value")
            shown.append(self.file)
        self.alert, self.page = widgets.HTML(), widgets.HTML(layout=widgets.Layout(width="100%"))
        row = widgets.Box(shown, layout=widgets.Layout(display="flex", flex_flow="row wrap"))
        # the text of a box is all that a page without widgets shows (GitHub, for one); ipywidgets cuts it off at 110 characters
        about = f"A page to click through ({len(queries)} queries, {len(database)} cases)"
        about += ": run this cell in JupyterLab, Binder or Colab."
        self.box = type("Page", (widgets.VBox,), {"__repr__": lambda _: about})([row, self.alert, self.page])
        self._show()

    def view(self) -> View:
        values = {name: control.value for name, control in self.controls.items()}
        if values["query"] == _UPLOADED:
            values |= {"query": 0, "upload": self.upload}
        return View(**values)

    def _show(self, _=None) -> None:
        if self._quiet:
            return
        view = self.view()
        try:
            self.page.value, self.alert.value = self.explorer.html(view), ""
        except ValueError as error:
            self._tell(error)
            if view.maps:  # most likely the user's callable: show the rest
                self.page.value = self.explorer.html(replace(view, maps=False))

    def _tell(self, error: Exception) -> None:
        style = f"<style>{pages.STYLE}</style>"
        self.alert.value = f'{style}<div class="ynl"><p class="alert" role="alert">{pages.text(error)}</p></div>'

    def _uploaded(self, change) -> None:
        if (given := uploaded_file(change["new"])) is None:
            return
        filename, content = given
        cfg = self.explorer.retrieval.checkpoint.cfg
        try:
            self.upload = read_upload(content, filename, cfg.size, cfg.channels)
        except ValueError as error:
            self._tell(error)
        else:
            # both changes are one event for the page
            self._quiet = True
            self.controls["query"].options = [*self._options, (f"uploaded: {self.upload.ids[0]}", _UPLOADED)]
            self.controls["query"].value = _UPLOADED
            self._quiet = False
            self._show()
        if isinstance(self.file.value, tuple):
            self.file.value = ()  # the content is not needed any longer
