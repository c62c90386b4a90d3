"""An index of one's own archive, and the command that makes it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from ynet_lite import explore
from ynet_lite import index as module
from ynet_lite.cases.from_folder import manifest_from_folder
from ynet_lite.cases.manifest import ManifestError
from ynet_lite.cli import main
from ynet_lite.index import Index, cases_of, encode_files
from ynet_lite.own import read_own, settings_for
from ynet_lite.search import encode_image, load_shipped
from ynet_lite.sets.phantom import make_phantom
from ynet_lite.viewer.explore import Explorer, View, read_upload
from ynet_lite.viewer.pages import Retrieval

MODEL, PATIENT = "phantom-quick", "^([^-]+)-"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder for each class with 60 images and their masks, and a new image beside it."""
    base = tmp_path_factory.mktemp("archive")
    phantom = make_phantom(60, seed=9, confounding=0)
    for image, mask, name, label in zip(phantom.images, phantom.masks, phantom.ids, phantom.table["label"], strict=True):
        folder = base / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{name}.png")
        Image.fromarray(255 * mask).save(folder / f"{name}_mask.png")
    Image.fromarray(make_phantom(40, seed=10, confounding=0).images[0, 0]).save(base / "new.png")
    return base


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "my.index"
    index, added = Index.build(path, archive / "images", MODEL, patient=PATIENT, progress=False)
    assert (added.added, added.known, len(added.failed)) == (60, 0, 0)
    index.close()
    return path


@pytest.fixture
def mine(built, tmp_path):
    return Index(shutil.copy(built, tmp_path / "my.index"))


