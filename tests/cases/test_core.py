"""Where in its square a case lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np


def test_content_is_the_square_without_its_padding(tiny_cases):
    table = tiny_cases.table.assign(box_top=4, box_left=0, box_height=20, box_width=32)
    table.loc[1, ["box_top", "box_left", "box_height", "box_width"]] = 0, 3, 32, 7
    cases = replace(tiny_cases, table=table)
    assert cases.box(0) == (slice(4, 24), slice(0, 32)) and cases.box(1) == (slice(0, 32), slice(3, 10))
    image, mask = cases.content(1)
    assert np.array_equal(image, cases.images[1, :, :, 3:10]) and np.array_equal(mask, cases.masks[1, :, 3:10])
    inside = cases.content_mask
    assert inside.shape == cases.masks.shape and inside.sum((1, 2))[:2].tolist() == [20 * 32, 32 * 7]
    assert inside[0, 4:24].all() and inside[1, :, 3:10].all()
    # a part keeps its boxes, whatever rows its table had before
    assert cases.take([5, 1]).box(1) == cases.box(1)


def test_without_boxes_all_of_the_square_is_content(tiny_cases):
    partly = replace(tiny_cases, table=tiny_cases.table.assign(box_top=4))
    for cases in (tiny_cases, partly):
        assert cases.content_mask.all() and cases.box(7) == (slice(0, 32), slice(0, 32))
        assert np.array_equal(cases.content(7)[0], cases.images[7])
    assert tiny_cases.take([]).content_mask.shape == (0, 32, 32)
