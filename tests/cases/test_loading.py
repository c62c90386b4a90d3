"""Reading, fitting into squares, and the cache, on small files made here."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from ynet_lite import paths
from ynet_lite.cases import loading
from ynet_lite.cases.formats import read_image, read_mask
from ynet_lite.cases.loading import letterbox, load_table
from ynet_lite.cases.manifest import ManifestError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))


def save(path, array, mode=None, **settings):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **settings)
    return path


# ---- images


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_grey_files_keep_their_values(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}", GREY)
    one, three = read_image(path, 1), read_image(path, 3)
    assert one.dtype == np.uint8 and one.shape == (1, 20, 30)
    assert (one[0] == GREY).all() and (three == GREY[None]).all() and three.shape == (3, 20, 30)


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_colour_files(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}", COLOUR)
    assert (read_image(path, 3) == COLOUR.transpose(2, 0, 1)).all()
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(path, 1)[0] - luminance).max() <= 1


def test_jpeg_is_close(tmp_path):
    smooth = np.add.outer(np.arange(0, 200, 5), np.arange(0, 50)).astype(np.uint8)
    path = save(tmp_path / "x.jpg", smooth, quality=95)
    assert np.abs(read_image(path, 1)[0].astype(int) - smooth).max() <= 4


def test_orientation_of_a_photograph_is_applied(tmp_path):
    image = Image.fromarray(np.full((8, 16), 90, np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg", 1).shape == (1, 16, 8)


def test_one_bit_palette_and_transparency(tmp_path):
    bits = GREY > 127
    save(tmp_path / "one.png", bits)
    assert (read_image(tmp_path / "one.png", 1)[0] == bits * 255).all()
    save(tmp_path / "p.png", COLOUR // 64 * 64, "P")
    assert read_image(tmp_path / "p.png", 3).shape == (3, 20, 30)
    alpha = np.dstack([COLOUR, GREY])
    save(tmp_path / "a.png", alpha)
    assert (read_image(tmp_path / "a.png", 3) == COLOUR.transpose(2, 0, 1)).all()
    save(tmp_path / "la.png", np.dstack([GREY, 255 - GREY]))
    assert (read_image(tmp_path / "la.png", 1)[0] == GREY).all()


def scaled(values, white):
    """round(255 x / white) in exact fractions, halves up."""
    return [[int(Fraction(255 * int(x), white) + Fraction(1, 2)) for x in row] for row in values]


@pytest.mark.parametrize(("kind", "top", "bits"), [("png", 4095, 12), ("tif", 4095, 12), ("png", 1000, 10), ("tif", 65535, 16)])
def test_sixteen_bit_grey_counts_by_the_bits_that_it_uses(tmp_path, kind, top, bits):
    values = RNG.integers(0, top, (20, 30)).astype(np.uint16)
    values[0, 0] = top
    path = save(tmp_path / f"x.{kind}", values)
    assert read_image(path, 1)[0].tolist() == scaled(values, 2**bits - 1)
    assert (read_image(path, 3) == read_image(path, 1)).all()
    save(tmp_path / "few.png", (values % 256).astype(np.uint16))
    assert (read_image(tmp_path / "few.png", 1)[0] == values % 256).all()  # 8 bits in 16: as they are


def deep_png(array, colour):
    """A PNG of 16 bits, colour type 2 (RGB), 4 (grey and alpha) or 6 (RGBA), written with the filter "sub"."""
    samples = array.astype(">u2").reshape(len(array), -1).view(np.uint8)
    step = array.shape[2] * 2
    before = np.pad(samples, ((0, 0), (step, 0)))[:, : samples.shape[1]]
    body = b"".join(b"\1" + row.tobytes() for row in samples - before)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize("kind", ["tif", "png", "png with alpha", "grey png with alpha", "deflate"])
def test_sixteen_bit_colours_are_not_cut_to_their_upper_half(tmp_path, kind):
    values = RNG.integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    values[0, 0] = 4095
    path = tmp_path / ("x.tif" if kind in ("tif", "deflate") else "x.png")
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="rgb", compression="zlib" if kind == "deflate" else None)
    else:
        alpha = np.full((20, 30, 1), 65535, np.uint16)
        values = np.repeat(values[..., :1], 3, 2) if "grey" in kind else values
        stored = {"png": values, "png with alpha": np.dstack([values, alpha])}.get(kind, np.dstack([values[..., :1], alpha]))
        path.write_bytes(deep_png(stored, {3: 2, 4: 6, 2: 4}[stored.shape[2]]))
    assert read_image(path, 3).tolist() == [scaled(values[..., c], 4095) for c in range(3)]


def test_a_set_has_one_grey_range(tmp_path):
    bright, dark = (RNG.integers(0, top, (20, 30)).astype(np.uint16) for top in (4096, 200))
    bright[0, 0] = 4095
    for name, values in (("bright", bright), ("dark", dark)):
        save(tmp_path / f"{name}.png", values)
    rows = {"case_id": ["a", "b"], "image": ["bright.png", "dark.png"], "label": ["x", "y"], "group": ["1", "2"], "fold": [1, 2]}
    with pytest.warns(UserWarning) as said:
        images = load_table(pd.DataFrame({**rows, "mask": ""}), name="two", size=30, folder=tmp_path).images
        save(tmp_path / "dark.png", dark * 0 + 7)
        load_table(pd.DataFrame({**rows, "mask": ""}), name="two", size=30, folder=tmp_path)
    assert images[1, 0, 5:25].tolist() == scaled(dark, 4095)
    assert len(said) == 1 and "1 image(s) (nearly) constant" in str(said[0].message) and "row 3 dark.png" in str(said[0].message)


@pytest.mark.parametrize("side", [20, 30])
def test_pictures_without_content_are_not_the_same_picture(tmp_path, side):
    for name, values in zip(
        "abcd", (np.full((side, 30), 7), np.full((side, 30), 7), *RNG.integers(0, 255, (2, side, 30))), strict=True
    ):
        save(tmp_path / f"{name}.png", values.astype(np.uint8))
    rows = {"case_id": list("abcd"), "image": [f"{name}.png" for name in "abcd"], "label": list("xyxy"), "group": list("1234")}
    with pytest.warns(UserWarning, match="2 image.*constant"):
        load_table(pd.DataFrame({**rows, "fold": [1, 2, 1, 2], "mask": ""}), name="four", size=30, folder=tmp_path)
    save(tmp_path / "d.png", np.asarray(Image.open(tmp_path / "c.png")))
    with pytest.raises(ManifestError, match="1 pair.*c and d"):
        load_table(pd.DataFrame({**rows, "fold": [1, 2, 1, 2], "mask": ""}), name="four", size=30, folder=tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "tif of 16 bit colours"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_tag_is_applied_in_every_format(tmp_path, kind, tag):
    upright = np.kron(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), np.ones((16, 16), np.uint8))
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T}
    turned |= {6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}
    stored, path = np.ascontiguousarray(turned[tag]), tmp_path / f"x.{kind[:3]}"
    if kind.startswith("tif"):
        deep = kind != "tif"
        array = np.stack([stored] * 3, -1).astype(np.uint16) * 257 if deep else stored
        tifffile.imwrite(path, array, photometric="rgb" if deep else "minisblack", extratags=[(274, 3, 1, tag, True)])
    else:
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(stored).save(path, exif=exif)
    for source in (path, path.read_bytes(), path.open("rb")):
        assert np.abs(read_image(source, 1)[0].astype(int) - upright).max() <= 4
    if kind == "tif":
        save(path, (stored > 100).astype(np.uint8), tiffinfo={274: tag})
        assert (read_mask(path) == (upright > 100)).all()


def test_floats_and_signed_numbers_have_a_rule(tmp_path):
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    image = read_image(save(tmp_path / "f.tif", values), 1)[0]
    assert image.min() == 0 and image.max() == 255 and (np.diff(image.ravel().astype(int)) >= 0).all()
    half = read_image(save(tmp_path / "h.tif", np.full((4, 4), 0.5, np.float32)), 1)
    assert (half == 128).all()
    tifffile.imwrite(tmp_path / "s.tif", np.array([[-1023, 0], [0, 1023]], np.int16))
    assert read_image(tmp_path / "s.tif", 1)[0].tolist() == [[0, 128], [128, 255]]
    values[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        read_image(save(tmp_path / "n.tif", values), 1)


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    whole = save(tmp_path / "whole.png", GREY).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nothing.png").write_bytes(b"")
    for name in ("text.png", "cut.png", "nothing.png", "missing.png"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name, 1)
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="2 pages"):
        read_image(tmp_path / "two.tif", 1)
    with pytest.raises(ValueError, match="channels"):
        read_image(tmp_path / "whole.png", 2)


# ---- masks

SPOT = np.zeros((20, 30), np.uint8)
SPOT[5:12, 8:20] = 1


@pytest.mark.parametrize(
    "array",
    [
        SPOT.astype(bool),
        SPOT,
        SPOT * 255,
        np.dstack([SPOT * 255] * 3),
        np.dstack([SPOT * 255] * 3 + [np.full_like(SPOT, 255)]),
        np.dstack([SPOT * 255, np.full_like(SPOT, 7)]),
        SPOT.astype(np.uint16) * 65535,
        SPOT.astype(np.uint16),
    ],
    ids=["1 bit", "0/1", "0/255", "RGB", "RGBA", "LA", "16 bit", "16 bit 0/1"],
)
def test_mask_conventions(tmp_path, array):
    mask = read_mask(save(tmp_path / "m.png", array))
    assert mask.dtype == np.uint8 and (mask == SPOT).all()


def test_empty_and_full_masks(tmp_path):
    assert not read_mask(save(tmp_path / "e.png", SPOT * 0)).any()
    assert read_mask(save(tmp_path / "f.png", np.full((4, 4), 255, np.uint8))).all()
    assert read_mask(save(tmp_path / "g.png", np.full((4, 4), 1, np.uint8))).all()


def test_palette_masks(tmp_path):
    black_white = Image.fromarray(1 - SPOT).convert("P")  # index 1 is black here, index 0 white
    indices = Image.new("P", (30, 20))
    indices.putdata((1 - SPOT).ravel().tolist())
    indices.putpalette([255, 255, 255, 0, 0, 0])
    indices.save(tmp_path / "bw.png")
    assert (read_mask(tmp_path / "bw.png") == SPOT).all()
    classes = Image.new("P", black_white.size)
    classes.putdata((SPOT * 2).ravel().tolist())
    classes.putpalette([0, 0, 0, 0, 200, 0, 200, 0, 0])
    classes.save(tmp_path / "c.png")
    assert (read_mask(tmp_path / "c.png", 3) == SPOT * 2).all()


def test_soft_and_lossy_masks_are_cut_at_128(tmp_path):
    big = np.kron(SPOT, np.ones((8, 8), np.uint8)) * 255
    soft = np.asarray(Image.fromarray(big).resize((235, 155), Image.Resampling.BILINEAR))
    assert len(np.unique(soft)) > 2
    assert (read_mask(save(tmp_path / "s.png", soft)) == (soft >= 128)).all()
    save(tmp_path / "m.jpg", big, quality=60)
    stored = np.asarray(Image.open(tmp_path / "m.jpg"))
    assert (read_mask(tmp_path / "m.jpg") == (stored >= 128)).all()
    assert (read_mask(tmp_path / "m.jpg") != big // 255).mean() < 0.01


@pytest.mark.parametrize(
    ("values", "classes", "named"),
    [
        ([0, 1, 2], 2, "2"),
        ([0, 1, 2, 255], 2, "2, 255"),
        ([0, 1, 255], 2, "255"),
        ([0, 128], 2, "128"),
        ([0, 1, 3], 3, "3"),
        ([0, 255], 3, "255"),
        (list(range(0, 256, 5)), 2, "5, 10, 15, 20, 25 and"),
    ],
)
def test_values_outside_the_declared_classes_are_named(tmp_path, values, classes, named):
    array = np.resize(np.array(values, np.uint8), (16, 16))
    with pytest.raises(ValueError, match="outside the") as caught:
        read_mask(save(tmp_path / "m.png", array), classes)
    assert named in str(caught.value) and "m.png" in str(caught.value)


def test_declared_classes_are_kept(tmp_path):
    array = np.resize(np.array([0, 1, 2, 3], np.uint8), (16, 16))
    assert (read_mask(save(tmp_path / "m.png", array), 4) == array).all()


def test_coloured_mask_is_refused(tmp_path):
    with pytest.raises(ValueError, match="coloured"):
        read_mask(save(tmp_path / "m.png", np.dstack([SPOT * 255, SPOT * 0, SPOT * 0])))


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (SPOT * 128, ("0", "128", "255")),
        (np.dstack([SPOT * 255, SPOT * 0, SPOT * 0]), ("#000000", "#ff0000")),
        (255 - SPOT * 255, ("#ffffff", "#000000")),
    ],
)
def test_values_that_the_manifest_declares(tmp_path, array, values):
    path = save(tmp_path / "m.png", array)
    assert (read_mask(path, len(values), values) == SPOT).all()
    with pytest.raises(ValueError, match="m.png: mask values that mask_values"):
        read_mask(path, 2, ("1", "2") if "#" not in values[0] else ("#010203", "#000000"))


def test_masks_that_are_painted_on_a_transparent_layer(tmp_path):
    for paint in (0, 255):
        path = save(tmp_path / "m.png", np.dstack([np.full((*SPOT.shape, 3), paint, np.uint8), 255 * SPOT]))
        assert (read_mask(path) == SPOT).all()
    seen = np.dstack([np.dstack([255 * SPOT[::-1]] * 3), 255 * SPOT])
    with pytest.raises(ValueError, match="m.png: .*transparent part"):
        read_mask(save(tmp_path / "m.png", seen))


def test_a_png_that_was_a_jpeg_is_cut_at_128(tmp_path):
    y, x = np.mgrid[:60, :80]
    disc = (y - 30) ** 2 + (x - 25) ** 2 < 150
    for quality in (30, 95):
        save(tmp_path / "m.jpg", (255 * disc).astype(np.uint8), quality=quality)
        mask = read_mask(save(tmp_path / "m.png", np.asarray(Image.open(tmp_path / "m.jpg"))))
        assert (mask != disc).mean() < 0.01


def test_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path):
    tiles = (np.zeros((512, 512), np.uint8) for _ in range(30**2))
    settings = dict(dtype=np.uint8, tile=(512, 512), compression="zlib", photometric="minisblack")
    tifffile.imwrite(tmp_path / "x.tif", tiles, shape=(15000, 15000), **settings)
    Image.new("1", (15000, 15000)).save(tmp_path / "x.png")
    for name in ("x.tif", "x.png"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name, 1)
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(ValueError, match="script.png"):
        read_image(tmp_path / "script.png", 1)


# ---- letterbox


def test_letterbox_keeps_the_aspect_ratio():
    image = np.full((1, 30, 60), 200, np.uint8)
    square, box = letterbox(image, 32)
    assert square.shape == (1, 32, 32) and box == (8, 0, 16, 32)
    assert (square[:, 8:24] == 200).all() and not square[:, :8].any() and not square[:, 24:].any()
    square, box = letterbox(image.transpose(0, 2, 1), 32)
    assert box == (0, 8, 32, 16)
    assert letterbox(np.full((3, 1, 500), 9, np.uint8), 32)[1] == (15, 0, 1, 32)
    enlarged, box = letterbox(np.full((2, 4), 1, np.uint8), 8, mask=True)
    assert box == (2, 0, 4, 8) and enlarged.sum() == 32


def test_letterbox_leaves_a_fitting_square_alone():
    image = RNG.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    square, box = letterbox(image, 16)
    assert (square == image).all() and box == (0, 0, 16, 16)


def test_shrinking_an_image_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))  # single-pixel stripes: sampling would give 0 or 255
    square, _ = letterbox(stripes, 8)
    assert np.abs(square[:, :, 1:-1].astype(int) - 127.5).max() < 20


def area_loop(mask, size):
    """Slow oracle: the class with the largest area in each new pixel, in exact fractions, lower class on a tie."""
    h, w = mask.shape
    out = np.zeros((size, size), np.uint8)
    for i in range(size):
        for j in range(size):
            area = {}
            for y in range(h):
                for x in range(w):
                    dy = min(Fraction((i + 1) * h, size), y + 1) - max(Fraction(i * h, size), y)
                    dx = min(Fraction((j + 1) * w, size), x + 1) - max(Fraction(j * w, size), x)
                    if dy > 0 and dx > 0:
                        area[int(mask[y, x])] = area.get(int(mask[y, x]), 0) + dy * dx
            out[i, j] = min(area, key=lambda value: (-area[value], value))
    return out


@pytest.mark.parametrize("shape", [12, 8, 16])
def test_mask_takes_the_class_of_the_largest_area(shape):
    mask = np.kron(RNG.integers(0, 3, (4, 4)), np.ones((shape // 4, shape // 4), int)).astype(np.uint8)
    mask[1:3, 1:3] = 2
    assert (letterbox(mask, 4, mask=True)[0] == area_loop(mask, 4)).all()


def test_mask_area_survives_shrinking():
    yy, xx = np.mgrid[:400, :300]
    disc = ((yy - 180) ** 2 + (xx - 140) ** 2 < 60**2).astype(np.uint8)
    small, box = letterbox(disc, 64, mask=True)
    assert abs(small.sum() / (box[2] * box[3]) / disc.mean() - 1) < 0.03


def test_letterbox_refuses_other_arrays():
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4)), np.zeros((1, 0, 4), np.uint8)):
        with pytest.raises(ValueError, match="letterbox"):
            letterbox(bad, 8)
    with pytest.raises(ValueError, match="letterbox"):
        letterbox(np.zeros((1, 4, 4), np.uint8), 0)


# ---- a whole table


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    save(place / "a.png", GREY)
    save(place / "b.jpg", COLOUR)
    save(place / "c.tif", GREY.astype(np.uint16) * 16)
    save(place / "d.bmp", COLOUR.transpose(1, 0, 2).copy())
    save(place / "a_m.png", SPOT * 255)
    save(place / "b_1.png", SPOT)
    save(place / "b_2.png", SPOT[::-1].astype(bool))
    return place


def table_of(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "case_id": list("abcd"),
            "image": ["a.png", "b.jpg", "c.tif", "d.bmp"],
            "mask": ["a_m.png", "b_1.png;b_2.png", "", "empty"],
            "label": ["y", "x", "y", "x"],
            "group": ["1", "2", "3", "4"],
            "fold": [1, 1, 2, 2],
            "grade": ["1", "2", "1", "1"],
        }
    )
    return table.assign(**changes)


def load(folder, table=None, **settings):
    settings = {"name": "mine", "size": 30, "channels": 1, "folder": folder, **settings}
    return load_table(table_of() if table is None else table, **settings)


def test_load_table(folder):
    table = table_of()
    before = table.copy()
    cases = load(folder, table, finer=("grade",))
    pd.testing.assert_frame_equal(table, before)
    assert cases.images.shape == (4, 1, 30, 30) and cases.class_names == ("x", "y")
    assert cases.labels.tolist() == [1, 0, 1, 0] and cases.labels.dtype == np.int64
    assert cases.has_mask.tolist() == [True, True, False, True]  # "empty" is known, blank is not
    assert (cases.images[0, 0, 5:25] == GREY).all() and not cases.images[0, 0, :5].any()
    assert (cases.masks[0, 5:25] == SPOT).all()
    assert (cases.masks[1, 5:25] == (SPOT | SPOT[::-1])).all()
    assert not cases.masks[2:].any()
    boxes = cases.table[["height", "width", "box_top", "box_left", "box_height", "box_width"]]
    assert boxes.iloc[0].tolist() == [20, 30, 5, 0, 20, 30] and boxes.iloc[3].tolist() == [30, 20, 0, 5, 30, 20]
    assert cases.finer == ("grade",) and cases.table["image"].tolist() == table["image"].tolist()
    assert load(folder, channels=3).images.shape == (4, 3, 30, 30)


def test_fingerprint_follows_content_not_place_or_size(folder, tmp_path):
    first = load(folder)
    assert load(folder, size=16).fingerprint == first.fingerprint
    other = tmp_path / "elsewhere"
    folder.rename(other)
    assert load(other).fingerprint == first.fingerprint
    absolute = table_of(
        image=[str(other / name) for name in table_of()["image"]],
        mask=[";".join(str(other / p) if "." in p else p for p in cell.split(";")) for cell in table_of()["mask"]],
    )
    moved = load(other, absolute)
    assert moved.fingerprint == first.fingerprint and moved.table["image"].tolist() == table_of()["image"].tolist()
    assert load(other, table_of(group=["1", "2", "3", "5"])).fingerprint != first.fingerprint
    assert load(other, class_names=("y", "x")).fingerprint != first.fingerprint
    swapped = load(other, table_of(mask=["b_1.png;b_2.png", "a_m.png", "", "empty"]))
    assert swapped.fingerprint != first.fingerprint
    save(other / "a_m.png", SPOT[:, ::-1].copy())
    assert load(other).fingerprint != first.fingerprint


def same(one, two) -> bool:
    return (
        (one.images == two.images).all()
        and (one.masks == two.masks).all()
        and (one.has_mask == two.has_mask).all()
        and one.table.equals(two.table)
    )


def test_second_load_reads_only_the_cache(folder, monkeypatch):
    first = load(folder)
    for name in ("open_picture", "read_mask", "sha256"):
        monkeypatch.setattr(loading, name, lambda *args: pytest.fail("a file was read"))
    assert same(first, load(folder))
    left = [path.name for path in paths.cache().iterdir()]
    assert len(left) == 2 and not any(name.endswith(".part") for name in left)


def test_touched_file_is_read_again_but_found_the_same(folder, monkeypatch):
    first = load(folder)
    os.utime(folder / "a.png", (1, 1))
    monkeypatch.setattr(loading, "open_picture", lambda *args: pytest.fail("the cache was not used"))
    assert load(folder).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other shape"])
def test_damaged_cache_is_made_again(folder, damage):
    first = load(folder)
    (stored,) = paths.cache().glob("*.npz")
    content = bytearray(stored.read_bytes())
    if damage == "cut":
        stored.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 3] ^= 255
        stored.write_bytes(content)
    elif damage == "text":
        stored.write_text("nothing")
    else:
        np.savez(stored, images=first.images[:2], masks=first.masks, has_mask=first.has_mask, boxes=first.labels)
    for note in paths.cache().glob("*.json"):
        note.write_text("{")
    assert same(first, load(folder))
    with np.load(stored) as arrays:
        assert (arrays["images"] == first.images).all()


def test_a_cache_folder_that_cannot_be_written_only_warns(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot keep"):
        assert len(load(folder)) == 4


def test_bad_files_give_one_error_by_row_and_no_cache(folder):
    (folder / "a.png").write_text("no image")
    save(folder / "b_2.png", np.zeros((7, 9), np.uint8))
    save(folder / "three.png", SPOT * 3)
    table = table_of(mask=["a_m.png", "b_1.png;b_2.png", "three.png", "empty"])
    with pytest.raises(ManifestError) as caught:
        load(folder, table)
    message = str(caught.value)
    assert "3 of 4 cases" in message
    assert "row 2: " in message and "a.png" in message
    assert "row 3: " in message and "9 x 7 pixels, its image 30 x 20" in message
    assert "row 4: " in message and "outside the 2 declared classes: 3" in message
    assert not list(paths.cache().glob("*.npz"))


def test_changed_files_are_told_by_checksum(folder):
    sums = {name: loading.sha256(folder / name) for name in ("a.png", "b.jpg", "a_m.png")}
    assert len(load(folder, expected=sums)) == 4
    with pytest.raises(ManifestError, match=r"1 file\(s\) differ .* a_m.png"):
        load(folder, expected={**sums, "a_m.png": "0" * 64})


def test_centre_crop_cuts_the_border_of_a_mask(folder):
    wide = np.pad(SPOT, ((3, 4), (10, 10)))
    save(folder / "wide.png", wide)
    table = table_of(mask=["wide.png", "", "", ""])
    with pytest.raises(ManifestError, match="50 x 27"):
        load(folder, table)
    assert (load(folder, table, centre_crop=("wide.png",)).masks[0, 5:25] == SPOT).all()


def test_unknown_class_and_missing_finer_column(folder):
    with pytest.raises(ManifestError, match="row 2 'y'"):
        load(folder, class_names=("x", "z"))
    with pytest.raises(ManifestError, match="colour"):
        load(folder, finer=("colour",))


def test_more_mask_classes(folder):
    save(folder / "a_m.png", SPOT * 2)
    cases = load(folder, mask_names=("background", "disc", "cup"))
    assert set(np.unique(cases.masks[0])) == {0, 2} and cases.mask_names[2] == "cup"
