"""The gallery: one file that needs nothing else, whatever the cases are called."""

import base64
import hashlib
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from parsed import Parsed, image_of

from ynet_lite import export_gallery
from ynet_lite.hashing import Codes, hamming, pack
from ynet_lite.viewer import gallery

HOSTILE = "<img src=x onerror=alert(1)>\"'&</script><script>alert(2)</script>"


@pytest.fixture
def sides(tiny_cases):
    return tiny_cases.take(np.arange(6)), tiny_cases.take(np.arange(6, 48))


def codes_of(*sides) -> tuple[Codes, ...]:
    rng = np.random.default_rng(0)
    return tuple(Codes(pack(rng.random((len(c), 16)) < 0.5), c.ids, c.labels, 16) for c in sides)


def written(tmp_path, sides, ranked_by=None, **options) -> Parsed:
    path = export_gallery(tmp_path / "gallery.html", *sides, codes_of(*sides) if ranked_by is None else ranked_by, **options)
    assert path == tmp_path / "gallery.html"
    return Parsed(path.read_text(encoding="utf-8"))


def answer_labels(page: Parsed) -> list[str]:
    return [found["aria-label"] for found in page.all("svg") if found.get("aria-label", "").startswith("Answer")]


def test_every_query_with_its_answers(sides, tmp_path):
    page = written(tmp_path, sides, k=4)
    queries, database = sides
    distance = hamming(*(c.packed for c in codes_of(*sides)))
    labels = answer_labels(page)
    assert len(page.all("section", "case")) == 6 and len(labels) == len(page.all("li")) == 24
    for query in range(6):
        nearest = sorted(zip(distance[query].tolist(), database.ids.tolist(), database.labels.tolist(), strict=True))[:4]
        for rank, (far, case, label) in enumerate(nearest, start=1):
            same = "the same class" if label == queries.labels[query] else "another class"
            expected = (
                f"Answer {rank}: case {case}, {far} of 16 bits, class {database.class_names[label]}, {same}, lesion outlined"
            )
            assert labels[4 * query + rank - 1] == expected
        votes = [label for *_, label in nearest]
        assert f"{query + 1}. {queries.ids[query]} ({queries.class_names[queries.labels[query]]})" in page.words
        assert all(f"{database.class_names[c]} {votes.count(c)}" in page.words for c in set(votes))
    assert page.words.count("Vote of the 4 nearest") == 6
    assert "Research software, not a medical device." in page.words


def test_the_page_is_complete_in_itself(sides, tmp_path):
    page = written(tmp_path, sides)
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for url in page.urls:
        assert url.startswith(("data:image/png;base64,", "#")) or url == "data:,", url[:60]
        assert not url.startswith("#") or url[1:] in ids
    pictures = [url for url in page.urls if url.startswith("data:image")]
    assert len(pictures) == len(page.all("symbol")) == len(set(ids) & {f["id"] for f in page.all("symbol")})
    assert all(max(image_of(url).size) <= 96 for url in pictures)
    source = (tmp_path / "gallery.html").read_text()
    outside = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", source)
    assert not re.search(r"https?:|//\w|url\(|@import|\bfetch\b|XMLHttp|WebSocket|import\(", outside)
    assert str(tmp_path) not in source


def test_the_policy_forbids_the_network_and_other_scripts(sides, tmp_path):
    page = written(tmp_path, sides)
    (policy,) = [found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    for kind in ("style", "script"):
        (inside,) = page.raw[kind]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    # the policy refuses these, so none may be needed
    keys = {key for _, found in page.elements for key in found}
    assert "style" not in keys and not [key for key in keys if key.startswith("on")]
    order = [tag for tag, found in page.elements if tag in ("style", "script") or found.get("http-equiv")]
    assert order == ["meta", "style", "script"]


def test_the_page_can_be_read_without_seeing_it(sides, tmp_path):
    page = written(tmp_path, sides, title="Nearest cases", note="Phantom & friends")
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1 and len(page.all("h2")) == 6
    assert len(page.all("main")) == 1 and page.all("title")
    assert page.words.count("Nearest cases") == 2 and "Phantom & friends" in page.words
    ids = {found["id"] for _, found in page.elements if "id" in found}
    assert all(found["aria-labelledby"] in ids for found in page.all("section"))
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and len(svg["aria-label"]) > 10)
    assert page.all("a", "skip")[0]["href"] == "#cases"
    (choose,) = [found for found in page.all("div") if found.get("id") == "choose"]
    assert "hidden" in choose, "what needs the script is hidden until the script runs"
    assert not any("hidden" in found for found in page.all("section") + page.all("li"))


