"""Manifests of published sets, on small folders made after their published layout; no real file is needed or used."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from ynet_lite.cases.formats import read_image, read_img, read_mask
from ynet_lite.cases.loading import load_table
from ynet_lite.cases.manifest import ManifestError, check_manifest, read_manifest
from ynet_lite.config import Config
from ynet_lite.sets import load_cases, published
from ynet_lite.sets.published import PUBLISHED, ham10000, jsrt, origa, tnscui

RNG = np.random.default_rng(0)
FIXTURES = {"origa": "origa_like", "tnscui": "tnscui_like", "jsrt": "jsrt_like", "ham10000": "ham_like"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))


def picture(path, size=(24, 16), colour=True):
    """A random picture of ``size`` = (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)


def disc_and_cup(size=(24, 16)):
    labels = np.zeros(size[::-1], np.uint8)
    labels[4:12, 6:18] = 1
    labels[6:10, 9:15] = 2
    return labels


# ---- ORIGA


@pytest.fixture
def origa_like(tmp_path):
    folder = tmp_path / "ORIGA"
    names = [f"{i:03d}" for i in range(1, 22)]
    for name in names:
        picture(folder / "Images" / f"{name}.jpg")
        picture(folder / "Images_Cropped" / f"{name}.jpg", (8, 8))
        (folder / "Semi-automatic-annotations").mkdir(exist_ok=True)
        if name != "003":
            savemat(folder / "Semi-automatic-annotations" / f"{name}.mat", {"mask": disc_and_cup(), "scale": 2.0})
    pd.DataFrame(
        {
            "Eye": ["OD", "OS"] * 10 + ["OD"],
            "Filename": [f"{name}.jpg" for name in names],
            "ExpCDR": 0.7,
            "Set": ["A", "B"] * 10 + ["A"],
            "Glaucoma": [int(i % 4 == 0) for i in range(21)],
        }
    ).to_csv(folder / "OrigaList.csv", index=False)
    return folder


def test_origa(origa_like):
    table = check_manifest(origa(origa_like), "origa")
    assert len(table) == 21 and table["label"].value_counts().to_dict() == {"normal": 15, "glaucoma": 6}
    assert table["label"].tolist()[:5] == ["glaucoma", "normal", "normal", "normal", "glaucoma"]
    assert table["image"].iloc[0] == str(origa_like / "Images" / "001.jpg")
    assert table["mask"].iloc[1].endswith("002.mat") and table["mask"].iloc[2] == ""
    assert set(table["fold"]) == set(range(1, 11)) and set(table["mask_names"]) == {"background;disc;cup"}
    assert table["eye"].tolist()[:2] == ["OD", "OS"] and not any("cdr" in column.lower() for column in table.columns)


def test_origa_through_the_command_line_and_csv(origa_like, tmp_path, capsys):
    path = tmp_path / "origa.csv"
    assert published.main(["origa", str(origa_like), str(path)]) == 0
    said = capsys.readouterr().out
    assert "origa: 21 of 650 published cases, 21 groups, 20 with an outline; 6 glaucoma, 15 normal" in said
    cases = load_cases(Config(dataset="csv", manifest=str(path), size=24, channels=3))
    assert cases.mask_names == ("background", "disc", "cup") and cases.class_names == ("glaucoma", "normal")
    assert (cases.masks[0, 4:20] == disc_and_cup()).all() and cases.has_mask.sum() == 20 and not cases.has_mask[2]
    database, queries = cases.split(1)
    assert len(queries) >= 2 and len(database) + len(queries) == 21
    assert published.main(["origa", str(tmp_path / "cache"), str(path)]) == 1
    assert "on request" in capsys.readouterr().err


def test_origa_with_masks_as_pictures(origa_like):
    semi = origa_like / "Semi-automatic-annotations"
    for path in semi.iterdir():
        path.unlink()
    semi.rmdir()
    (origa_like / "Masks").mkdir()
    Image.fromarray(disc_and_cup()).save(origa_like / "Masks" / "001.png")
    table = origa(origa_like)
    assert table["mask"].tolist() == [str(origa_like / "Masks" / "001.png")] + [""] * 20


def test_origa_errors(origa_like):
    (origa_like / "Images" / "007.jpg").unlink()
    with pytest.raises(ManifestError, match="1 of 21 listed cases have no image: 007"):
        origa(origa_like)
    listed = pd.read_csv(origa_like / "OrigaList.csv")
    listed["Glaucoma"] = listed["Glaucoma"].astype(str).replace("0", "no")
    listed.to_csv(origa_like / "OrigaList.csv", index=False)
    with pytest.raises(ManifestError, match="Glaucoma must be one of 0, 1: row 3 'no'"):
        origa(origa_like)
    listed.drop(columns="Glaucoma").to_csv(origa_like / "OrigaList.csv", index=False)
    with pytest.raises(ManifestError, match="missing column.*Glaucoma"):
        origa(origa_like)


