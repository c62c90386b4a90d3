"""The page in the notebook: state to rows and HTML, uploads, controls."""

import binascii
import builtins
import io
import os
import re
import struct
import sys
from dataclasses import replace
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pytest
import tifffile
import torch
from parsed import Parsed, image_of
from PIL import Image

from ynet_lite import encode, explore
from ynet_lite.cases.formats import read_image
from ynet_lite.cases.loading import letterbox
from ynet_lite.checkpoint import Checkpoint
from ynet_lite.hashing import HammingIndex
from ynet_lite.model import YNet
from ynet_lite.viewer.explore import LONGEST_NAME, MOST_BYTES, Explorer, View, read_upload, uploaded_file

MODULE = sys.modules["ynet_lite.viewer.explore"]  # in the package the name "explore" is the function


@pytest.fixture
def sides(tiny_cases):
    return tiny_cases.take(np.arange(8)), tiny_cases.take(np.arange(8, 48))


@pytest.fixture
def checkpoint(tiny_cases, tiny_config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = YNet(tiny_config, 2, 2).eval()
    return Checkpoint(model, tiny_config, "", tiny_cases.class_names, tiny_cases.mask_names)


def look(image):
    """An attention map: the image itself."""
    return image[0] / 255


def listed(page: Parsed) -> list[str]:
    """What each answer says to a screen reader."""
    return [found["aria-label"] for found in page.all("svg") if found["aria-label"].startswith("Answer")]


# --- state to rows and HTML


def test_rows_are_those_of_the_index(sides, checkpoint):
    explorer = Explorer(*sides, checkpoint)
    far, rows = HammingIndex(encode(checkpoint, sides[1])).search(encode(checkpoint, sides[0]), 6)
    for query in range(8):
        found = explorer.answers(View(query=query, k=6))[1]
        assert found["row"].tolist() == rows[query].tolist() and found["distance"].tolist() == far[query].tolist()


def test_the_page_shows_the_rows(sides, checkpoint):
    explorer = Explorer(*sides, (encode(checkpoint, sides[0]), encode(checkpoint, sides[1])))
    view = View(query=3, k=4)
    page, rows = Parsed(explorer.html(view)), explorer.answers(view)[1]
    assert len(page.all("li")) == 4 and len(page.all("figure")) == 5 and len(page.all("ol")) == 1
    for label, answer in zip(listed(page), rows.itertuples(), strict=True):
        assert label.startswith(
            f"Answer {answer.rank}: case {answer.case_id}, {answer.distance} of 16 bits, class {answer.label}"
        )
    kinds = [found["class"].split()[1] for found in page.all("figure")]
    assert kinds == ["query"] + ["same" if same else "other" for same in rows["same"]]
    assert sides[0].ids[3] in page.words and sides[0].groups[3] in page.words
    assert "not a medical device" in page.words
    assert "Vote of the 4 nearest" in page.words and "query" in page.words
    first = image_of(page.urls[1])
    assert np.array_equal(np.asarray(first), sides[1].images[rows["row"][0], 0])
    assert all(url.startswith("data:image/png;base64,") for url in page.urls) and "script" not in page.tags


def test_switches_and_bits(sides, checkpoint):
    explorer = Explorer(*sides, checkpoint, maps=look)

    def classes(**changes):
        (section,) = Parsed(explorer.html(View(k=2, **changes))).all("section")
        return set(section["class"].split()) - {"ynl"}

    assert classes() == set()
    assert classes(outlines=False) == {"no-outlines"}
    assert classes(maps=True) == {"with-maps"}
    assert len(Parsed(explorer.html(View(k=2, maps=True))).all("image", "ynl-heat")) == 3
    assert not Parsed(explorer.html(View(k=2))).all("image", "ynl-heat")
    for bits in (1, 8, 15):
        rows = explorer.answers(View(k=40, bits=bits))[1]
        assert rows["distance"].max() <= bits
        assert f"of {bits} bits" in explorer.html(View(k=2, bits=bits))


def test_the_class_filter_shows_one_class_of_the_nearest_and_lets_all_vote(sides, checkpoint):
    explorer = Explorer(*sides, checkpoint)
    plain, only = (Parsed(explorer.html(View(k=20, only=name))) for name in ("", "square"))
    assert listed(only) == [label for label in listed(plain) if "class square" in label]
    assert 0 < len(listed(only)) < 20 and "only square among the 20 nearest" in only.words
    sentence = re.compile(r"Vote of the 20 nearest.*?\. .*?\.")
    assert sentence.search(only.words)[0] == sentence.search(plain.words)[0]
    discs = sides[1].take(sides[1].labels == 0)
    explorer = Explorer(sides[0], discs, checkpoint)
    page = Parsed(explorer.html(View(k=5, only="square")))
    assert not page.all("li") and "None of these answers is of the class" in page.words


def test_hostile_names_stay_text(sides, checkpoint):
    queries, database = sides
    hostile = "<img src=x onerror=alert(1)>\"'&"
    names = (hostile, "square")

    def rename(cases):
        table = cases.table.assign(case_id=[f"{hostile}{i}" for i in range(len(cases))], group=hostile)
        return replace(cases, table=table, class_names=names)

    explorer = Explorer(rename(queries), rename(database), replace(checkpoint, class_names=names))
    for view in (View(k=3), View(k=3, only=hostile)):
        page = Parsed(explorer.html(view))
        assert "img" not in page.tags and "script" not in page.tags
        assert not [key for _, found in page.elements for key in found if key.startswith("on")]
        assert f"{hostile}0" in page.words


def test_wrong_views_are_named(sides, checkpoint):
    explorer = Explorer(*sides, checkpoint)
    for view, message in [
        (View(k=0), "k = 0"),
        (View(k=41), "k = 41"),
    ]:
        with pytest.raises(ValueError, match=message):
            explorer.html(view)


def test_a_case_alone_has_no_answer(sides, checkpoint):
    one = sides[0].take([0])
    code = encode(checkpoint, one)
    with pytest.raises(ValueError, match="k = 1; 0 cases can be answers"):
        explore(one, one, (code, code), k=1)


def test_the_figure_shows_one_query_per_class(sides, checkpoint):
    figure = Explorer(*sides, checkpoint).figure(k=3)
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == 2 * 4  # two classes, a query and three answers each
    assert [axis.get_title() for axis in shown if "query" in axis.get_title()] == ["query\ndisc", "query\nsquare"]
    assert "bits" in shown[1].get_title()


# --- uploads


def pixels(shape=(37, 53), top=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def files() -> dict[str, bytes]:
    def saved(image, kind, **options):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    grey, colour = Image.fromarray(pixels()), Image.fromarray(pixels((37, 53, 3)))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = io.BytesIO()
    tifffile.imwrite(deep, pixels((37, 53, 3), 4096, np.uint16), photometric="rgb")
    return {
        "grey.png": saved(grey, "PNG"),
        "colour.PNG": saved(colour, "PNG"),
        "alpha.png": saved(colour.convert("RGBA"), "PNG"),
        "palette.png": saved(colour.quantize(8), "PNG"),
        "one bit.png": saved(grey.convert("1"), "PNG"),
        "16 bit.png": saved(Image.fromarray(pixels(top=4096, dtype=np.uint16)), "PNG"),
        "photo.jpg": saved(colour, "JPEG", exif=turned),
        "grey.tif": saved(grey, "TIFF"),
        "16 bit colour.tiff": deep.getvalue(),
        "grey.bmp": saved(grey, "BMP"),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filename", files())
def test_an_upload_has_the_pixels_of_the_file(filename, channels, tmp_path):
    content = files()[filename]
    (tmp_path / filename).write_bytes(content)
    expected, box = letterbox(read_image(tmp_path / filename, channels), 32)
    case = read_upload(content, filename, 32, channels)
    assert np.array_equal(case.images[0], expected)
    assert tuple(case.table.loc[0, ["box_top", "box_left", "box_height", "box_width"]]) == box
    assert case.ids.tolist() == [filename] and not case.has_mask.any()


def test_an_upload_is_never_written(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    taken = files()
    read_upload(taken["grey.png"], "grey.png", 32, 1)  # plugins of Pillow are loaded
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    for filename in ("colour.PNG", "photo.jpg", "grey.tif", "16 bit colour.tiff", "grey.bmp"):
        read_upload(taken[filename], filename, 32, 1)


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a huge picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels((2, 2))).save(stream, "PNG")
    head = bytearray(stream.getvalue())
    head[16:24] = struct.pack(">II", width, height)
    head[29:33] = struct.pack(">I", binascii.crc32(head[12:29]))
    return bytes(head)


def test_uploads_that_are_refused_say_why():
    taken = files()
    pages = io.BytesIO()
    tifffile.imwrite(pages, pixels((2, 37, 53)), photometric="minisblack")
    gif = io.BytesIO()
    Image.fromarray(pixels()).save(gif, "GIF")
    huge_tiff = bytearray(taken["16 bit colour.tiff"])
    for content, filename, message in [
        (b"", "a.png", "a.png: the file is empty"),
        (b"\x00" * (MOST_BYTES + 1), "a.png", "8.0 MB; at most 8 MB"),
        (taken["grey.png"], "a.gif", "PNG, JPEG, TIFF, BMP, DICOM files are taken"),
        (taken["grey.png"], "a", "files are taken"),
        (gif.getvalue(), "a.png", "a.png: cannot be read as PNG"),
        (b"<html><script>alert(1)</script>", "a.png", "another kind of file"),
        (taken["grey.png"][:200], "a.png", "damaged"),
        (taken["photo.jpg"][:300], "a.jpg", "damaged"),
        (bytes(huge_tiff[:40]), "a.tif", "damaged"),
        (pages.getvalue(), "a.tif", "holds 2 pages"),
        (claims(8000, 8000), "a.png", "8000 x 8000 pixels; at most 40 million"),
        (claims(60000, 60000), "a.png", "at most 40 million"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_upload(content, filename, 32, 1)


def test_the_size_of_an_unusual_tiff_is_checked_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(MODULE, "MOST_PIXELS", 37 * 53 - 1)
    for filename, content in files().items():
        with pytest.raises(ValueError, match="53 x 37|37 x 53|too many"):
            read_upload(content, filename, 32, 1)


@pytest.mark.parametrize(
    "given, shown",
    [("../../etc/a<b>.png", "a<b>.png"), ("C:\\scans\\x.png", "x.png"), ("n" * 99 + ".png", "n" * (LONGEST_NAME - 1) + "\u2026")],
)
def test_an_uploaded_name_is_short_and_without_folders(given, shown):
    assert read_upload(files()["grey.png"], given, 32, 1).ids.tolist() == [shown]


def test_values_of_both_generations_of_the_upload_button():
    assert uploaded_file(()) is None and uploaded_file({}) is None
    assert uploaded_file(({"name": "a.png", "content": memoryview(b"xy")},)) == ("a.png", b"xy")
    assert uploaded_file({"a.png": {"metadata": {"name": "a.png"}, "content": b"xy"}}) == ("a.png", b"xy")


def test_an_upload_is_answered_like_the_same_query(sides, checkpoint):
    explorer = Explorer(*sides, checkpoint, maps=look)
    stream = io.BytesIO()
    Image.fromarray(sides[0].images[5, 0]).save(stream, "PNG")
    case = read_upload(stream.getvalue(), "mine.png", 32, 1)
    a, b = explorer.answers(View(upload=case, k=7))[1], explorer.answers(View(query=5, k=7))[1]
    assert a.drop(columns="same").equals(b.drop(columns="same")) and a["same"].tolist() == [None] * 7
    page = Parsed(explorer.html(View(upload=case, k=7, maps=True)))
    assert "Uploaded image" in page.words and "class unknown" in page.words and "mine.png" in page.words
    assert not page.all("figure", "same") and not page.all("figure", "other")
    assert "the query" not in page.words.split("Orange")[0]


# --- controls


def control(box, description: str):
    (found,) = [child for child in box.children[0].children if child.description == description]
    return found


def shown(box) -> Parsed:
    return Parsed(box.children[2].value)


def alert(box) -> str:
    return Parsed(box.children[1].value).words


def upload(box, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    control(box, "Upload image").value = ({**file, "last_modified": datetime(2024, 1, 1, tzinfo=UTC)},)


def test_controls_move_the_page(sides, checkpoint):
    box = explore(*sides, checkpoint, k=3, maps=look)
    assert isinstance(box, ipywidgets.VBox)
    explorer = Explorer(*sides, checkpoint, maps=look)
    state = View(k=3, bits=16)
    assert box.children[2].value == explorer.html(state)
    for description, value, change in [
        ("Query case", 6, {"query": 6}),
        ("Answers (k)", 5, {"k": 5}),
        ("First bits of the code", 8, {"bits": 8}),
        ("Only class", "square", {"only": "square"}),
        ("Outlines", False, {"outlines": False}),
        ("Attention", True, {"maps": True}),
        ("Only class", "", {"only": ""}),
    ]:
        control(box, description).value = value
        state = replace(state, **change)
        assert box.children[2].value == explorer.html(state), description
        assert alert(box) == ""
    choices = control(box, "Query case").options
    assert [value for _, value in choices] == list(range(8)) and choices[2][0] == "case-002 (square)"
    assert control(box, "Answers (k)").max == 40


def test_what_does_not_apply_has_no_control(sides, checkpoint):
    codes = encode(checkpoint, sides[0]), encode(checkpoint, sides[1])
    names = [child.description for child in explore(*sides, codes).children[0].children]
    assert names == ["Query case", "Only class", "Answers (k)", "First bits of the code", "Outlines"]
    names = [child.description for child in explore(*sides, np.zeros((8, 40))).children[0].children]
    assert names == ["Query case", "Only class", "Answers (k)", "Outlines"]


def test_uploading_in_the_page(sides, checkpoint):
    box = explore(*sides, checkpoint, k=3)
    upload(box, "mine.png", files()["grey.png"])
    assert control(box, "Upload image").value == (), "the content should not be kept"
    assert control(box, "Query case").label == "uploaded: mine.png"
    assert "Uploaded image" in shown(box).words and alert(box) == ""
    control(box, "Query case").value = 2
    assert "Uploaded image" not in shown(box).words and sides[0].ids[2] in shown(box).words
    before = box.children[2].value
    upload(box, "<b>bad.png", b"no picture")
    assert "<b>bad.png: cannot be read" in alert(box)
    assert Parsed(box.children[1].value).all("p", "alert")[0]["role"] == "alert"
    assert box.children[2].value == before
    upload(box, "second.png", files()["colour.PNG"])
    assert "second.png" in shown(box).words and alert(box) == ""
    assert [label for label, _ in control(box, "Query case").options][8:] == ["uploaded: second.png"]


def test_a_failing_map_is_told_and_the_page_stays(sides, checkpoint):
    box = explore(*sides, checkpoint, k=3, maps=lambda image: np.full((2, 2), 0.5))
    control(box, "Attention").value = True
    assert "the attention map of case 'case-0" in alert(box)
    assert len(listed(shown(box))) == 3
    control(box, "Attention").value = False
    assert alert(box) == ""


def test_without_ipywidgets_a_picture_is_returned(sides, checkpoint, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    pyplot.close("all")
    figure = explore(*sides, checkpoint, k=3)
    assert len([axis for axis in figure.axes if axis.axison]) == 8
    assert not pyplot.get_fignums(), "an open figure would be shown twice"


def test_where_widgets_are_not_drawn_one_line_says_what_is_missing(sides, checkpoint):
    shown = explore(*sides, checkpoint)._repr_mimebundle_()["text/plain"]
    assert shown == "A page to click through (8 queries, 40 cases): run this cell in JupyterLab, Binder or Colab."
    assert len(shown.replace("8", "10000").replace("40", "1000000")) <= 110, "ipywidgets cuts the rest off"


def test_a_wrong_k_is_refused_before_anything_is_shown(sides, checkpoint):
    for k in (0, 41, 2.5):
        with pytest.raises(ValueError, match="40 cases"):
            explore(*sides, checkpoint, k=k)
