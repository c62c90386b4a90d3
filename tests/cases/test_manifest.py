"""The manifest's checks: every kind of bad table gives one error that names rows and patients."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ynet_lite.cases.manifest import SHOWN, ManifestError, check_manifest, files, kept, read_manifest
from ynet_lite.cases.splits import deal, validation_rows


def good() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": ["a", "b", "c", "d"],
            "image": ["a.png", "b.png", "c.png", "d.png"],
            "mask": ["a_m.png", "", "empty", "d1.png; d2.png"],
            "label": ["benign", "malignant", "benign", "malignant"],
            "group": ["1", "2", "3", "3"],
            "fold": ["1", "1", "2", "2"],
        }
    )


def error_of(table: pd.DataFrame, **settings) -> str:
    settings = {"need_files": False, **settings}
    with pytest.raises(ManifestError) as caught:
        check_manifest(table, "mine", **settings)
    return str(caught.value)


def test_a_good_manifest_is_copied_with_integer_folds():
    table = good()
    before = table.copy()
    checked = check_manifest(table, "mine", need_files=False)
    pd.testing.assert_frame_equal(table, before)
    assert checked["fold"].tolist() == [1, 1, 2, 2]
    assert checked["mask"].tolist() == before["mask"].tolist()
    assert isinstance(ManifestError("x"), ValueError)


def test_split_instead_of_fold_and_no_mask_column():
    table = good().drop(columns=["fold", "mask"]).assign(split=["train", "train", "test", "test"])
    checked = check_manifest(table, "mine", need_files=False)
    assert checked["mask"].tolist() == [""] * 4
    assert checked["split"].tolist() == ["train", "train", "test", "test"]
    assert "row 3 has 'val'" in error_of(table.assign(split=["train", "val", "test", "test"]))


@pytest.mark.parametrize("column", ["case_id", "image", "label", "group"])
def test_missing_column_is_named(column):
    message = error_of(good().drop(columns=column))
    assert "missing column(s)" in message and column in message


def test_another_separator_is_hinted_at(tmp_path):
    good().to_csv(tmp_path / "mine.csv", index=False, sep="\t")
    assert "separated by commas" in error_of(read_manifest(tmp_path / "mine.csv"))
    assert "separated by commas" not in error_of(good().drop(columns="label"))


def test_fold_or_split_is_needed():
    assert "fold (integers) or split (train / test)" in error_of(good().drop(columns="fold"))


def test_empty_manifest():
    assert "no rows" in error_of(good().iloc[:0])


def test_duplicate_case_names_the_second_row():
    message = error_of(good().assign(case_id=["a", "b", "a", "d"]))
    assert "row 4 'a'" in message and "unique" in message and "row 2" not in message


@pytest.mark.parametrize("bad", [np.nan, None, "", "  ", "nan", "NaN"])
def test_blank_or_nan_label_is_named_by_row(bad):
    table = good().astype(object)
    table.loc[2, "label"] = bad
    message = error_of(table)
    assert "label is blank or NaN" in message and "row 4" in message


def test_one_class_only():
    assert "one class only: ['benign']" in error_of(good().assign(label="benign"))


def test_one_class_written_in_two_ways():
    message = error_of(good().assign(label=["benign", "Malignant", "benign", "malignant"]))
    assert "write each class in one way: 'Malignant' and 'malignant'" in message and "benign" not in message
    assert "'grade  2' and 'grade 2'" in error_of(good().assign(label=["grade 2", "grade 1", "grade  2", "grade 1"]))


def test_patient_in_two_folds_is_named_with_rows():
    message = error_of(good().assign(group=["1", "2", "3", "1"]))
    assert "patient '1' in fold 1 (row 2) and fold 2 (row 5)" in message


def test_patient_in_two_splits_is_named():
    table = good().drop(columns="fold").assign(split=["train", "train", "train", "test"])
    assert "patient '3' in split test (row 5) and split train (row 4)" in error_of(table)


@pytest.mark.parametrize("bad", ["x", "1.5", "", np.nan, "inf"])
def test_fold_must_be_a_whole_number(bad):
    table = good().astype(object)
    table.loc[1, "fold"] = bad
    assert "fold must be a whole number: row 3" in error_of(table)


def test_all_cases_on_one_side():
    assert "every case has fold 1" in error_of(good().assign(fold="1"))


def test_missing_files_are_listed_by_row(tmp_path):
    for name in ("a.png", "b.png", "d.png", "a_m.png", "d1.png"):
        (tmp_path / name).touch()
    message = error_of(good(), need_files=True, folder=tmp_path)
    assert "image file not found: row 4 c.png" in message
    assert "row 5 d2.png" in message and "row 5 d1.png" not in message
    (tmp_path / "c.png").touch()
    (tmp_path / "d2.png").touch()
    check_manifest(good(), "mine", folder=tmp_path)


def test_only_five_offenders_are_listed_but_all_are_counted_and_all_kinds_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path))
    n = 12
    table = pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(n)],
            "image": "x.png",
            "label": [""] * 8 + ["a", "b", "a", "b"],
            "group": ["p"] * 2 + [f"g{i}" for i in range(2, n)],
            "fold": [1, 2] * 6,
        }
    )
    with pytest.raises(ManifestError) as error:
        check_manifest(table, "mine", need_files=False)
    message = str(error.value)
    assert "row 2, row 3, row 4, row 5, row 6 and 3 more" in message
    assert "row 7" not in message
    assert "patient 'p'" in message and message.startswith("mine: 2 problem(s)")
    # all of them, with what is wrong, in a file and in the error
    file = Path(re.search(r"all of them in (.*)\)", message)[1])
    assert file.parent == tmp_path and tuple(file.read_text().splitlines()) == error.value.offenders
    assert [line for line in error.value.offenders if line.startswith("label is blank")][-1].endswith("row 9")
    assert len(error.value.offenders) == 8 + 1


def test_a_few_offenders_are_all_on_screen_and_a_cache_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))
    assert kept("mine", ["a"] * SHOWN) == "" and not (tmp_path / "cache").exists()
    (tmp_path / "cache").touch()  # a file where the folder should be
    assert kept("mine", ["a"] * (SHOWN + 1)) == ""
    assert kept(f"{tmp_path}/my.index.queries", ["a"] * 6) == f" (all of them in {tmp_path}/my.index.queries.txt)"


@pytest.mark.parametrize("written", ["pictures\\läsion.png", "pictures/la\u0308sion.png", "pictures\\la\u0308sion.png"])
def test_paths_written_on_another_system_are_found(written, tmp_path):
    (tmp_path / "pictures").mkdir()
    there = tmp_path / "pictures" / "l\u00e4sion.png"
    there.touch()
    (tmp_path / "cases.csv").write_text(f"case_id,image,mask\na,{written},empty;{written}\n", encoding="utf-8")
    table = read_manifest(tmp_path / "cases.csv")
    assert table["image"].tolist() == [str(there)] and table["mask"].tolist() == [f"empty;{there}"]
    there.unlink()
    assert read_manifest(tmp_path / "cases.csv")["image"].tolist() == [f"{tmp_path}/{written}"]


def test_several_images_or_empty_beside_a_file_are_refused(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png", "a_m.png", "d1.png", "d2.png"):
        (tmp_path / name).touch()
    table = good().assign(image=["a.png", "b.png;c.png", "c.png", "d.png"], mask=["a_m.png;empty", "", "", ""])
    message = error_of(table, need_files=True, folder=tmp_path)
    assert "image must name one file: row 3" in message
    assert "mask mixes 'empty' with files: row 2" in message


def test_read_manifest_keeps_text_and_counts_lines(tmp_path):
    path = tmp_path / "set" / "mine.csv"
    path.parent.mkdir()
    path.write_text(
        "\ufeffcase_id, image ,mask,label,group,fold,note\n"
        "007,img/a.png,m1.png;m2.png,NA,01,1,1e3\n"
        "\n"
        "008, /abs/b.png ,empty,None,02,2,\n",
        encoding="utf-8",
    )
    table = read_manifest(path)
    assert list(table.columns) == ["case_id", "image", "mask", "label", "group", "fold", "note"]
    assert table["case_id"].tolist() == ["007", "008"]
    assert table["label"].tolist() == ["NA", "None"] and table["group"].tolist() == ["01", "02"]
    assert table["note"].tolist() == ["1e3", ""]
    assert table["image"].tolist() == [str(path.parent / "img/a.png"), "/abs/b.png"]
    assert files(table["mask"].iloc[0]) == [str(path.parent / "m1.png"), str(path.parent / "m2.png")]
    assert table["mask"].iloc[1] == "empty"
    table.loc[table.index[1], "label"] = ""
    assert "row 4" in error_of(table)  # the blank line counts


def test_read_manifest_refuses_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ManifestError, match="empty"):
        read_manifest(tmp_path / "empty.csv")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    with pytest.raises(ManifestError, match="not a comma-separated table"):
        read_manifest(tmp_path / "ragged.csv")
    (tmp_path / "head.csv").write_text("case_id,image,label,group,fold\n")
    assert "no rows" in error_of(read_manifest(tmp_path / "head.csv"))


# ---- validation patients


def population(seed: int = 0):
    rng = np.random.default_rng(seed)
    patients = [f"p{i}" for i in range(100)]
    classes = ["m" if i < 30 else "b" for i in range(100)]
    groups, labels = [], []
    for patient, label in zip(patients, classes, strict=True):
        for _ in range(rng.integers(1, 4)):
            groups.append(patient)
            labels.append(label)
    return np.array(groups), np.array(labels), dict(zip(patients, classes, strict=True))


def test_validation_takes_whole_patients_of_each_class():
    groups, labels, classes = population()
    chosen = validation_rows(groups, labels, 0.1, seed=3)
    inside, outside = set(groups[chosen]), set(groups[~chosen])
    assert not inside & outside
    assert sum(classes[p] == "m" for p in inside) == 3 and sum(classes[p] == "b" for p in inside) == 7


def test_validation_depends_on_patients_and_seed_only():
    groups, labels, _ = population()
    chosen = validation_rows(groups, labels, 0.2, seed=1)
    order = np.random.default_rng(9).permutation(len(groups))
    again = validation_rows(groups[order], labels[order], 0.2, seed=1)
    assert (chosen[order] == again).all()
    assert (chosen != validation_rows(groups, labels, 0.2, seed=2)).any()
    assert (chosen == validation_rows(list(groups), list(labels), 0.2, seed=1)).all()


def test_validation_with_mixed_patients_and_small_classes():
    # p1 has one image of each class: it counts for the rarer one, "m" (2 images of 6)
    groups = ["p1", "p1", "p2", "p3", "p4", "p5"]
    labels = ["b", "m", "m", "b", "b", "b"]
    for seed in range(10):
        inside = set(np.array(groups)[validation_rows(groups, labels, 0.01, seed)])
        assert len(inside & {"p1", "p2"}) == 1 and len(inside & {"p3", "p4", "p5"}) == 1
        outside = set(np.array(groups)[~validation_rows(groups, labels, 0.99, seed)])
        assert len(outside & {"p1", "p2"}) == 1 and len(outside & {"p3", "p4", "p5"}) == 1


def test_validation_edges():
    assert not validation_rows(["a", "b"], ["x", "y"], 0.0, 0).any()
    assert validation_rows([], [], 0.1, 0).shape == (0,)
    with pytest.raises(ValueError, match="too few"):
        validation_rows(["a", "b"], ["x", "y"], 0.5, 0)
    with pytest.raises(ValueError, match="share"):
        validation_rows(["a"], ["x"], 1.0, 0)
    with pytest.raises(ValueError, match="one group and one label"):
        validation_rows(["a"], ["x", "y"], 0.1, 0)


def test_deal_by_hand():
    # two classes; in each the groups stand in the order of their SHA-256, and b goes on where a stopped
    names = {"a": ["p1", "p2", "p3"], "b": ["p4", "p5"]}
    order = [g for label in "ab" for g in sorted(names[label], key=lambda g: hashlib.sha256(g.encode()).hexdigest())]
    expected = {group: 1 + i % 2 for i, group in enumerate(order)}  # folds 1 2 1 | 2 1
    groups = ["p1", "p2", "p3", "p4", "p5", "p1"]
    assert deal(groups, ["a", "a", "a", "b", "b", "a"], 2).tolist() == [expected[g] for g in groups]


def test_deal_divides_no_group_and_spreads_each_class():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat([f"p{i}" for i in range(83)], 3))
    kinds = {f"p{i}": "rare" if i < 17 else "common" for i in range(83)}
    labels = np.array([kinds[g] for g in groups])
    labels[np.flatnonzero(groups == "p0")[0]] = "common"  # the other two outvote it
    fold = deal(groups, labels, 5)
    table = pd.DataFrame({"group": groups, "fold": fold})
    assert (table.groupby("group")["fold"].nunique() == 1).all() and fold.dtype == np.int64
    each = table.drop_duplicates("group")
    counts = pd.crosstab(each["fold"], each["group"].map(kinds))
    assert list(counts.index) == [1, 2, 3, 4, 5]
    assert (counts.max() - counts.min() <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1
    order = rng.permutation(len(groups))
    assert (deal(groups[order], labels[order], 5) == fold[order]).all()


def test_deal_edges():
    for groups, folds in ((["a"], 2), ([], 2), (["a", "b"], 1), (["a", "a", "b"], 3)):
        with pytest.raises(ValueError, match="deal"):
            deal(groups, ["x"] * len(groups), folds)
    with pytest.raises(ValueError, match="one group and one label"):
        deal(["a", "b"], ["x"], 2)