def test_read_mat(tmp_path):
    labels = disc_and_cup()
    savemat(tmp_path / "one.mat", {"maskFull": labels.astype(float), "cdr": 0.5, "name": "x"})
    assert (read_mask(tmp_path / "one.mat", 3) == labels).all()
    savemat(tmp_path / "two.mat", {"mask": labels, "other": labels + 1})
    assert (read_mask(tmp_path / "two.mat", 3) == labels).all()
    savemat(tmp_path / "logical.mat", {"m": labels > 0}, do_compression=True)
    assert (read_mask(tmp_path / "logical.mat") == (labels > 0)).all()
    savemat(tmp_path / "which.mat", {"a": labels, "b": labels})
    savemat(tmp_path / "none.mat", {"cdr": 0.5})
    (tmp_path / "text.mat").write_text("no matrix")
    for name, text in (("which", r"\['a', 'b'\]"), ("none", "none"), ("text", "version 7"), ("missing", "No such file")):
        with pytest.raises(ValueError, match=rf"{name}.mat.*{text}"):
            read_mask(tmp_path / f"{name}.mat", 3)
    with pytest.raises(ValueError, match="cannot be read"):  # a matrix of labels is no picture
        read_image(tmp_path / "one.mat", 1)


# ---- TN-SCUI


@pytest.fixture
def tnscui_like(tmp_path):
    folder = tmp_path / "TNSCUI2020_train"
    for i in range(2, 32):
        picture(folder / "image" / f"{i}.PNG")
        (folder / "mask").mkdir(exist_ok=True)
        Image.fromarray((disc_and_cup() > 0).astype(np.uint8) * 255).save(folder / "mask" / f"{i}.PNG")
    table = pd.DataFrame({"ID": [f"{i}.PNG" for i in range(2, 32)], "CATE": [i % 2 for i in range(2, 32)]})
    table.to_csv(folder / "train.csv", index=False)
    return folder


def test_tnscui(tnscui_like):
    table = check_manifest(tnscui(tnscui_like), "tnscui")
    assert table["case_id"].tolist()[:3] == ["2", "3", "4"]
    assert table["label"].tolist()[:3] == ["benign", "malignant", "benign"]
    assert table["mask"].iloc[0] == str(tnscui_like / "mask" / "2.PNG")
    assert table["group"].nunique() == 30 and table["fold"].value_counts().tolist() == [3] * 10
    cases = load_table(table, name="tnscui", size=24)
    assert (cases.masks[0, 4:20] == (disc_and_cup() > 0)).all() and cases.has_mask.all()


def test_tnscui_tells_when_the_numbers_mean_something_else(tnscui_like, monkeypatch):
    monkeypatch.setitem(published.IMAGES, "tnscui", 30)
    monkeypatch.setattr(published, "TNSCUI_MALIGNANT", 15)
    tnscui(tnscui_like)
    monkeypatch.setattr(published, "TNSCUI_MALIGNANT", 20)
    with pytest.raises(ManifestError, match="15 of 30 cases have CATE 1, published are 20"):
        tnscui(tnscui_like)


def test_tnscui_without_names_for_ids(tnscui_like):
    table = pd.read_csv(tnscui_like / "train.csv")
    table.assign(ID=table["ID"].str.removesuffix(".PNG")).to_csv(tnscui_like / "train.csv", index=False)
    assert tnscui(tnscui_like)["case_id"].tolist()[:2] == ["2", "3"]
    (tnscui_like / "mask").rename(tnscui_like / "masks")
    with pytest.raises(FileNotFoundError, match=r"lacks mask; .*grand-challenge"):
        tnscui(tnscui_like)


# ---- JSRT


