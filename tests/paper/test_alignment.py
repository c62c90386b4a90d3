"""Where cells lie: on networks whose answer is known by construction, and what the committed rows say about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ynet_lite import attribution, provenance
from ynet_lite.checkpoint import Checkpoint, checkpoint_path
from ynet_lite.config import Config
from ynet_lite.encoding import encode_floats
from ynet_lite.model import YNet
from ynet_lite.paper.ambiguity import alignment
from ynet_lite.sets import load_cases

QUICK = Config(size=32, planes=(4, 4, 4, 4), blocks=1, fpn=8, bits=16)
FULL = QUICK.but(stem="conv7-pool")


@pytest.fixture
def images():
    """Grey noise, brighter in the middle: content that is not spread evenly must not move a shift."""
    y, x = np.mgrid[:32, :32]
    bump = 120 * np.exp(-((y - 20) ** 2 + (x - 9) ** 2) / 60)
    noise = np.random.default_rng(0).integers(1, 120, (12, 1, 32, 32))
    return (noise + bump).astype(np.uint8)


def near(shift, rows, columns, atol=0.0):
    """Within four standard errors, which must be small enough to tell the two readings apart."""
    assert shift.se_rows < 0.8 and shift.se_columns < 0.8
    assert abs(shift.rows - rows) <= 4 * shift.se_rows + atol and abs(shift.columns - columns) <= 4 * shift.se_columns + atol


# --- known by construction -------------------------------------------------------------------------------------------


def tap(stride, down, right):
    """Cell (i, j) reads pixel (stride i + down, stride j + right) and nothing else: an identity with one off-centre tap."""

    def stage(x):
        moved = F.pad(x, (stride,) * 4)[:, :, stride + down :, stride + right :]
        return moved[:, :, : x.shape[2] : stride, : x.shape[3] : stride]

    return stage


@pytest.mark.parametrize("stride, down, right", [(8, 0, 0), (8, 3, -2), (8, 7, 5), (16, -6, 11)])
def test_one_tap_lies_where_it_was_put(images, stride, down, right):
    stage = tap(stride, down, right)
    assert stage(torch.zeros(1, 1, 8 * stride, 8 * stride)).shape[2:] == (8, 8)
    by_gradient = alignment.gradient_shift(stage, images, stride)
    assert by_gradient == (down, right, 0, 0, 24, 12)
    # few patches touch the one pixel that a cell reads
    near(alignment.occlusion_shift(stage, images, stride, per_image=200), down, right)


def test_both_measures_agree_on_a_network_with_relus(images):
    """Symmetric blur, ReLU, one tap off the centre, blur again: the shift is the tap's, times the stride before it."""

    def stage(x):
        x = F.relu(F.conv2d(x, blur, padding=2, stride=2) - 10)
        moved = F.conv2d(x, off, padding=1, stride=4)  # tap at (+1, -1) of cells of two pixels
        return F.relu(F.conv2d(moved, blur, padding=2))

    triangle = torch.tensor([1.0, 2, 3, 2, 1])
    blur = (triangle[:, None] * triangle / 81)[None, None]
    off = torch.zeros(1, 1, 3, 3)
    off[0, 0, 2, 0] = 1
    near(alignment.gradient_shift(stage, images, 8), 2, -2, 1e-4)
    near(alignment.occlusion_shift(stage, images, 8, per_image=50), 2, -2)


def planted(cfg, taps):
    """A network whose 3x3 convolutions each read one cell: the centre, or ``taps`` {level: (down, right)} in the first one.

    Positive weights and no shortcut, so that every path has the same, known place.
    """
    torch.manual_seed(0)
    model = YNet(cfg, 2)

    def plant(conv, at):
        with torch.no_grad():
            middle = conv.kernel_size[0] // 2
            spread = conv.weight.new_zeros(conv.weight.shape)
            spread[:, :, middle + at[0], middle + at[1]] = 1 + torch.rand(conv.weight.shape[:2])
            conv.weight.copy_(spread)

    plant(model.encoder.stem[0], taps.get(1, (0, 0)))
    for level, stage in enumerate(model.encoder.stages, 2):
        plant(stage[0].conv1, taps.get(level, (0, 0)))
        plant(stage[0].conv2, (0, 0))
        if isinstance(stage[0].shortcut, nn.Identity):
            stage[0].shortcut = nn.Conv2d(4, 4, 1, bias=False)
        for part in stage[0].shortcut.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.zeros_(part.weight)
    return model.eval()


