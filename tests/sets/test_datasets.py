"""The real sets: their layout on synthetic stand-ins, and facts of the real files where these are at hand."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ynet_lite import paths, sets
from ynet_lite.cases.core import Cases
from ynet_lite.cases.duplicates import near_pairs
from ynet_lite.cases.formats import read_image, sha256
from ynet_lite.cases.loading import resize_cases
from ynet_lite.cases.manifest import ManifestError, check_manifest
from ynet_lite.cases.splits import validation_rows
from ynet_lite.config import Config
from ynet_lite.sets import busbra, busi, folders, load_cases

REAL = os.environ.get("YNET_DATA_DIR")


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch, request):
    monkeypatch.setattr(paths, "raw", lambda: tmp_path / "raw")
    if "real" not in request.fixturenames:
        monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("YNET_DATA_DIR", raising=False)


@pytest.fixture
def real(tmp_path_factory, monkeypatch):
    """Finder of the real sets; one cache folder for this test run."""

    def folder(name):
        if not REAL:
            pytest.skip("YNET_DATA_DIR is not set: no real images to look at")
        try:
            return folders.find(sets.named(name), REAL)
        except FileNotFoundError:
            pytest.skip(f"{name} is not in YNET_DATA_DIR")

    cache = tmp_path_factory.getbasetemp() / "real-cache"
    monkeypatch.setenv("YNET_CACHE", str(cache))
    return folder


def picture(path, seed, size=(40, 30)):
    """A smooth random picture: like a scan, it survives a slight change of size."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    coarse.resize(size, Image.Resampling.BICUBIC).convert("RGB").save(path)


def spot(path, size=(40, 30), where=10):
    array = np.zeros(size[::-1], np.uint8)
    array[where : where + 5, 5:20] = 255
    Image.fromarray(array).save(path)


@pytest.fixture
def busbra_like(tmp_path):
    folder = tmp_path / "data" / "busbra"
    (folder / "Images").mkdir(parents=True)
    (folder / "Masks").mkdir()
    ids = ["bus_0001-l", "bus_0001-r", "bus_0002-s", "bus_0003-l"]
    cases, classes, grades = ["1", "1", "2", "3"], ["malignant", "malignant", "benign", "benign"], ["5", "4", "2", "3"]
    pd.DataFrame(
        {
            "ID": ids,
            "Case": cases,
            "Histology": "fibrosis",
            "Pathology": classes,
            "BIRADS": grades,
            "Device": "X",
            "Width": 40,
            "Height": 30,
            "Side": ["left", "right", "single", "left"],
            "BBOX": "[6,11,15,5]",
        }
    ).to_csv(folder / "bus_data.csv", index=False)
    folds = pd.DataFrame({"ID": ids[::-1], "Pathology": classes[::-1], "kFold": [2, 1, 2, 2]})
    folds["valid_1"] = ["1", "NaN", "0", "1"]
    folds.to_csv(folder / "5-fold-cv.csv", index=False)
    for i, case in enumerate(ids):
        picture(folder / "Images" / f"{case}.png", i)
        spot(folder / "Masks" / f"mask_{case[4:]}.png")
    return folder


@pytest.fixture
def own_checksums(tmp_path, monkeypatch):
    """A splits folder of the test: writes the list of a stand-in."""
    splits = tmp_path / "splits"
    splits.mkdir()
    monkeypatch.setattr(paths, "splits", lambda: splits)

    def keep(name, folder):
        lines = [f"{sha256(p)}  ./{p.relative_to(folder).as_posix()}" for p in folder.rglob("*") if p.is_file()]
        (splits / f"{name}.sha256").write_text("\n".join(sorted(lines)) + "\n")

    return keep


