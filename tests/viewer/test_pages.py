"""Pieces of the clickable pages: rankings, votes, drawings, escaping."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parsed import Parsed, image_of

from ynet_lite.checkpoint import Checkpoint
from ynet_lite.encoding import encode
from ynet_lite.hashing import Codes, hamming, pack
from ynet_lite.model import YNet
from ynet_lite.viewer import pages

CARDS = pages.ENVIRONMENT.get_template("cards.html").module

HOSTILE = ("<img src=x onerror=alert(1)>", "\"'&", "</script><script>alert(1)</script>", "a\u202eb\x00\x1b\ud800")


@pytest.fixture
def sides(tiny_cases):
    """(queries, database): 8 and 40 drawn cases."""
    return tiny_cases.take(np.arange(8)), tiny_cases.take(np.arange(8, 48))


@pytest.fixture
def untrained(tiny_cases, tiny_config):
    def make(**changes) -> Checkpoint:
        cfg = tiny_config.but(**changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = YNet(cfg, 2, 2).eval()
        return Checkpoint(model, cfg, "", tiny_cases.class_names, tiny_cases.mask_names)

    return make


def random_codes(cases, bits: int = 16, seed: int = 0) -> Codes:
    rng = np.random.default_rng(seed)
    return Codes(pack(rng.random((len(cases), bits)) < 0.5), cases.ids, cases.labels, bits)


# --- text


@pytest.mark.parametrize("value", HOSTILE)
def test_text_is_text_and_can_be_stored(value):
    source = f'<p title="{pages.text(value)}">{pages.text(value)}</p>'
    source.encode()
    page = Parsed(source)
    shown = re.sub("[\x00\x1b\ud800]", "\ufffd", value)
    assert page.elements == [("p", {"title": shown})] and page.words == shown


def test_text_takes_what_is_no_text_and_name_isolates_it():
    assert pages.text(None) == "None" and pages.text(1.5) == "1.5" and pages.text("") == ""
    assert pages.text("a\tb\nc") == "a\tb\nc"
    assert pages.name("a<b") == "<bdi>a&lt;b</bdi>"


# --- distances and lists


@pytest.fixture
def prefix_distances(tiny_cases):
    """A function: bits of queries (Q, K) and of a database (N, K), a number of bits -> distances (Q, N)."""

    def make(queries: np.ndarray, database: np.ndarray, bits: int) -> list[list[int]]:
        sides = tiny_cases.take(np.arange(len(queries))), tiny_cases.take(np.arange(len(database)))
        pair = [Codes(pack(b), c.ids, c.labels, b.shape[1]) for b, c in zip((queries, database), sides, strict=True)]
        kept = [codes.packed.copy() for codes in pair]
        retrieval = pages.Retrieval(pair, *sides)
        found = [retrieval.of_query(q, bits).tolist() for q in range(len(queries))]
        assert all(np.array_equal(a.packed, b) for a, b in zip(pair, kept, strict=True)), "an argument was changed"
        return found

    return make


def test_first_bits_by_hand(prefix_distances):
    #          bits differ at places 0 and 7
    q, n = (np.array([[c == "1" for c in code]]) for code in ("10110000", "00110001"))
    assert [prefix_distances(q, n, bits)[0][0] for bits in range(1, 9)] == [1, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 31, 48])
def test_first_bits_are_counted_one_by_one(bits, prefix_distances):
    rng = np.random.default_rng(1)
    q, n = rng.random((3, 48)) < 0.5, rng.random((5, 48)) < 0.5
    assert prefix_distances(q, n, bits) == [[sum(int(a[i] != b[i]) for i in range(bits)) for b in n] for a in q]
    assert prefix_distances(q, n, 48) == prefix_distances(q, n, None) == hamming(pack(q), pack(n)).tolist()


def test_answers_are_ordered_by_distance_and_id(sides):
    queries, database = sides
    shuffled = database.take(np.random.default_rng(2).permutation(len(database)))
    distance = np.random.default_rng(3).integers(0, 4, (len(queries), len(shuffled)))  # many ties
    retrieval = pages.Retrieval(distance, queries, shuffled)
    for query in range(3):
        every = sorted((int(d), case, row) for row, (d, case) in enumerate(zip(distance[query], shuffled.ids, strict=True)))
        kept = [(i + 1, *a) for i, a in enumerate(every)][:7]
        found = pages.answers(retrieval.of_query(query), shuffled, 7, label=1)
        assert list(zip(found["rank"], found["distance"], found["case_id"], found["row"], strict=True)) == kept
        assert found["label"].tolist() == [shuffled.class_names[shuffled.labels[r]] for *_, r in kept]
        assert found["group"].tolist() == [shuffled.groups[r] for *_, r in kept]
        assert found["same"].tolist() == [bool(shuffled.labels[r] == 1) for *_, r in kept]


def test_answers_of_an_unknown_class(sides):
    found = pages.answers(np.zeros(40), sides[1], 3)
    assert found["same"].tolist() == [None] * 3
    assert len(pages.answers(np.zeros(40), sides[1], 40)) == 40


@pytest.mark.parametrize("k", [0, -1, 41, 2.0, True, None])
def test_answers_refuse_other_k(sides, k):
    with pytest.raises(ValueError, match="40 cases can be answers, so k is"):
        pages.answers(np.zeros(40), sides[1], k)


def test_vote_by_hand():
    names = ("a", "b", "c")
    assert pages.vote(["b", "a", "b", "b"], names) == [("b", 3), ("a", 1)]
    assert pages.vote(["c", "b", "c", "b", "a"], names) == [("b", 2), ("c", 2), ("a", 1)]  # level: order of the classes
    words = [
        ([("b", 3), ("a", 1)], "b", "Vote of the 4 nearest: b 3, a 1. Most votes: b, the query's class."),
        ([("b", 3), ("a", 1)], "a", "Vote of the 4 nearest: b 3, a 1. Most votes: b; the query is a."),
        ([("b", 3), ("a", 1)], None, "Vote of the 4 nearest: b 3, a 1. Most votes: b."),
        ([("b", 2), ("c", 2)], "b", "Vote of the 4 nearest: b 2, c 2. Level between b and c; the query is b."),
    ]
    for votes, own, expected in words:
        assert Parsed(CARDS.vote(votes, own)).words == expected


# --- what ranks


def test_codes_and_their_distances_rank_alike(sides):
    codes = [random_codes(cases, seed=i) for i, cases in enumerate(sides)]
    by_codes = pages.Retrieval(tuple(codes), *sides)
    by_distance = pages.Retrieval(hamming(codes[0].packed, codes[1].packed), *sides)
    assert by_codes.bits == 16 and by_distance.bits is None
    for query in range(8):
        assert np.array_equal(by_codes.of_query(query), by_distance.of_query(query))
    assert by_codes.of_query(0, 5).max() <= 5


@pytest.mark.parametrize("ranking", ["hamming", "cosine", "descriptor"])
def test_a_checkpoint_ranks_and_takes_new_images(sides, untrained, ranking):
    checkpoint = untrained(ranking=ranking)
    retrieval = pages.Retrieval(checkpoint, *sides)
    assert retrieval.bits == (16 if ranking == "hamming" else None)
    if ranking == "hamming":
        expected = hamming(encode(checkpoint, sides[0]).packed, encode(checkpoint, sides[1]).packed)
        assert np.array_equal([retrieval.of_query(q) for q in range(8)], expected)
    for query in (0, 5):
        again = retrieval.of_case(sides[0].take([query]))
        # one image at a time is summed in another order than a batch
        np.testing.assert_allclose(again, retrieval.of_query(query), atol=1e-5 if ranking != "hamming" else 0)


def test_what_does_not_fit_is_named(sides, untrained):
    queries, database = sides
    codes = random_codes(queries), random_codes(database)
    empty = queries.take(np.zeros(8, bool))
    renamed = replace(queries, class_names=("disc", "ring"))
    nan = np.zeros((8, 40))
    nan[3, 4] = np.nan
    for wrong, pair, message in [
        (codes, (empty, database), "0 queries and 40"),
        (codes, (queries, empty), "8 queries and 0"),
        (codes, (renamed, database), "ring.*parts of one set"),
        ((codes[1], codes[0]), sides, "query codes belong to other cases"),
        ((codes[0], random_codes(queries)), sides, "database codes belong to other cases"),
        ((codes[0], random_codes(database, 32)), sides, "16 bits.*32"),
        (np.zeros((40, 8)), sides, r"shape \(8, 40\), got .*\(40, 8\)"),
        (np.zeros((8, 40), bool), sides, "must be numbers"),
        (nan, sides, "NaN"),
        (codes[0], sides, "got Codes"),
        ("net.safetensors", sides, "got str"),
        (replace(untrained(), class_names=("a", "b")), sides, r"checkpoint knows the classes \['a', 'b'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            pages.Retrieval(wrong, *pair)


# --- drawings


def test_outline_by_hand():
    mask = np.zeros((4, 6), np.uint8)
    assert pages.outline_path(mask) == ""
    points = corners(pages.outline_path(np.ones((4, 6), np.uint8)))
    assert len(points) == 1
    # x, y: to the very edges, but for a cut corner
    assert (points[0].min(0) <= 0.5).all() and (points[0].max(0) >= [5.5, 3.5]).all()
    assert points[0].min() >= 0 and (points[0].max(0) <= [6, 4]).all() and 22 <= area(points[0]) <= 24


def corners(path: str) -> list[np.ndarray]:
    lines = [part for part in path.split("M") if part]
    assert all(line.endswith("Z") for line in lines)
    return [np.array([[float(v) for v in p.split()] for p in line[:-1].split("L")]) for line in lines]


def area(points: np.ndarray) -> float:
    x, y = points.T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def test_outline_encloses_the_lesion():
    y, x = np.mgrid[:40, :50]
    radius = np.hypot(y - 18, x - 25)
    disc = (radius < 12).astype(np.uint8)
    (line,) = corners(pages.outline_path(disc))
    assert area(line) == pytest.approx(disc.sum(), rel=0.04)
    assert (line.min(0) + line.max(0)) / 2 == pytest.approx([25.5, 18.5], abs=0.3)  # the middle of a pixel is at one half
    assert len(line) < 40, "corners of single pixels should be cut"
    ring = disc * (radius >= 5)
    assert sorted(area(line) for line in corners(pages.outline_path(ring))) == pytest.approx(
        [(radius < 5).sum(), disc.sum()], rel=0.12
    )
    nested = disc + (radius < 5)  # disc and cup
    assert len(corners(pages.outline_path(nested))) == 2


def test_drawing_holds_the_pixels(tiny_cases):
    drawing = pages.Drawings(tiny_cases, side=32).draw(3)
    assert (drawing.width, drawing.height, drawing.outlined) == (32, 32, True)
    page = Parsed(f"<svg>{drawing.inner}</svg>")
    (uri,) = page.urls
    assert np.array_equal(np.asarray(image_of(uri)), tiny_cases.images[3, 0])
    assert [found["class"] for found in page.all("path")] == ["ynl-under", "ynl-outline"]
    unknown = replace(tiny_cases, has_mask=np.zeros(48, bool))
    plain = pages.Drawings(unknown, side=32).draw(3)
    assert not plain.outlined and "path" not in plain.inner
    empty = replace(tiny_cases, masks=np.zeros_like(tiny_cases.masks))
    assert not pages.Drawings(empty, side=32).draw(3).outlined


def test_drawing_is_cropped_reduced_and_made_once(tiny_cases):
    table = tiny_cases.table.assign(box_top=4, box_left=0, box_height=20, box_width=32)
    cases = replace(tiny_cases, table=table, images=np.repeat(tiny_cases.images, 3, 1))
    drawings = pages.Drawings(cases, side=16)
    drawing = drawings.draw(0)
    assert (drawing.width, drawing.height) == (32, 20)
    picture = image_of(Parsed(f"<svg>{drawing.inner}</svg>").urls[0])
    assert picture.size == (16, 10) and picture.mode == "RGB"
    assert np.asarray(picture).mean() == pytest.approx(cases.images[0, :, 4:24].mean(), abs=2)
    assert drawings.draw(np.int64(0)) is drawing
    for side in (15, 0, 32.0, True):
        with pytest.raises(ValueError, match="at least 16"):
            pages.Drawings(cases, side=side)


def test_attention_is_a_transparent_layer_of_the_given_map(tiny_cases):
    def maps(image):
        assert image.dtype == np.uint8 and image.shape == (1, 32, 32)
        image[:] = 0  # a careless callable must not change the cases
        found = np.zeros((32, 32))
        found[8, 5] = 1
        return found

    drawings = pages.Drawings(tiny_cases, side=32, maps=maps)
    before = tiny_cases.images.copy()
    page = Parsed(f"<svg>{drawings.draw(0, heat=True).inner}</svg>")
    assert np.array_equal(tiny_cases.images, before)
    plain, layer = page.all("image")
    assert layer["class"] == "ynl-heat" and "class" not in plain
    opacity = np.asarray(image_of(layer["href"]).convert("RGBA"))[..., 3]
    assert opacity[8, 5] > 120 and (np.delete(opacity.ravel(), 8 * 32 + 5) == 0).all()
    assert "ynl-heat" not in drawings.draw(0).inner


@pytest.mark.parametrize(
    "maps, message",
    [
        (lambda image: np.zeros((31, 32)), r"\(H, W\) = \(32, 32\).*got shape \(31, 32\)"),
        (lambda image: np.full((32, 32), 1.5), r"\[0, 1\].*1.5 to 1.5"),
        (lambda image: np.full((32, 32), np.nan), r"\[0, 1\]"),
        (lambda image: 1 / 0, "case-002.*ZeroDivisionError"),
        (lambda image: "map", "case-002.*could not be made"),
    ],
)
def test_a_wrong_map_is_named_with_its_case(tiny_cases, maps, message):
    with pytest.raises(ValueError, match=message):
        pages.Drawings(tiny_cases, maps=maps).draw(2, heat=True)


# --- cards


def test_cards_say_in_words_what_colours_show(tiny_cases):
    drawing = pages.Drawings(tiny_cases, side=32).draw(0)
    answer = SimpleNamespace(rank=2, row=0, case_id="c", label="disc", group="p", distance=np.int16(3), same=True)
    for same, kind, words in [(True, "same", "the same class"), (False, "other", "another class"), (None, "", "class disc")]:
        answer.same = same
        page = Parsed(CARDS.answer(drawing, answer, 16))
        (figure,), (svg,) = page.all("figure"), page.all("svg")
        assert figure["class"].split() == ["card", kind][: 2 if kind else 1]
        assert svg["role"] == "img" and words in svg["aria-label"] and "lesion outlined" in svg["aria-label"]
        assert "Answer 2: case c, 3 of 16 bits" in svg["aria-label"]
        assert "2. 3 of 16 bits" in page.words and "patient p" in page.words
    answer.group = None
    assert "patient" not in Parsed(CARDS.answer(drawing, answer, 16)).words
    query = Parsed(CARDS.query(drawing, "q", None, None, what="Uploaded image"))
    assert "class unknown" in query.words and query.all("svg")[0]["aria-label"].startswith("Uploaded image q, class unknown")


@pytest.mark.parametrize(
    "value, bits, expected",
    [(np.int16(3), 64, "3 of 64 bits"), (np.int64(3), None, "distance 3"), (0.256, None, "distance 0.26")],
)
def test_distances_in_words(value, bits, expected):
    assert pages.distance_text(value, bits) == expected


@pytest.mark.parametrize("value", HOSTILE)
def test_cards_escape_what_comes_from_data(tiny_cases, value):
    drawing = pages.Drawings(tiny_cases, side=32).draw(0)
    answer = SimpleNamespace(rank=1, row=0, case_id=value, label=value, group=value, distance=1, same=True)
    page = Parsed(str(CARDS.answer(drawing, answer, 16) + CARDS.query(drawing, value, value, value)))
    assert page.tags == {"figure", "svg", "image", "path", "figcaption", "b", "span", "bdi"}
    assert not [key for _, found in page.elements for key in found if key.startswith("on")]
    assert page.words.count(re.sub("[\x00\x1b\ud800]", "\ufffd", value)) == 6


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    """Contrast of WCAG 2.2: (L1 + 0.05) / (L2 + 0.05), 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read():
    assert contrast("#000", "#fff") == pytest.approx(21)
    from ynet_lite.viewer import gallery

    for style in (pages.STYLE, gallery._STYLE):
        words = re.findall(r"(?<![-\w])color:(#[0-9a-fA-F]{3,6})", style)
        frames = re.findall(r"(?:border(?:-color)?|outline):[^;}]*?(#[0-9a-fA-F]{3,6})", style)
        assert len(words) >= 3 and len(frames) >= 4
        assert set(re.findall(r"background:(#[0-9a-f]+)", style)) <= {"#fff", "#000"}
        for colour in words:
            assert contrast(colour, "#fff") >= 4.5, colour
        for colour in frames:
            assert contrast(colour, "#fff") >= 3, colour