@pytest.mark.parametrize(
    "cfg, level, taps, down, right",
    [
        (QUICK, 5, {}, 0, 0),
        (QUICK, 4, {4: (1, 0)}, 4, 0),  # C4's first convolution reads cells of 4 pixels
        (QUICK, 5, {1: (1, 1), 3: (1, -1), 5: (0, 1)}, 1 + 2, 1 - 2 + 8),
        (QUICK, 4, {5: (1, 1)}, 0, 0),  # what comes later does not matter
        (FULL, 5, {4: (1, 1), 5: (-1, 1)}, 8 - 16, 8 + 16),
    ],
)
def test_stages_of_the_network_lie_where_their_taps_are(images, cfg, level, taps, down, right):
    stage, stride = alignment.stage_of(planted(cfg, taps), level), attribution.cell_stride(cfg, level)
    images = images // 4 + 190  # above the mean grey: every ReLU is open
    # the pooling of the "full" stem takes the brightest of 3 x 3 cells of two pixels, which differs from image to image
    near(alignment.gradient_shift(stage, images, stride, per_image=8), down, right, 1e-4)
    near(alignment.occlusion_shift(stage, images, stride, per_image=100), down, right)


def test_an_untrained_network_lies_on_its_receptive_field(images):
    cfg = QUICK.but(planes=(4, 8, 8, 8))
    found = []
    for seed in range(6):
        torch.manual_seed(seed)
        stage = alignment.stage_of(YNet(cfg, 2).eval(), 5)
        found.append(alignment.gradient_shift(stage, images, 16)[:2])
    # half a pixel would be 7.5
    assert np.abs(np.mean(found, axis=0)).max() < 1


def test_content_in_the_middle_pulls_in_the_frame_but_not_in_windows(images):
    """A wide symmetric field whose gradient follows the image: in windows 0, in the frame pulled to the middle."""

    def stage(x):
        return F.avg_pool2d(x**2, 33, 16, padding=16)

    stage_shift = alignment.gradient_shift(stage, images, 16, per_image=40)
    near(stage_shift, 0, 0)
    # cells at 0 and 16 of 32 pixels: the border cuts more from the first, and the middle lies at 15.5
    frame = alignment.frame_shift(stage, images, 16)
    assert frame.rows > 3 and frame.columns > 3 and frame.cells == 12 * 4


def test_a_tap_in_the_frame_is_not_pulled(images):
    assert alignment.frame_shift(tap(8, 3, 2), images, 8) == (3, 2, 0, 0, 12 * 16, 12)


def test_weights_choose_the_channels(images):
    def stage(x):
        return torch.cat([tap(8, 0, 0)(x), tap(8, 4, 2)(x)], 1)

    second = torch.tensor([[0.0, -3.0]]).repeat(12, 1)
    assert alignment.gradient_shift(stage, images, 8, second)[:2] == (4, 2)
    assert alignment.gradient_shift(stage, images, 8)[:2] == (2, 1)  # random signs: both
    # nothing to follow in half of the images: they do not count, not even as zeros
    second[::2] = 0
    assert alignment.gradient_shift(stage, images, 8, second) == (4, 2, 0, 0, 12, 6)
    nothing = alignment.gradient_shift(stage, images, 8, 0 * second)
    assert np.isnan(nothing[:4]).all() and nothing[4:] == (0, 0)
    assert alignment.gradient_shift(stage, images[:0], 8)[4:] == (0, 0)


def test_the_standard_error_is_that_of_independent_images():
    """Two taps, one per image: mean 2, and the spread of two values of 0 and 4."""
    moments, mass = np.array([[0.0, 0.0], [4.0, 8.0]]), np.ones(2)
    shift = alignment._shift(moments, mass, mass)
    assert shift[:2] == (2, 4) and shift.se_rows == pytest.approx(8**0.5 / 2) and shift.cells == 2
    assert np.isnan(alignment._shift(moments[:1], mass[:1], mass[:1]).se_rows)