def test_busbra_manifest(busbra_like):
    table = busbra.busbra(busbra_like.parent)
    assert table["case_id"].tolist() == ["bus_0001-l", "bus_0001-r", "bus_0002-s", "bus_0003-l"]
    assert table["label"].tolist() == ["malignant", "malignant", "benign", "benign"]
    assert table["group"].tolist() == ["1", "1", "2", "3"]
    assert table["fold"].tolist() == [2, 2, 1, 2]  # joined by ID, not by position
    assert table["birads"].tolist() == ["5", "4", "2", "3"]
    assert table["mask"].iloc[2] == str(busbra_like / "Masks" / "mask_0002-s.png")
    check_manifest(table, "busbra")
    seen = " ".join(table.astype(str).to_numpy().ravel())
    assert "[6,11,15,5]" not in seen and not any("bbox" in c.lower() or "valid" in c for c in table.columns)
    birads = busbra.busbra(busbra_like, label="birads")
    assert birads["label"].tolist() == ["BI-RADS 5", "BI-RADS 4", "BI-RADS 2", "BI-RADS 3"]
    assert birads["pathology"].tolist() == table["label"].tolist()
    with pytest.raises(ValueError, match="'pathology' or 'birads'"):
        busbra.busbra(busbra_like, label="grade")


def test_busbra_tables_must_fit_each_other(busbra_like):
    folds = pd.read_csv(busbra_like / "5-fold-cv.csv")
    folds.iloc[:3].to_csv(busbra_like / "5-fold-cv.csv", index=False)
    with pytest.raises(ManifestError, match="bus_0001-l"):
        busbra.busbra(busbra_like)
    folds.drop(columns="kFold").to_csv(busbra_like / "5-fold-cv.csv", index=False)
    with pytest.raises(ManifestError, match="kFold"):
        busbra.busbra(busbra_like)


def test_load_cases_busbra(busbra_like, own_checksums):
    own_checksums("busbra", busbra_like)
    config = Config(dataset="busbra", data_dir=str(busbra_like.parent), size=32)
    cases = load_cases(config)
    assert isinstance(cases, Cases) and cases.images.shape == (4, 1, 32, 32) and cases.finer == ("birads",)
    assert cases.class_names == ("benign", "malignant") and cases.has_mask.all()
    assert not any("box" == c.lower() or "bbox" in c.lower() for c in cases.table.columns)
    database, queries = cases.split(1)
    assert queries.ids.tolist() == ["bus_0002-s"] and len(database) == 3
    graded = load_cases(config.but(dataset="busbra-birads", channels=3))
    assert graded.images.shape == (4, 3, 32, 32) and graded.finer == ("pathology",)
    assert graded.class_names == ("BI-RADS 2", "BI-RADS 3", "BI-RADS 4", "BI-RADS 5")