def test_hostile_names_stay_text(sides, tmp_path):
    def rename(cases):
        table = cases.table.assign(case_id=[f"{HOSTILE}{i}" for i in cases.table.index], group=HOSTILE)
        return replace(cases, table=table, class_names=(HOSTILE, "a\x00\ud800"))

    page = written(tmp_path, tuple(map(rename, sides)), title=HOSTILE, note=HOSTILE)
    harmless = written(tmp_path, sides, note="x")
    assert page.tags == harmless.tags and "img" not in page.tags
    assert len(page.raw["script"]) == 1
    assert not [key for _, found in page.elements for key in found if key.startswith("on")]
    for shown in (f"1. {HOSTILE}0 ({HOSTILE})", f"patient {HOSTILE}"):
        assert shown in page.words
    assert page.words.count(HOSTILE) > 6 * 20


def test_the_same_input_gives_the_same_bytes(sides, tmp_path):
    first = export_gallery(tmp_path / "a.html", *sides, codes_of(*sides), maps=lambda image: image[0] / 255)
    again = export_gallery(tmp_path / "b.htm", *sides, codes_of(*sides), maps=lambda image: image[0] / 255)
    assert first.read_bytes() == again.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b.htm"], "a temporary file was left"


def test_maps_patients_and_chosen_rows(sides, tmp_path):
    page = written(tmp_path, sides, rows=[4, 1], k=2, groups=False, maps=lambda image: image[0] / 255)
    assert "patient" not in page.words.lower()
    assert [found["id"] for found in page.all("section")] == ["case-1", "case-2"]
    assert page.words.index(sides[0].ids[4]) < page.words.index(sides[0].ids[1])
    assert len(page.all("image", "ynl-heat")) == len(page.all("symbol"))
    assert [found["id"] for found in page.all("input")].count("maps") == 1
    plain = written(tmp_path, sides, rows=np.array([4]), k=2)
    assert not plain.all("image", "ynl-heat") and "maps" not in [found["id"] for found in plain.all("input")]
    assert "patient" in plain.words


def test_distances_without_codes(sides, tmp_path):
    distance = np.random.default_rng(1).random((6, 42))
    page = written(tmp_path, sides, distance, k=1)
    for label, nearest in zip(answer_labels(page), distance.min(1), strict=True):
        assert f"distance {nearest:.2f}" in label


def test_what_is_wrong_is_said_and_nothing_is_written(sides, tmp_path):
    codes = codes_of(*sides)
    for options, message in [
        ({"k": 0}, "k = 0"),
        ({"k": 43}, "42 cases"),
        ({"rows": []}, "at least one"),
        ({"rows": [0, 0]}, "different numbers from 0 to 5"),
        ({"rows": [6]}, "different numbers from 0 to 5"),
        ({"rows": [-1]}, "different numbers from 0 to 5"),
        ({"rows": [0.5]}, "whole numbers"),
        ({"rows": [True, False]}, "whole numbers"),
        ({"side": 8}, "at least 16"),
        ({"most_bytes": 30_000}, r"gallery.html with 6 queries would be above 0.0 MB.*rows=.*side=96.*k="),
        ({"maps": lambda image: image}, "attention map"),
    ]:
        with pytest.raises(ValueError, match=message):
            export_gallery(tmp_path / "gallery.html", *sides, codes, **options)
    with pytest.raises(ValueError, match="must end in .html"):
        export_gallery(tmp_path / "gallery.pdf", *sides, codes)
    assert os.listdir(tmp_path) == []


def test_a_failure_keeps_the_older_file(sides, tmp_path):
    path = export_gallery(tmp_path / "gallery.html", *sides, codes_of(*sides))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="above"):
        export_gallery(path, *sides, codes_of(*sides), most_bytes=len(before) - 1)
    assert path.read_bytes() == before
    export_gallery(path, *sides, codes_of(*sides), most_bytes=len(before))


def test_each_picture_is_stored_once(sides, tmp_path):
    """What an answer costs beyond its first time is text: hundreds of queries fit."""
    queries, database = sides
    few = database.take(np.arange(10))
    one = written(tmp_path, (queries.take([0]), few))
    small = (tmp_path / "gallery.html").stat().st_size
    six = written(tmp_path, (queries, few))
    assert len(one.all("symbol")) == 11 and len(six.all("symbol")) == 16
    assert (tmp_path / "gallery.html").stat().st_size - small < 5 * 10_000


def test_a_page_that_is_far_too_large_is_refused_before_it_is_drawn(sides, tmp_path, monkeypatch):
    drawn = []
    draw = gallery.pages.Drawings._draw
    monkeypatch.setattr(gallery, "_SAMPLE", 4)
    monkeypatch.setattr(gallery.pages.Drawings, "_draw", lambda self, row, heat: drawn.append(row) or draw(self, row, heat))
    with pytest.raises(ValueError, match="with 6 queries would be above"):
        export_gallery(tmp_path / "gallery.html", *sides, codes_of(*sides), most_bytes=5_000)
    assert 0 < len(drawn) <= 8