def ynet(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# --- folders


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/x.png", "a/x_mask.png", "a/x_mask_1.png", "b/y.jpg"], {"a/x": ("a", 2), "b/y": ("b", 0)}),
        (["images/a/x.png", "masks/a/x.png", "images/b/x.png"], {"images/a/x": ("a", 1), "images/b/x": ("b", 0)}),
        (["a/images/x.png", "a/masks/x_mask.tif"], {"a/images/x": ("a", 1)}),
        (["x.png", "Masks/x.png"], {"x": ("", 1)}),
        (["a/x.png", "a/x.jpg"], {"a/x.png": ("a", 0), "a/x.jpg": ("a", 0)}),
        (["benign/benign (1).png", "benign/benign (1)_mask.png"], {"benign/benign (1)": ("benign", 1)}),
    ],
)
def test_layouts_that_people_have(files, expected, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table, left_out = manifest_from_folder(tmp_path)
    found = {row.case_id: (row.label, len([m for m in row.mask.split(";") if m])) for row in table.itertuples()}
    assert found == expected and left_out.empty


def test_what_is_left_out_of_a_folder_is_listed(tmp_path):
    for name in (
        "P1-a.png",
        "P1-a_mask.png",
        "lost_mask.png",
        "notes.txt",
        ".hidden.png",
        "a;b.png",
        "nobody.png",
        "nobody_mask.png",
        "masks/alone.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table, left_out = manifest_from_folder(tmp_path, r"^(P\d+)")
    assert table.to_dict("records") == [
        {"case_id": "P1-a", "image": "P1-a.png", "mask": "P1-a_mask.png", "label": "", "group": "P1"}
    ]
    reasons = dict(left_out.itertuples(index=False))
    nobody = {"nobody.png", "nobody_mask.png"}
    assert reasons.keys() == {"lost_mask.png", "notes.txt", ".hidden.png", "a;b.png", "masks/alone.png"} | nobody
    assert "no image 'lost'" in reasons["lost_mask.png"] and all("no patient" in reasons[name] for name in nobody)
    optional, left_out = manifest_from_folder(tmp_path, r"^(P\d+)?")
    assert optional.equals(table) and nobody <= set(left_out["file"])
    with pytest.raises(ValueError, match="no group in brackets"):
        manifest_from_folder(tmp_path, "P")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no case among 0 files"):
        manifest_from_folder(tmp_path / "empty")


def test_cases_of_a_csv_need_only_images(tmp_path):
    (tmp_path / "cases.csv").write_text("image,label\nx/one.png,a\ntwo.png,\n")
    table, _ = cases_of(tmp_path / "cases.csv")
    assert list(table["case_id"]) == ["one", "two"] and list(table["label"]) == ["a", ""] and set(table["group"]) == {""}
    for text, problem in (
        ("image\na.png\nb/a.png\n", "more than once: a"),
        ("file\na.png\n", "no column image"),
        ("image,x\n,1\n", "row 2"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ManifestError, match=problem):
            cases_of(tmp_path / "bad.csv")
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        cases_of(tmp_path / "nothing")


# --- answers


def test_a_folder_of_images_asks_at_once(mine, archive, tmp_path):
    (tmp_path / "week").mkdir()
    shutil.copy(archive / "new.png", tmp_path / "week" / "a.png")
    (tmp_path / "week" / "b.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 of 2 images cannot be read: .*b.png"):
        found = mine.search(tmp_path / "week", 3)
    pd.testing.assert_frame_equal(found.drop(columns="query"), mine.search(archive / "new.png", 3).drop(columns="query"))
    assert set(found["query"]) == {"a"}
    with pytest.raises(ValueError, match="b.png"):
        mine.search(tmp_path / "week" / "b.png")
    with pytest.raises(ValueError, match="k = 0"):
        mine.search(archive / "new.png", 0)


def test_answers_are_those_of_all_distances(mine, archive):
    found = mine.search(archive / "new.png", 60)
    code = next(encode_files([archive / "new.png"], MODEL))[0]
    table, codes, *_ = mine._load()
    bits = np.unpackbits(code ^ codes.packed, axis=1).sum(1)
    order = sorted(range(60), key=lambda i: (bits[i], codes.ids[i]))
    assert list(found["id"]) == [codes.ids[i] for i in order] and list(found["bits"]) == [bits[i] for i in order]
    assert list(found["rank"]) == list(range(1, 61)) and list(found["label"]) == [name.split("/")[0] for name in found["id"]]
    assert found["percentile"].is_monotonic_increasing and found["percentile"].between(0, 100).all()


def test_an_index_answers_as_search_does(archive, built):
    """The code of an image does not depend on who asks."""
    file = archive / "new.png"
    alone = encode_image(load_shipped(MODEL)[0], file)
    together = next(encode_files([file, *cases_of(archive / "images")[0]["image"][:6]], MODEL))[0]
    assert (together[0] == alone[0]).all() and not (together[1:] == alone[0]).all()
    with Index(built) as index:
        code = index._load()[1].packed[0]
        direct = np.unpackbits(alone[0] ^ code).sum()
        found = index.search(file, 60).set_index("id")["bits"]
        assert found[index._load()[1].ids[0]] == direct


def test_a_picture_is_not_its_own_answer(mine, archive):
    file = next((archive / "images").glob("*/*-1.png"))
    name = file.relative_to(archive / "images").with_suffix("").as_posix()
    assert name not in set(mine.search(file, 60)["id"]) and len(mine.search(file, 60)) == 59
    first = mine.search(file, 1, include_itself=True).iloc[0]
    assert first["id"] == name and first["bits"] == 0


def test_a_patient_can_be_left_out_and_a_class_asked_for(mine, archive, tmp_path):
    table = cases_of(archive / "images", PATIENT)[0]
    patient = table["group"].value_counts().index[0]
    theirs = table[table["group"] == patient]
    assert len(theirs) > 1
    found = mine.search(theirs["image"].iloc[0], 60, exclude_same_patient=True)
    assert not set(found["id"]) & set(theirs["case_id"]) and len(found) == 60 - len(theirs)
    assert len(mine.search(archive / "new.png", 60, patient=patient, exclude_same_patient=True)) == 60 - len(theirs)
    with pytest.raises(ValueError, match="say who its patient is"):
        mine.search(archive / "new.png", exclude_same_patient=True)
    # where a folder or a table does not say who the patients are, those that the index knows count
    few = tmp_path / "few"
    few.mkdir()
    pd.DataFrame({"image": [shutil.copy(theirs["image"].iloc[0], few)]}).to_csv(tmp_path / "few.csv", index=False)
    for source in (few, tmp_path / "few.csv"):
        assert not set(mine.search(source, 60, exclude_same_patient=True)["id"]) & set(theirs["case_id"])
    shutil.copy(archive / "new.png", few)
    with pytest.raises(ValueError, match="new.png is not in the index; say who its patient is"):
        mine.search(few, exclude_same_patient=True)
    only = mine.search(archive / "new.png", 60, label="disease A")
    assert set(only["label"]) == {"disease A"} and len(only) == (table["label"] == "disease A").sum()
    everything = mine.search(archive / "new.png", 60)
    assert list(only["id"]) == list(everything["id"][everything["label"] == "disease A"])
    with pytest.raises(ValueError, match="no case of class 'cyst'; the classes are 'disease A'"):
        mine.search(archive / "new.png", label="cyst")


def test_percentile_counts_cases_whose_nearest_case_is_closer(mine, archive):
    table, codes, *_ = mine._load()
    nearest = []
    for i in range(60):
        bits = np.unpackbits(codes.packed[i] ^ codes.packed, axis=1).sum(1)
        nearest.append(min(bits[j] for j in range(60) if table["patient"][j] != table["patient"][i]))
    found = mine.search(archive / "new.png", 20)
    for row in found.itertuples():
        assert row.percentile == pytest.approx(100 * sum(value < row.bits for value in nearest) / 60)


# --- pages


def test_the_notebook_page_opens_an_index(mine, archive):
    """Each case asks for the others; an uploaded image is answered, with the outline that the network predicts."""
    box = explore(mine.path, k=5)
    explorer = box.children[2]
    assert "Query" in explorer.value and explorer.value.count('class="card ') == 6
    cases, codes, checkpoint = mine.cases(), mine.codes(), mine.checkpoint()
    page = Explorer(cases, cases, (codes, codes))
    page.retrieval.checkpoint = checkpoint
    first = page.answers(View(query=3, k=59))[1]
    assert page.queries.ids[3] not in set(first["case_id"]) and len(first) == 59
    upload = read_upload((archive / "new.png").read_bytes(), "new.png", 64, 1)
    html = page.html(View(upload=upload, k=3))
    assert "the network's prediction" in html and html.count("lesion outlined") == 1
    assert page.retrieval.percentile(40) == 100 and "Unusual" not in html


def test_an_unusual_image_is_said_to_be_so(mine, monkeypatch):
    monkeypatch.setattr(Retrieval, "percentile", lambda self, distance: 97.0)
    box = explore(mine.path, k=5)
    assert "farther away than for 97 of 100 cases" in box.children[2].value
    lengths = [child for child in box.children[0].children if child.description == "First bits of the code"]
    lengths[0].value = 8  # fewer bits are nearer: nothing is known of them
    assert "of 8 bits" in box.children[2].value and "farther away" not in box.children[2].value


def test_answers_as_a_gallery(mine, archive, tmp_path):
    code, text = ynet("search", mine.path, archive / "images" / "disease A", "-k", 4, "--gallery", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    asked = len(cases_of(archive / "images" / "disease A")[0])
    assert code == 0 and "holds pictures" in text and page.count('class="case"') == asked
    code, _ = ynet("search", mine.path, archive / "new.png", "--gallery", tmp_path / "b.html", "--class", "disease B")
    page = (tmp_path / "b.html").read_text()
    assert code == 0 and "class unknown" in page and "disease A" not in page.split("<main")[1]


# --- growing and shrinking


def test_adding_encodes_only_what_is_new(mine, archive, tmp_path, monkeypatch):
    asked = []
    real = module.encode_files
    monkeypatch.setattr(module, "encode_files", lambda files, *a, **k: asked.append(len(files)) or real(files, *a, **k))
    folder = tmp_path / "week"
    shutil.copytree(archive / "images", folder)
    shutil.copy(archive / "new.png", folder / "disease A" / "p999-1.png")
    (folder / "disease A" / "p998-1.png").write_bytes(b"no picture")
    added = mine.add(folder, patient=PATIENT, progress=False)
    assert asked == [2] and (added.added, added.known) == (1, 60) and len(mine) == 61
    assert list(added.failed["id"]) == ["disease A/p998-1"] and "cannot be read" in added.failed["reason"].iloc[0]
    assert mine.search(archive / "new.png", 1, include_itself=True)["id"].iloc[0] == "disease A/p999-1"  # seen without reopening
    shutil.copy(next(folder.glob("disease B/*-1.png")), folder / "disease A" / "p999-1.png")
    assert "belongs to another picture" in mine.add(folder, patient=PATIENT, progress=False).failed["reason"].iloc[0]


def test_what_is_removed_is_gone_from_the_file(mine):
    name = mine._load()[0]["id"][7]
    assert name.encode() in mine.path.read_bytes()
    with pytest.raises(KeyError, match="no case nobody; nothing was removed"):
        mine.remove([name, "nobody"])
    assert len(mine) == 60
    mine.remove([name])
    assert len(mine) == 59 and name.encode() not in mine.path.read_bytes()
    assert name not in set(mine._load()[0]["id"])


@pytest.mark.parametrize("keep", [False, True])
def test_patients_are_hashed_unless_kept(keep, archive, tmp_path):
    index, _ = Index.build(
        tmp_path / "x.index", archive / "images" / "disease A", MODEL, patient="-(1)", keep_patients=keep, progress=False
    )
    (patient,) = set(index._load()[0]["patient"])
    assert (patient == "1") == keep and len(patient) == (1 if keep else 32)


def test_an_index_moves_with_its_pictures(archive, tmp_path):
    shutil.copytree(archive / "images", tmp_path / "a" / "images")
    Index.build(tmp_path / "a" / "my.index", tmp_path / "a" / "images", MODEL, thumbnails=True, progress=False)[0].close()
    (tmp_path / "a").rename(tmp_path / "b")
    with Index(tmp_path / "b" / "my.index") as index:
        first = index.search(archive / "new.png", 1).iloc[0]
        assert (tmp_path / "b" / first["image"]).is_file() and index.info()["thumbnails"]
        small = index._base.execute("SELECT thumbnail FROM cases LIMIT 1").fetchone()[0]
        assert small.startswith(b"\x89PNG")
        shutil.rmtree(tmp_path / "b" / "images")
        assert index.search(archive / "new.png", 1).iloc[0]["id"] == first["id"]
        shown = index.cases([first["id"]])
        assert list(shown.ids) == [first["id"]] and np.ptp(shown.images) > 50  # the small picture stands in
        index._base.execute("UPDATE cases SET thumbnail = NULL")
        with pytest.raises(ValueError, match="60 of 60 pictures cannot be shown"):
            index.cases()


# --- faults


_ADD = """
import sys
from ynet_lite import index
index.CHUNK = 5
real = index.encode_files
index.encode_files = lambda files, model, jobs: real(files, model, jobs=jobs, chunk=5)
index.Index.build(sys.argv[1], sys.argv[2], "phantom-quick", progress=False)
"""


def _count(path) -> int:
    if not path.is_file():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as base:
        return base.execute("SELECT count(*) FROM cases").fetchone()[0]


def test_a_killed_build_goes_on_where_it_stopped(archive, built, tmp_path):
    path = tmp_path / "my.index"
    process = subprocess.Popen([sys.executable, "-c", _ADD, str(path), str(archive / "images")])
    while process.poll() is None and _count(path) < 10:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _count(path)
    assert before >= 10 and before % 5 == 0, "a chunk is written whole or not at all"
    index, added = Index.build(path, archive / "images", MODEL, progress=False)
    assert added.known == before and added.added == 60 - before
    with Index(built) as whole:
        assert (index._load()[1].packed == whole._load()[1].packed).all()


def _add_in_process(path, folder):
    with Index(path) as index:
        index.add(folder, progress=False)


def test_two_writers_wait_for_each_other(archive, tmp_path):
    path = tmp_path / "my.index"
    (tmp_path / "none").mkdir()
    shutil.copy(archive / "new.png", tmp_path / "none" / "first.png")
    Index.build(path, tmp_path / "none", MODEL, progress=False)[0].close()
    server = multiprocessing.get_context("forkserver")  # imports once, for all writers
    server.set_forkserver_preload(["ynet_lite.index"])
    folders = [archive / "images" / "disease A", archive / "images" / "disease B", archive / "images" / "disease A"]
    writers = [server.Process(target=_add_in_process, args=(path, folder)) for folder in folders]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    expected = sum(len(cases_of(folder)[0]) for folder in folders[:2]) + 1
    with Index(path) as index:
        assert len(index) == expected  # the folder that two of them added stands there once


@pytest.mark.whole
def test_ten_thousand_cases_are_killed_and_resumed_and_answer(tmp_path):
    phantom = make_phantom(2500, seed=1)
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(np.concatenate([phantom.images, phantom.images[:, :, ::-1]] * 2)[:, 0]):
        image[0, :2] = divmod(i, 256)  # no two files are equal
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:05d}.png", compress_level=1)
    path = tmp_path / "my.index"
    command = [sys.executable, "-m", "ynet_lite", "index", str(tmp_path / "pictures"), "-o", str(path), "--model", MODEL]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and _count(path) < 2000:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 2000 <= _count(path) < 10_000
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("10000 in all\n")
    Image.fromarray(phantom.images[7, 0]).save(tmp_path / "new.png")
    assert ynet("add", path, tmp_path / "new.png")[0] == 0
    code, text = ynet("search", path, tmp_path / "new.png", "--json")
    assert code == 0 and json.loads(text)["answers"][0]["bits"] <= 2 and len(json.loads(text)["answers"]) == 10


def test_a_failing_write_changes_nothing(mine, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(Index, "_patient", lambda *_: None)  # the column must not be empty: the insertion fails in the middle
    with pytest.raises(sqlite3.IntegrityError):
        mine.add(archive / "new.png", progress=False)
    monkeypatch.undo()
    assert len(mine) == 60 and mine.add(archive / "new.png", progress=False).added == 1


def test_files_that_are_no_index(tmp_path, built, archive):
    with pytest.raises(FileNotFoundError, match="make one with"):
        Index(tmp_path / "no.index")
    (tmp_path / "text.index").write_text("something else, and long enough to be read")
    with pytest.raises(ValueError, match="not an index, or damaged"):
        Index(tmp_path / "text.index")
    other = shutil.copy(built, tmp_path / "other.index")
    with sqlite3.connect(other) as base:
        base.execute("UPDATE about SET value = '9' WHERE name = 'format'")
    with pytest.raises(ValueError, match="format 9"):
        Index(other)
    with pytest.raises(ValueError, match="made by another network"):
        Index(built, "busbra-full").search(archive / "new.png")


# --- training


def test_settings_follow_from_the_size_of_a_set():
    small, large = settings_for(36, 36, False), settings_for(5000, 3, True)
    assert small.method == "ynet" and small.validation == 0 and small.batch == 9 and small.epochs == 200
    assert large.method == "ynet-no-seg" and large.validation == 0.1 and large.batch == 32 and large.epochs == 6
    assert large.encoder == "lite0" and small.encoder == "small"
    with pytest.raises(ValueError, match="19 cases are too few"):
        settings_for(19, 0, False)


def test_a_table_to_train_on_needs_image_label_and_patient(archive, tmp_path):
    files = sorted((archive / "images").rglob("*.png"))[:20]
    table = pd.DataFrame({"image": files, "label": ["a", "b"] * 10, "group": range(20)})
    table.to_csv(tmp_path / "cases.csv", index=False)
    cases = read_own(tmp_path / "cases.csv", 64)
    assert (
        set(cases.ids) == {file.stem for file in files}
        and not cases.has_mask.any()
        and set(cases.table["fold"]) == set(range(1, 6))
    )
    table.drop(columns="group").to_csv(tmp_path / "cases.csv", index=False)
    with pytest.raises(ManifestError, match="group"):
        read_own(tmp_path / "cases.csv", 64)


# --- the command


def test_the_six_commands(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))
    mine = tmp_path / "my.index"
    monkeypatch.setattr(
        "ynet_lite.own.settings_for", lambda *a, **changes: settings_for(*a[:2], False, size=64, epochs=1, precision="float32")
    )
    code, text = ynet("train", archive / "images", "-o", tmp_path / "my.safetensors", "--patient", PATIENT)
    assert code == 0 and "60 of" in text and (tmp_path / "my.safetensors").is_file(), text
    code, text = ynet("index", archive / "images", "-o", mine, "--model", tmp_path / "my.safetensors", "--patient", PATIENT)
    assert code == 0 and "60 cases added, 0 known, 60 in all" in text
    code, text = ynet("add", mine, archive / "new.png")
    assert code == 0 and "1 cases added" in text
    code, text = ynet("search", mine, archive / "new.png", "-k", 3, "--json")
    answers = json.loads(text)["answers"]
    assert code == 0 and [a["rank"] for a in answers] == [1, 2, 3] and "new" not in [a["id"] for a in answers]
    code, text = ynet("search", mine, archive / "images" / "disease A", "-k", 2, "--csv")
    lines = text.splitlines()
    assert (
        code == 0
        and lines[0].startswith("query,rank,id,label")
        and len(lines) == 1 + 2 * len(cases_of(archive / "images" / "disease A")[0])
    )
    code, text = ynet("search", mine, archive / "new.png", "--class", "disease B")
    assert code == 0 and "disease A" not in text and "bits" in text
    code, text = ynet("info", mine, "--json")
    assert json.loads(text)["cases"] == 61
    assert ynet("remove", mine, "new")[0] == 0 and json.loads(ynet("info", mine, "--json")[1])["cases"] == 60


def test_mistakes_are_one_line_and_an_exit_code(built, archive, tmp_path):
    for expected, arguments in (
        (1, ("remove", built, "nobody")),
        (1, ("search", built, archive / "new.png", "--class", "cyst")),
        (1, ("info", archive / "new.png")),
        (2, ("search", built, tmp_path / "nothing.png")),
        (2, ("index", archive / "images")),
    ):
        code, text = ynet(*arguments)
        assert code == expected and "Traceback" not in text
        assert expected == 2 or (text.startswith("ynet: ") and text.count("\n") == 1), text
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    shutil.copy(archive / "new.png", tmp_path / "pictures" / "good.png")
    code, text = ynet("index", tmp_path / "pictures", "-o", tmp_path / "my.index", "--model", MODEL)
    assert code == 3 and "1 cases added" in text and "bad.png: cannot be read" in text


def test_every_command_explains_itself_with_an_example():
    assert set(main.commands) == {"index", "add", "remove", "info", "search", "train"}
    for name in main.commands:
        code, text = ynet(name, "--help")
        assert code == 0 and f"Example: ynet {name}" in text


@pytest.mark.slow
def test_workers_make_the_same_codes(archive):
    files = list(cases_of(archive / "images")[0]["image"])
    alone = np.concatenate([codes for codes, _ in encode_files(files, MODEL, chunk=16)])
    both = np.concatenate([codes for codes, _ in encode_files(files, MODEL, jobs=2, chunk=16)])
    single = np.concatenate([codes for codes, _ in encode_files(files, MODEL, chunk=1)])
    assert (alone == both).all() and (alone == single).all()