def test_load_cases_compares_with_the_checksums(busbra_like, own_checksums):
    own_checksums("busbra", busbra_like)
    config = Config(dataset="busbra", data_dir=str(busbra_like), size=32)
    spot(busbra_like / "Masks" / "mask_0002-s.png", where=12)
    with pytest.raises(ManifestError, match="mask_0002-s.png"):
        load_cases(config)
    with (busbra_like / "bus_data.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(ManifestError, match="bus_data.csv"):
        load_cases(config)


def test_verify_reports_missing_and_changed(busbra_like, own_checksums):
    own_checksums("busbra", busbra_like)
    report = folders.verify(sets.named("busbra"), busbra_like)
    assert report.ok and report.checked == 10 and "as published" in str(report)
    (busbra_like / "Images" / "bus_0003-l.png").unlink()
    spot(busbra_like / "Masks" / "mask_0001-l.png", where=3)
    (busbra_like / "more.txt").write_text("not listed")
    report = folders.verify(sets.named("busbra"), busbra_like)
    assert report.offenders == ("missing: Images/bus_0003-l.png", "changed: Masks/mask_0001-l.png") and not report.ok
    assert "2 of 10 files are not as published: missing: Images/bus_0003-l.png, changed: Masks" in str(report)
    assert folders.verify(sets.named("busbra"), busbra_like, only="*.csv").ok
    with pytest.raises(ManifestError, match="Images/bus_0003-l.png|bus_0003-l.png"):
        check_manifest(busbra.busbra(busbra_like), "busbra")


def test_find_looks_in_the_named_places(busbra_like, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        folders.find(sets.named("busbra"))
    assert "ynet_lite.sets.download busbra" in str(caught.value) and "10.5281/zenodo.7730709" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="10.1016/j.dib.2019.104863"):
        folders.find(sets.named("busi"), tmp_path)
    monkeypatch.setenv("YNET_DATA_DIR", str(busbra_like.parent))
    assert folders.find(sets.named("busbra")) == busbra_like
    assert folders.find(sets.named("busbra"), busbra_like) == busbra_like
    with pytest.raises(FileNotFoundError):  # a named folder is not replaced by another one
        folders.find(sets.named("busbra"), tmp_path / "nowhere")
    monkeypatch.delenv("YNET_DATA_DIR")
    (tmp_path / "raw").mkdir()
    busbra_like.rename(tmp_path / "raw" / "BUSBRA")
    assert folders.find(sets.named("busbra")) == tmp_path / "raw" / "BUSBRA"
    with pytest.raises(ValueError, match="'origa' is not known"):
        folders.find(sets.named("origa"))


# ---- BUSI


@pytest.fixture
def busi_like(tmp_path):
    folder = tmp_path / "data" / "busi"
    for kind, label in enumerate(busi.BUSI_CLASSES):
        (folder / label).mkdir(parents=True)
        for i in range(1, 12):
            stem = folder / label / f"{label} ({i})"
            # 9 and 10 of each class show the same, in another size: near-duplicates
            picture(f"{stem}.png", 100 * kind + (9 if i == 10 else i), (44, 33) if i == 10 else (40, 30))
            if label == "normal":
                Image.fromarray(np.zeros((33, 44) if i == 10 else (30, 40), np.uint8)).save(f"{stem}_mask.png")
            else:
                spot(f"{stem}_mask.png", (44, 33) if i == 10 else (40, 30))
    spot(folder / "benign" / "benign (2)_mask_1.png", where=20)
    (folder / "normal" / "normal (1)_mask.png").unlink()
    return folder


def none_listed() -> pd.DataFrame:
    return pd.DataFrame({"case_id": [], "group": [], "fold": []})


def test_busi_manifest(busi_like):
    table = busi.busi(busi_like, none_listed())
    assert len(table) == 33 and table["label"].value_counts().tolist() == [11] * 3
    assert table["case_id"].tolist()[:3] == ["benign (1)", "benign (2)", "benign (3)"]
    row = table.set_index("case_id")
    two = row.loc["benign (2)", "mask"].split(";")
    assert [os.path.basename(p) for p in two] == ["benign (2)_mask.png", "benign (2)_mask_1.png"]
    assert os.path.basename(row.loc["benign (1)", "mask"]) == "benign (1)_mask.png"  # not that of (10) or (11)
    assert row.loc["normal (1)", "mask"] == "empty"
    groups = table.groupby("group")["case_id"].apply(list)
    assert sorted(groups[groups.map(len) > 1]) == [[f"{c} (9)", f"{c} (10)"] for c in busi.BUSI_CLASSES]
    check_manifest(table, "busi")
    counts = pd.crosstab(table["fold"], table["label"]).to_numpy()
    assert counts.shape == (5, 3) and counts.min() >= 2 and counts.max() <= 3
    pd.testing.assert_frame_equal(table, busi.busi(busi_like, none_listed()))


def test_busi_split_prefers_the_list_and_never_divides_a_cluster(busi_like):
    alone = busi.busi(busi_like, none_listed())
    listed = alone[["case_id", "group", "fold"]]
    listed = listed[~listed["case_id"].isin(["benign (10)", "benign (3)", "normal (5)"])].copy()
    listed.loc[listed["case_id"] == "benign (9)", "fold"] = 4
    table = busi.busi(busi_like, listed).set_index("case_id")
    assert table.loc["benign (10)", "fold"] == table.loc["benign (9)", "fold"] == 4
    assert table.loc["benign (10)", "group"] == "benign (9)"
    for case, row in listed.set_index("case_id").iterrows():
        assert (table.loc[case, "group"], table.loc[case, "fold"]) == (row["group"], row["fold"])
    check_manifest(table.reset_index(), "busi")


def test_a_new_image_that_joins_two_listed_clusters_moves_both(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 1)):
        picture(tmp_path / f"{name}.png", seed)
    table = pd.DataFrame({"case_id": list("abc"), "image": [str(tmp_path / f"{n}.png") for n in "abc"], "label": ["x"] * 3})
    listed = pd.DataFrame({"case_id": ["a", "b"], "group": ["a", "b"], "fold": [3, 5]})
    placed = busi.busi_split(table, listed)
    assert placed["fold"].tolist() == [3] * 3 and placed["group"].tolist() == ["a"] * 3