def lung(path, side, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size // 2, slice(0, size // 4) if side == "right" else slice(size // 2, size)] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def jsrt_like(tmp_path):
    folder = tmp_path / "JSRT"
    lines = []
    for i in range(1, 21):
        name = f"JPCLN{i:03d}"
        kind = "malignant" if i % 3 else "benign"
        # the fields of the published list; the end of the line is missing after the third case
        end = "" if i == 3 else "\r\n"
        lines.append(f"{name}.IMG\t{i % 5 + 1}\t15\t53\tFemale\t1634\t692\t{kind}\tl.upper lobe\tmalignant melanoma?{end}")
        picture(folder / "xrays" / f"{name}.png", (128, 128), colour=False)
        for side in ("left", "right"):
            if (i, side) != (4, "left"):
                lung(folder / "scr" / f"fold{1 + i % 2}" / "masks" / f"{side} lung" / f"{name}.gif", side)
        picture(folder / "scr" / "fold1" / "masks" / "heart" / f"{name}.png", (8, 8), colour=False)
    picture(folder / "xrays" / "JPCNN001.png", (128, 128), colour=False)
    (folder / "CLNDAT_EN.txt").write_text("".join(lines), encoding="latin-1")
    return folder


def test_jsrt(jsrt_like):
    table = check_manifest(jsrt(jsrt_like), "jsrt")
    assert table["case_id"].tolist() == [f"JPCLN{i:03d}" for i in range(1, 21)]
    assert table["label"].tolist()[:4] == ["malignant", "malignant", "benign", "malignant"]
    assert all("xrays" in image for image in table["image"])
    assert table["mask"].iloc[3] == "" and table["mask"].iloc[0].count(";") == 1
    assert (table["group"] == table["case_id"]).all() and table["subtlety"].tolist()[:2] == ["2", "3"]
    seen = " ".join(table.astype(str).to_numpy().ravel())
    assert "1634" not in seen and "Female" not in seen and "53" not in table.to_csv(columns=["subtlety", "label"])
    # the order of a permutation seeded with 11, of which scikit-learn takes the first tenth (rounded up) for the test
    # (NumPy's old generator: the published protocol names it through its seed)
    test = np.random.RandomState(11).permutation(20)[:2]
    assert set(np.flatnonzero(table["split"] == "test")) == set(test.tolist())


def test_jsrt_masks_of_another_size_fit(jsrt_like):
    cases = load_table(jsrt(jsrt_like), name="jsrt", size=64, mask_names=("background", "lung"))
    expected = np.zeros((64, 64), np.uint8)
    expected[16:32, :16] = expected[16:32, 32:] = 1  # both lungs of a 64 x 64 mask for an image of 128 x 128
    assert (cases.masks[0] == expected).all() and cases.has_mask.sum() == 19


def test_jsrt_raw_radiographs(jsrt_like):
    stored = np.full((2048, 2048), 4095, ">u2")
    stored[:1024] = 0
    stored[0, 0], stored[0, 1], stored[0, 2] = 1000, 4095, 60000
    path = jsrt_like / "All247images" / "JPCLN001.IMG"
    path.parent.mkdir()
    stored.tofile(path)
    assert path.read_bytes()[:2] == bytes([1000 // 256, 1000 % 256])
    array = read_img(path.read_bytes())
    assert array.shape == (2048, 2048) and array[0, :4].tolist() == [3095, 0, 0, 4095] and array[-1, -1] == 0
    image = read_image(path, 1)[0]
    assert image[0, :4].tolist() == [193, 0, 0, 255]  # 255 x 3095 / 4095 = 192.7
    assert jsrt(jsrt_like)["image"].iloc[0] == str(path)  # the original before its conversion
    (jsrt_like / "x.IMG").write_bytes(b"short")
    for name in ("x.IMG", "missing.IMG"):
        with pytest.raises(ValueError, match=name):
            read_image(jsrt_like / name, 1)


def test_jsrt_errors(jsrt_like, tmp_path):
    listed = jsrt_like / "CLNDAT_EN.txt"
    text = listed.read_text(encoding="latin-1")
    listed.write_text(text + "JPCLN020.IMG\t1\t15\t53\tMale\t1\t2\tbenign\tx\ty\n", encoding="latin-1")
    with pytest.raises(ManifestError, match="JPCLN020 stands in the list twice"):
        jsrt(jsrt_like)
    listed.write_text(text + "JPCLN021.IMG\t1\t15\t53\tMale\t1\t2\tunclear\tx\ty\n", encoding="latin-1")
    with pytest.raises(ManifestError, match="JPCLN021: needs a field that says benign or malignant"):
        jsrt(jsrt_like)
    listed.write_text(text + "JPCLN021.IMG\t1\t15\t53\tMale\t1\t2\tbenign\tx\ty\n", encoding="latin-1")
    with pytest.raises(ManifestError, match="1 of 21 listed cases have no image: JPCLN021"):
        jsrt(jsrt_like)
    listed.unlink()
    with pytest.raises(FileNotFoundError, match=r"CLNDAT_EN.txt below .*db.jsrt.or.jp"):
        jsrt(jsrt_like)


# ---- HAM10000


@pytest.fixture
def ham_like(tmp_path):
    folder = tmp_path / "ham"
    rows = []
    for i in range(24):
        case = f"ISIC_{24306 + i:07d}"
        picture(folder / f"HAM10000_images_part_{1 + i % 2}" / f"{case}.jpg")
        if i != 5:
            (folder / "HAM10000_segmentations_lesion_tschandl").mkdir(exist_ok=True)
            mask = (disc_and_cup() > 0).astype(np.uint8) * 255
            Image.fromarray(mask).save(folder / "HAM10000_segmentations_lesion_tschandl" / f"{case}_segmentation.png")
        rows.append([f"HAM_{i // 2:07d}", case, ("nv", "mel", "bkl")[i // 2 % 3], "histo", 55.0, "male", "back"])
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "HAM10000_metadata", index=False)
    return folder


def test_ham10000(ham_like):
    table = check_manifest(ham10000(ham_like), "ham10000")
    assert len(table) == 24 and table["label"].tolist()[:5] == ["nv", "nv", "mel", "mel", "bkl"]
    assert table["group"].tolist()[:3] == ["HAM_0000000", "HAM_0000000", "HAM_0000001"]
    assert (table.groupby("group")["fold"].nunique() == 1).all() and set(table["fold"]) == {1, 2, 3, 4, 5}
    assert table["mask"].iloc[0].endswith("ISIC_0024306_segmentation.png") and table["mask"].iloc[5] == ""
    assert "age" not in table and "sex" not in table and table["localization"].iloc[0] == "back"
    cases = load_table(table, name="ham", size=24, channels=3)
    assert cases.class_names == ("bkl", "mel", "nv") and cases.masks[0].sum() == (disc_and_cup() > 0).sum()
    assert cases.has_mask.sum() == 23


def test_ham10000_with_a_suffix_and_without_a_list(ham_like):
    before = ham10000(ham_like)
    (ham_like / "HAM10000_metadata").rename(ham_like / "HAM10000_metadata.csv")
    pd.testing.assert_frame_equal(ham10000(ham_like), before)
    # as its DOI hands it out
    table = pd.read_csv(ham_like / "HAM10000_metadata.csv", dtype=str)
    (ham_like / "HAM10000_metadata.csv").unlink()
    table.to_csv(ham_like / "HAM10000_metadata.tab", sep="\t", index=False, quoting=csv.QUOTE_NONNUMERIC)
    pd.testing.assert_frame_equal(ham10000(ham_like), before)
    (ham_like / "HAM10000_metadata.tab").write_bytes(b"\xff\xfelesion_id\n")
    with pytest.raises(ManifestError, match="HAM10000_metadata.tab: not a comma- or tab-separated table in UTF-8"):
        ham10000(ham_like)
    (ham_like / "HAM10000_metadata.tab").unlink()
    with pytest.raises(FileNotFoundError, match="10.7910/DVN/DBW86T"):
        ham10000(ham_like)


# ---- all of them


def without_outlines(name, folder):
    """Put the outlines of a set where nobody looks for them."""
    if name == "origa":
        (folder / "Semi-automatic-annotations").rename(folder / "Masks_Square")
    elif name == "tnscui":
        for path in (folder / "mask").iterdir():
            path.rename(path.with_suffix(".bmp"))
    elif name == "jsrt":  # the left lung only
        for path in folder.rglob("right lung/*"):
            path.unlink()
    else:
        for path in folder.rglob("*_segmentation.png"):
            path.unlink()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_set_without_any_outline_is_refused_until_that_is_said_or_said_where_outlines_come_apart(
    name, request, tmp_path, capsys
):
    folder = request.getfixturevalue(FIXTURES[name])
    without_outlines(name, folder)
    call = [name, str(folder), str(tmp_path / "mine.csv")]
    refused = name != "ham10000"
    assert published.main(call) == refused and (tmp_path / "mine.csv").exists() != refused
    said = capsys.readouterr()
    assert ", 0 with an outline; " in said.out
    assert f"no outline was found in {folder}; looked for {published.OUTLINES[name]}" in said.err
    assert published.main([*call, "--without-outlines"]) == 0
    assert set(read_manifest(tmp_path / "mine.csv")["mask"]) == {""}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_each_set_survives_the_way_through_its_csv(name, request, tmp_path):
    folder = request.getfixturevalue(FIXTURES[name])
    table = PUBLISHED[name](folder)
    assert published.main([name, str(folder), str(tmp_path / "mine.csv")]) == 0
    again = read_manifest(tmp_path / "mine.csv")
    assert again.to_dict("list") == table.astype(str).to_dict("list")
    with pytest.raises(FileNotFoundError, match=published.HOW_TO_GET[name].split()[0]):
        PUBLISHED[name](tmp_path / "nowhere")
    assert "never run on the" in " ".join(PUBLISHED[name].__doc__.split())
