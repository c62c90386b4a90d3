"""The phantom keeps its promises: ambiguity by construction, a background dial, exact masks, the same everywhere."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.stats import chi2_contingency

from ynet_lite.sets import frames, phantom
from ynet_lite.sets.phantom import (
    BACKGROUNDS,
    DISEASES,
    FINE_CUES,
    MANIFESTATIONS,
    MIN_CASES,
    STAGES,
    PhantomStyle,
    make_phantom,
    sharing_diseases,
)


@pytest.fixture(scope="module")
def cases():
    return make_phantom(200, seed=3)


def plan(n=4000, seed=1, confounding=0.8, style=None):
    """The table without drawing the images: statistics need thousands of cases."""
    return pd.DataFrame(phantom._plan(n, seed, confounding, style or PhantomStyle()))


def by_patient(table):
    return table.drop_duplicates("group")  # two views of a patient share the background: they are one observation


# ------------------------------------------------------------------ the form


def test_form(cases):
    assert cases.images.shape == (200, 1, 96, 96) and cases.images.dtype == np.uint8
    assert cases.masks.dtype == np.uint8 and set(np.unique(cases.masks)) == {0, 1}
    assert cases.has_mask.all() and cases.class_names == DISEASES and cases.finer == ("manifestation", "stage")
    assert cases.labels.dtype == np.int64
    assert [DISEASES[i] for i in cases.labels] == cases.table["disease"].tolist() == cases.table["label"].tolist()
    assert cases.table["case_id"].is_unique
    assert set(cases.table["stage"]) == set(STAGES)
    assert set(cases.table["background"]) == {str(i) for i in range(len(BACKGROUNDS))}
    assert (cases.table["manifestation"] == cases.table["margin"] + " " + cases.table["echo"]).all()


def test_frames_use_the_grey_scale_like_a_scanner(cases):
    means = cases.images.mean(axis=(1, 2, 3))
    assert means.min() > 20 and means.max() < 130  # neither black nor washed out
    assert (cases.images.std(axis=(1, 2, 3)) > 12).all()


@pytest.mark.parametrize("size", [48, 96, 128])
def test_size_and_mask_range(size):
    made = make_phantom(MIN_CASES, seed=5, size=size)
    assert made.images.shape[2:] == (size, size)
    area = made.masks.mean(axis=(1, 2))
    assert area.min() >= 0.03 and area.max() <= 0.25
    np.testing.assert_allclose(area, made.table["area"])


def test_each_mask_is_one_piece_inside_the_frame(cases):
    for mask in cases.masks:
        pieces, count = ndimage.label(mask, np.ones((3, 3)))
        assert count == 1 or np.bincount(pieces.ravel())[1:].max() > 0.95 * mask.sum()  # a spicule tip may come off
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()


# ------------------------------------------------------------------ the same everywhere


def test_same_arguments_same_cases(cases):
    again = make_phantom(200, seed=3)
    assert np.array_equal(cases.images, again.images) and np.array_equal(cases.masks, again.masks)
    pd.testing.assert_frame_equal(cases.table, again.table)
    assert cases.fingerprint == again.fingerprint


def test_kept_frames_are_the_drawn_ones(cases, tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path))
    drawn = make_phantom(40, seed=3)
    for again in (make_phantom(40, seed=3, kept=True), make_phantom(40, seed=3, kept=True)):
        pd.testing.assert_frame_equal(again.table, drawn.table)
        assert np.array_equal(again.images, drawn.images) and np.array_equal(again.masks, drawn.masks)
        assert again.fingerprint == drawn.fingerprint
    (file,) = tmp_path.glob("*.npz")
    monkeypatch.setattr(phantom, "_frames", lambda *_: pytest.fail("drawn again"))
    make_phantom(40, seed=3, kept=True)
    monkeypatch.undo()
    monkeypatch.setenv("YNET_CACHE", str(tmp_path))
    make_phantom(40, seed=3, confounding=0.5, kept=True)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.warns(UserWarning, match="damaged"):
        assert np.array_equal(make_phantom(40, seed=3, kept=True).images, drawn.images)


def test_case_does_not_depend_on_n(cases):
    few = make_phantom(61, seed=3)
    assert np.array_equal(few.images, cases.images[:61]) and np.array_equal(few.masks, cases.masks[:61])
    pd.testing.assert_frame_equal(few.table, cases.table.iloc[:61])


def digest(cases) -> str:
    return hashlib.sha256(cases.images.tobytes() + cases.masks.tobytes()).hexdigest()


def test_the_pixels_of_this_version_are_these(cases):
    """Other pixels are another phantom: they need a new ``GENERATOR_VERSION``, and every row anew."""
    assert phantom.GENERATOR_VERSION == "2"
    assert digest(cases) == "89ae74df88878cb24af89e3a3a38865be1e7277e0733adaf4b171ef8f2b72f33"


@pytest.mark.parametrize(
    "setting",
    [
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_SKX AVX512_ICL AVX512_SPR"},
        {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    ],
    ids=["other BLAS kernels and exp", "other kernels and threads"],
)
def test_the_same_pixels_with_other_kernels(cases, setting):
    """A grey level of one pixel moves a training by hundredths of mAP. (Where a setting means nothing, nothing changes.)"""
    code = (
        "import hashlib; from ynet_lite.sets.phantom import make_phantom; c = make_phantom(200, seed=3); "
        "print(hashlib.sha256(c.images.tobytes() + c.masks.tobytes()).hexdigest())"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | setting
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest(cases)


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(0)  # noqa: NPY002 - the old global state is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = make_phantom(MIN_CASES, seed=9)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(first.images, make_phantom(MIN_CASES, seed=9).images)


def test_seeds_and_parameters_make_other_cases_and_fingerprints(cases):
    other = make_phantom(MIN_CASES, seed=4)
    assert not np.array_equal(other.images, cases.images[:MIN_CASES])
    style = dataclasses.replace(PhantomStyle(), cue_strength=0.5)
    marks = {
        make_phantom(MIN_CASES, seed=3).fingerprint,
        other.fingerprint,
        make_phantom(MIN_CASES + 1, seed=3).fingerprint,
        make_phantom(MIN_CASES, seed=3, confounding=0.5).fingerprint,
        make_phantom(MIN_CASES, seed=3, size=48).fingerprint,
        make_phantom(MIN_CASES, seed=3, style=style).fingerprint,
    }
    assert len(marks) == 6
    assert all(len(mark) == 64 for mark in marks)


def test_pinned_statistics():
    """Another machine may differ by single grey levels only: pixels are pinned with a tolerance, the table exactly."""
    made = make_phantom(MIN_CASES, seed=0)
    assert made.table["case_id"].tolist()[:4] == ["p0000-1", "p0000-2", "p0001-1", "p0002-1"]
    assert made.labels[:12].tolist() == [0, 0, 3, 2, 2, 2, 1, 0, 3, 3, 3, 2]
    assert made.table["stage"].tolist()[:12] == [1, 1, 1, 2, 2, 2, 3, 1, 1, 1, 1, 3]
    assert made.table["background"].tolist()[:12] == ["0", "0", "3", "2", "2", "1", "1", "0", "1", "1", "3", "2"]
    assert made.table["distractors"].tolist()[:12] == [1, 3, 5, 1, 3, 2, 1, 5, 2, 2, 5, 3]
    np.testing.assert_allclose(made.masks[:6].sum((1, 2)), [2118, 1463, 759, 1047, 1029, 812], atol=4)
    np.testing.assert_allclose(made.images[:6].mean((1, 2, 3)), [29.09, 43.83, 90.98, 88.26, 61.21, 64.20], atol=0.3)
    np.testing.assert_allclose(made.images[0, 0, 40, 10:90:16], [66, 30, 29, 22, 41], atol=2)


# ------------------------------------------------------------------ patients and splits


def test_patients_stay_on_one_side(cases):
    assert (cases.table.groupby("group")["split"].nunique() == 1).all()
    database, queries = cases.split()
    assert not set(database.groups) & set(queries.groups)


def test_two_views_show_one_patient():
    table = plan()
    views = table.groupby("group").size()
    assert set(views) == {1, 2} and 0.4 < (views == 2).mean() < 0.6
    same = ["label", "split", "stage", "manifestation", "background", "inner", "rim", "posterior", "ambiguous"]
    assert (table.groupby("group")[same].nunique() == 1).all().all()


def test_split_is_about_one_in_five_for_every_disease():
    patients = by_patient(plan())
    assert (abs(pd.crosstab(patients["disease"], patients["split"], normalize="index")["test"] - 0.2) < 0.02).all()


@pytest.mark.parametrize("seed", range(8))
def test_smallest_set_has_every_disease_on_both_sides(seed):
    table = plan(MIN_CASES, seed)
    assert (pd.crosstab(table["disease"], table["split"]) > 0).all().all()


# ------------------------------------------------------------------ the dial


def association(table):
    return chi2_contingency(pd.crosstab(table["disease"], table["background"])).pvalue


def test_without_confounding_the_background_tells_nothing():
    patients = by_patient(plan(confounding=0))
    for side in ("train", "test"):
        assert association(patients[patients["split"] == side]) > 0.001


def test_confounding_is_strong_in_train_and_absent_in_test():
    patients = by_patient(plan(confounding=0.8))
    own = patients["background"].astype(int) == patients["disease"].map(DISEASES.index)
    train = patients["split"] == "train"
    assert association(patients[train]) < 1e-100
    assert association(patients[~train]) > 0.001
    assert abs(own[train].mean() - 0.85) < 0.03  # 0.8 + 0.2 / 4
    assert abs(own[~train].mean() - 0.25) < 0.06


def test_full_confounding_tells_every_training_disease():
    table = plan(confounding=1)
    train = table[table["split"] == "train"]
    assert (train["background"].astype(int) == train["disease"].map(DISEASES.index)).all()


def test_the_dial_moves_the_background_only():
    low, high = plan(200, 3, 0.0), plan(200, 3, 1.0)
    pd.testing.assert_frame_equal(low.drop(columns="background"), high.drop(columns="background"))
    few, many = make_phantom(MIN_CASES, 3, confounding=0.0), make_phantom(MIN_CASES, 3, confounding=1.0)
    assert np.array_equal(few.masks, many.masks)


# ------------------------------------------------------------------ ambiguity by construction


def test_probabilities_of_the_table_add_up():
    assert set(MANIFESTATIONS) == {(disease, stage) for disease in DISEASES for stage in STAGES}
    for options in MANIFESTATIONS.values():
        assert sum(p for _, p in options) == pytest.approx(1)


def test_same_manifestation_in_different_diseases():
    shared = {name: diseases for name, diseases in sharing_diseases().items() if len(diseases) > 1}
    assert len(shared) >= 4
    assert set().union(*shared.values()) == set(DISEASES)  # every disease can be mistaken
    for diseases in shared.values():  # and can be told apart by what lies inside the lesion
        assert len({FINE_CUES[d] for d in diseases}) == len(diseases)
    seen = plan().groupby("manifestation")["disease"].unique().map(lambda d: tuple(sorted(d))).to_dict()
    assert seen == sharing_diseases()


def test_different_manifestations_over_the_stages_of_a_disease():
    table = plan()
    for disease in DISEASES:
        main = {max(MANIFESTATIONS[disease, s], key=lambda option: option[1])[0] for s in STAGES}
        assert len(main) == len(STAGES)
        seen = table[table["disease"] == disease].groupby("stage")["manifestation"].agg(lambda m: m.mode()[0])
        assert seen.nunique() == len(STAGES)


def test_ambiguous_cases_are_shared_ones_at_the_wanted_rate():
    patients = by_patient(plan(style=PhantomStyle(ambiguous=0.3)))
    shared = patients["manifestation"].map(lambda name: len(sharing_diseases()[name]) > 1)
    assert not patients.loc[~shared, "ambiguous"].any()
    assert abs(patients.loc[shared, "ambiguous"].mean() - 0.3) < 0.04


def test_fine_cue_shows_inside_the_lesion():
    """Measured on the pixels: a bright rim is brighter than the core, a heterogeneous lesion varies more."""
    made = make_phantom(300, seed=7, style=PhantomStyle(ambiguous=0, calipers=0, text=0, shadow_bands=0))
    rim, spread = [], []
    for image, mask in zip(made.images[:, 0].astype(float), made.masks, strict=True):
        depth = ndimage.distance_transform_edt(mask)
        core = image[depth > 7]
        rim.append(image[(depth > 1) & (depth < 5)].mean() - core.mean() if core.size else np.nan)
        spread.append(ndimage.gaussian_filter(image, 2)[depth > 7].std() if core.size else np.nan)
    table = made.table.assign(brighter=rim, spread=spread)
    # within one echo level, so that the echo itself does not help
    table = table[table["echo"] == "hypoechoic"]
    rims = table.groupby("rim")["brighter"].mean()
    spreads = table.groupby("inner")["spread"].mean()
    assert rims["bright"] > rims["none"] + 15
    assert spreads["heterogeneous"] > 1.5 * spreads["homogeneous"]


def test_undecided_cue_hides_the_disease():
    """With an undecided cue two diseases of one manifestation are drawn by the same rule: equal rows, equal pixels."""
    row = dict(plan(style=PhantomStyle(ambiguous=1)).query("ambiguous and disease == 'disease A'").iloc[0])
    twin = {**row, "inner": "heterogeneous", "rim": "bright"}

    def frame(case):
        return frames.draw(case, np.random.SeedSequence(1), 96, PhantomStyle())[0]

    assert np.array_equal(frame(row), frame(twin))
    assert not np.array_equal(frame({**row, "ambiguous": False}), frame({**twin, "ambiguous": False}))


# ------------------------------------------------------------------ what misleads stays outside the mask


@pytest.mark.parametrize(
    "change",
    [
        {"text": 1.0},
        {"calipers": 1.0},
        {"distractor_rate": 3.0},
        {"wedge": 1.0},
        {"speckle_contrast": 0.2},
        {"background_contrast": 0.0},
    ],
)
def test_mask_never_depends_on(change):
    quiet = PhantomStyle(text=0, calipers=0, distractor_rate=0, wedge=0)
    plain = make_phantom(MIN_CASES, seed=2, style=quiet)
    changed = make_phantom(MIN_CASES, seed=2, style=dataclasses.replace(quiet, **change))
    assert np.array_equal(plain.masks, changed.masks)
    assert not np.array_equal(plain.images, changed.images)


def test_quiet_style_has_no_marks_and_no_distractors():
    quiet = make_phantom(MIN_CASES, seed=2, style=PhantomStyle(text=0, calipers=0, distractor_rate=0))
    assert quiet.table["distractors"].sum() == 0 and not quiet.table["text"].any() and not quiet.table["calipers"].any()


def test_distractors_leave_the_lesion_alone():
    """Vessels, ducts, specks and lobules are drawn around the lesion: deep inside it the frame hardly changes."""
    quiet = PhantomStyle(text=0, calipers=0, distractor_rate=0, shadow_bands=0, wedge=0)
    plain = make_phantom(MIN_CASES, seed=2, style=quiet)
    full = make_phantom(MIN_CASES, seed=2, style=dataclasses.replace(quiet, distractor_rate=3.0))
    change = np.abs(plain.images[:, 0].astype(float) - full.images[:, 0])
    inside = np.stack([ndimage.binary_erosion(m, iterations=2) for m in plain.masks])
    assert (full.table["distractors"] > 0).mean() > 0.9
    assert change[inside].mean() < 1
    assert change[plain.masks == 0].mean() > 5 * change[inside].mean()


def test_text_and_calipers_are_written_bright():
    quiet = PhantomStyle(text=0, calipers=0)
    plain = make_phantom(MIN_CASES, seed=2, style=quiet).images
    for change in ({"text": 1.0}, {"calipers": 1.0}):
        marked = make_phantom(MIN_CASES, seed=2, style=dataclasses.replace(quiet, **change)).images
        for a, b in zip(plain, marked, strict=True):
            assert 10 <= (a != b).sum() < 0.05 * a.size
            assert b[a != b].min() >= 185


# ------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"n_cases": MIN_CASES - 1}, "n_cases"),
        ({"n_cases": 100.0}, "n_cases"),
        ({"n_cases": True}, "n_cases"),
        ({"seed": -1}, "seed"),
        ({"seed": "0"}, "seed"),
        ({"size": 32}, "size"),
        ({"size": 1024}, "size"),
        ({"confounding": -0.1}, "confounding"),
        ({"confounding": 1.01}, "confounding"),
        ({"confounding": float("nan")}, "confounding"),
        ({"confounding": "0.8"}, "confounding"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=f"{word} must be .* got"):
        make_phantom(**{"n_cases": MIN_CASES, **arguments})