def test_near_duplicates_against_a_loop(busi_like):
    images = [busi_like / "benign" / f"benign ({i}).png" for i in range(1, 12)]
    pairs = near_pairs(read_image(path, 1)[0] for path in images).tolist()
    small = [np.asarray(Image.open(p).convert("L").resize((32, 32), Image.Resampling.BOX), float).ravel() for p in images]
    for i in range(11):
        for j in range(11):
            assert ([i, j] in pairs) == (i < j and np.corrcoef(small[i], small[j])[0, 1] >= 0.92)
    assert [8, 9] in pairs


def test_load_cases_busi(busi_like, own_checksums):
    own_checksums("busi", busi_like)
    cases = load_cases(Config(dataset="busi", data_dir=str(busi_like.parent), size=40))
    assert cases.class_names == ("benign", "malignant", "normal") and cases.has_mask.all()
    two = cases.masks[list(cases.ids).index("benign (2)")]
    assert two.sum() == 2 * 5 * 15
    assert not cases.masks[cases.labels == 2].any() and cases.masks[cases.labels < 2].any(axis=(1, 2)).all()


# ---- the other sets of load_cases


def test_load_cases_csv(busbra_like, monkeypatch):
    table = busbra.busbra(busbra_like)
    table["image"] = ["Images/" + os.path.basename(p) for p in table["image"]]
    table["mask"] = ["", "empty", "Masks/mask_0002-s.png", "Masks/mask_0003-l.png"]
    table["finer"] = table["birads"]
    path = busbra_like / "mine.csv"
    table.to_csv(path, index=False)
    cases = load_cases(Config(dataset="csv", manifest=str(path), size=16))
    assert cases.has_mask.tolist() == [False, True, True, True] and cases.finer == ("finer",)
    assert cases.table["image"].iloc[0] == "Images/bus_0001-l.png"  # nobody's private folders
    monkeypatch.setenv("YNET_MANIFEST", str(path))
    assert load_cases(Config(dataset="csv", size=16)).fingerprint == cases.fingerprint
    table.assign(mask_names="background;disc;cup").to_csv(path, index=False)
    with pytest.raises(ManifestError, match="outside the 3 declared classes: 255"):
        load_cases(Config(dataset="csv", size=16))
    table.assign(mask_names=["a;b", "a;c", "a;b", "a;b"]).to_csv(path, index=False)
    with pytest.raises(ManifestError, match="mask_names"):
        load_cases(Config(dataset="csv", size=16))
    monkeypatch.delenv("YNET_MANIFEST")
    with pytest.raises(FileNotFoundError, match="YNET_MANIFEST"):
        load_cases(Config(dataset="csv"))
    with pytest.raises(ValueError, match="'origa' is not known"):
        load_cases(Config(dataset="origa"))


def test_load_cases_phantom():
    small = load_cases(Config(dataset="phantom", phantom_cases=40, size=48, channels=3))
    assert small.images.shape == (40, 3, 48, 48) and small.masks.shape == (40, 48, 48)
    own = load_cases(Config(dataset="phantom", phantom_cases=40, size=96))
    assert own.images.shape == (40, 1, 96, 96) and own.fingerprint == small.fingerprint
    assert np.abs(small.images.mean() - own.images.mean()) < 1
    assert np.abs(small.masks.mean() / own.masks.mean() - 1) < 0.1
    other = load_cases(Config(dataset="phantom", phantom_cases=40, size=96, seed=1))
    assert other.fingerprint != own.fingerprint


def test_resize_cases_changes_channels_only_when_asked():
    own = load_cases(Config(dataset="phantom", phantom_cases=40, size=96))
    assert resize_cases(own, 96, 1) is own
    back = resize_cases(resize_cases(own, 96, 3), 96, 1)
    assert (back.images == own.images).all()


# ---- facts of the real files