def test_windows_are_parts_of_the_mirrored_plane():
    image = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4)
    plane = np.pad(image[0, 0], ((0, 3), (0, 4)), mode="symmetric")
    plane = np.tile(plane, (3, 3))
    seen = set()
    for seed in range(60):
        window = alignment.windows(image, 5, np.random.default_rng(seed))[0, 0]
        places = [(r, c) for r in range(6) for c in range(8) if np.array_equal(plane[r : r + 5, c : c + 5], window)]
        assert places
        seen.update(places)
    assert len(seen) > 30  # any offset, not only one
    two = alignment.windows(np.concatenate([image, image]), 5, np.random.default_rng(0))
    assert two.shape == (2, 1, 5, 5) and not np.array_equal(*two)


def test_a_field_that_a_window_cuts_is_an_error(images):
    def wide(x):
        return F.avg_pool2d(x, 65, 8, padding=32)

    with pytest.raises(ValueError, match="wider than a window of 9 cells"):
        alignment.gradient_shift(wide, images, 8)
    with pytest.raises(ValueError, match="wider than a window of 7 cells"):
        alignment.occlusion_shift(wide, images, 8, reach=3)
    assert abs(alignment.gradient_shift(wide, images, 8, reach=5).rows) < 1e-6
    with pytest.raises(ValueError, match=r"9 cells of 4 pixels gave \(5, 5\) cells; wrong stride"):
        alignment.gradient_shift(tap(8, 0, 0), images, 4)


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        alignment.stage_of(YNet(QUICK, 2).train(), 5)


# --- one network, and the command ------------------------------------------------------------------------------------

SMALL = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}


def small(method="ynet", **changes):
    return Config.from_preset("quick", "phantom", method, **SMALL, **changes)


@pytest.fixture(scope="module")
def phantom():
    return load_cases(small()).split(1)


def untrained(cfg, cases, seed=0):
    torch.manual_seed(seed)
    model = YNet(cfg, len(cases.class_names), len(cases.mask_names)).eval()
    return Checkpoint(model, cfg, cases.fingerprint, cases.class_names, cases.mask_names)


def test_measure_holds_every_stage_and_looks_at_no_outline(phantom):
    database, queries = phantom
    cfg = small()
    checkpoint = untrained(cfg, database)
    found = alignment.measure(cfg, checkpoint, database, queries)
    known = found.set_index(["weights", "level", "measure"])
    # lesion-weighted pooling of C3 and C4: no gradient from C5 to the code
    every = [("trained", 4, m) for m in ("gradient", "occlusion", "frame", "map")]
    every += [(w, level, m) for w, level in (("trained", 5), ("random", 4), ("random", 5)) for m in every_measure()]
    assert set(known.index) == set(every) and not found.isna().any().any()
    assert known.loc["trained", 4, "gradient"]["stride"] == 8 and known.loc["trained", 5, "gradient"]["stride"] == 16
    # one backward pass per cell of the frame: a third of the images
    assert (found["n_images"] == np.where(found["measure"] == "frame", len(queries.ids[::3]), len(queries))).all()
    blind = replace(queries, masks=np.zeros_like(queries.masks), has_mask=np.zeros(len(queries), bool))
    pd.testing.assert_frame_equal(alignment.measure(cfg, checkpoint, database, blind), found)

    twin = small("ynet-no-seg")
    found = alignment.measure(twin, untrained(twin, database), database, queries)
    assert set(found["weights"]) == {"trained"} and (found["measure"] == "map").sum() == 2


def every_measure():
    return ("gradient", "occlusion", "frame")


def test_the_map_measure_takes_the_weights_of_the_own_class(phantom):
    database, queries = phantom
    cfg = small("ynet-no-seg")
    checkpoint = untrained(cfg, database)
    codes = encode_floats(checkpoint.model, cfg, database)["code"]
    some = database.labels != 1
    weights = alignment._own_class_weights(
        checkpoint.model, cfg, queries.images, queries.labels, codes[some], database.labels[some], 5
    )
    row = int(np.flatnonzero(queries.labels == 2)[0])
    target = attribution.class_score(codes[some], database.labels[some], 2)
    alone = attribution.channel_weights(checkpoint.model, cfg, queries.images[[row]], target, 5)[0]
    torch.testing.assert_close(weights[row], alone, rtol=1e-4, atol=1e-7)
    assert weights.any(1).tolist() == (queries.labels != 1).tolist()


def test_the_command_measures_what_is_stored_once(tmp_path, monkeypatch, capsys, phantom):
    monkeypatch.setenv("YNET_OUT", str(tmp_path))
    configs = [small(), small("ynet-no-seg"), small().but(variant="confounding=0"), small(seed=3)]
    monkeypatch.setattr("ynet_lite.paper.grids.grid", lambda name: configs)
    database, _ = phantom
    untrained(configs[0], database).save(checkpoint_path(configs[0], database))
    command = ["--grid", "phantom", "--folder", str(tmp_path / "results")]
    assert alignment.main(command) == 0
    said = capsys.readouterr().out
    assert f"{provenance.run_id(configs[0])} in " in said and f"{provenance.run_id(configs[1])}: skipped, no checkpoint" in said
    assert said.count("\n") == 2
    rows = alignment.read_rows(tmp_path / "results")
    assert list(rows) == alignment.COLUMNS and set(rows["run_id"]) == {provenance.run_id(configs[0])}
    assert rows["config_hash"].unique().tolist() == [configs[0].hash()] and rows["fold"].unique().tolist() == [1]
    monkeypatch.setattr(alignment, "measure", lambda *args: pytest.fail("a measured run was repeated"))
    assert alignment.main(command) == 0


def test_no_rows_no_section(tmp_path):
    assert list(alignment.read_rows(tmp_path)) == alignment.COLUMNS
    assert alignment.text(alignment.read_rows(tmp_path)) == ""


# --- what the rows say -----------------------------------------------------------------------------------------------


def test_the_section_by_hand():
    def row(method, seed, measure, down, right, weights="trained", stride=9):
        about = dict.fromkeys(alignment.COLUMNS, 0) | {"run_id": f"{method}-{seed}", "dataset": "phantom", "preset": "quick"}
        about |= {"method": method, "seed": seed, "measure": measure, "weights": weights, "level": 5, "stride": stride}
        return about | {"shift_rows": down, "shift_columns": right, "se_rows": 0.4, "se_columns": 0.8}

    rows = pd.DataFrame(
        [
            row("ynet", 0, "gradient", 1, 2),
            row("ynet", 1, "gradient", 0, 3),
            row("ynet", 0, "frame", 4, 3),
            row("ynet-no-seg", 0, "occlusion", -1, 0),
            row("ynet", 0, "gradient", 0.2, -0.1, "random"),
            row("ynet", 0, "frame", 1, 2, "random"),
        ]
    )
    # half a pixel of stride 9 is 4; (4, 3) lies nearer to (4, 4) than to (0, 0)
    assert alignment.shares(rows)["nearer"].tolist() == [True, True, False, True, True, True]
    assert alignment.shares(rows)["right"].tolist() == [0.5, 0.75, 0.75, 0, -0.025, 0.5]
    table = alignment.table(rows)
    assert table["gradient"].tolist() == ["+0.5, +2.5", "-", "+0.2, -0.1"]
    assert table["occlusion"].tolist() == ["-", "-1.0, +0.0", "-"]
    assert table["network"].tolist() == ["Y-Net (ours)", "twin: no segmentation", "random weights"]
    assert table["runs"].tolist() == [2, 1, 1] and set(table["half a pixel"]) == {"4.0"}
    said = alignment.text(rows)
    assert "3 of 3 places on windows, and 0 of 1 in the frame" in said
    assert "average 0.00 down and 0.42 right; the largest is 0.75 along one axis, the largest standard error 0.20." in said
    assert "windows are off by 0.05 at most, but the frame by 0.38 on average" in said
    assert "random" not in alignment.text(rows[rows["weights"] == "trained"]).split("A place")[1]


def test_the_committed_rows_support_the_rule():
    """`attribution.AUTO` is what was measured, for both methods of every set and by every measure on windows."""
    rows = alignment.read_rows()
    assert {"ynet", "ynet-no-seg"} == set(rows["method"]) and {"phantom", "busbra"} == set(rows["dataset"])
    assert not rows["dirty"].astype(bool).any(), "a row was made by code that no commit holds"
    whole = rows[(rows["weights"] == "trained") & (rows["measure"] != "frame")]
    assert attribution.AUTO == "receptive-field" and alignment.shares(whole)["nearer"].all()