@pytest.mark.data
def test_busbra_is_as_described(real):
    table = check_manifest(busbra.busbra(real("busbra")), "busbra")
    assert len(table) == 1875 and table["group"].nunique() == 1064
    assert table["label"].value_counts().to_dict() == {"benign": 1268, "malignant": 607}
    assert table["birads"].value_counts().to_dict() == {"4": 693, "2": 562, "3": 463, "5": 157}
    assert table["fold"].value_counts().sort_index().tolist() == [376, 385, 366, 365, 383]
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    birads = busbra.busbra(real("busbra"), "birads")
    assert sorted(birads["label"].unique()) == [f"BI-RADS {i}" for i in (2, 3, 4, 5)]


@pytest.mark.data
def test_the_published_validation_columns_divide_patients_and_ours_do_not(real):
    folder = real("busbra")
    table = busbra.busbra(folder)
    published = pd.read_csv(folder / "5-fold-cv.csv", dtype=str, keep_default_na=False).set_index("ID")["valid_1"]
    train = table[table["fold"] != 1]
    sides = published.loc[train["case_id"]].to_numpy()
    assert (train.assign(side=sides).groupby("group")["side"].nunique() > 1).sum() == 210
    chosen = validation_rows(train["group"], train["label"], 0.1, seed=0)
    inside, outside = train[chosen], train[~chosen]
    assert not set(inside["group"]) & set(outside["group"])
    assert abs((inside["label"] == "malignant").mean() - (outside["label"] == "malignant").mean()) < 0.05
    assert abs(chosen.mean() - 0.1) < 0.02


@pytest.mark.data
def test_busbra_loads_and_is_complete(real):
    folder = real("busbra")
    assert folders.verify(sets.named("busbra"), folder).ok
    cases = load_cases(Config(dataset="busbra", data_dir=str(folder), size=32))
    database, queries = cases.split(1)
    assert (len(database), len(queries)) == (1499, 376)
    assert cases.has_mask.all() and cases.masks.any(axis=(1, 2)).mean() > 0.99
    height, width = cases.table["height"], cases.table["width"]
    sides = np.sort(np.stack([height, width]), axis=0)
    assert sides.min() >= 240 and sides.max() <= 579
    ratio = cases.table["box_height"] / cases.table["box_width"]
    assert (np.abs(ratio * width / height - 1) < 0.05).all()


@pytest.mark.data
def test_busi_is_as_described(real):
    folder = real("busi")
    table = check_manifest(busi.busi(folder), "busi")
    listed = pd.read_csv(paths.splits() / "busi.csv", dtype=str)
    if len(table) == len(listed) == 149:  # the part that the list was made from: it can be made again
        again = busi.busi(folder, none_listed())
        pd.testing.assert_frame_equal(again, busi.busi(folder))
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    cases = load_cases(Config(dataset="busi", data_dir=str(folder), size=64))
    assert not cases.masks[cases.labels == 2].any()
    assert cases.masks[cases.labels < 2].any(axis=(1, 2)).all()


@pytest.mark.data
def test_the_validation_cases_of_busbra_are_those_of_the_rule(real):
    table = busbra.busbra(real("busbra"))
    training = table[table["fold"] != 1]
    listed = pd.read_csv(paths.splits() / "busbra_validation.csv", dtype={"case_id": str}).set_index("case_id")
    for column, seed in (("design", 0), ("trials", 100)):
        drawn = training["case_id"][validation_rows(training["group"], training["label"], 0.2, seed)]
        assert set(listed.index[listed[column] == 1]) == set(drawn)


def test_the_kept_lists_are_sound():
    busbra = folders.checksums(sets.BUSBRA)
    assert len(busbra) == 1875 * 2 + 4 and all(len(digest) == 64 for digest in busbra.values())
    listed = pd.read_csv(paths.splits() / "busi.csv", dtype=str)
    images = {path for path in folders.checksums(sets.BUSI) if "_mask" not in path}
    assert len(listed) == len(images) == 149 and listed["case_id"].is_unique
    assert {f"{case.split()[0]}/{case}.png" for case in listed["case_id"]} == images
    assert set(listed["fold"]) == set("12345") and (listed.groupby("group")["fold"].nunique() == 1).all()
    kinds = listed["case_id"].str.split().str[0]
    assert pd.crosstab(listed["fold"], kinds).to_numpy().min() >= 9
