"""How many bits of a code flip when tissue is exchanged, counted slowly from the definition."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ynet_lite.paper.ambiguity import exchange
from ynet_lite.paper.ambiguity.images import check_masks


def replace_lesion(images, masks, donor_images, donor_masks) -> tuple[np.ndarray, np.ndarray]:
    """Keep each background, exchange the lesion: the donor's, moved and scaled into the box of the lesion it replaces.

    The other half of the study, behind the committed ``flips_lesion``; otherwise as `exchange.replace_background`. An empty mask
    leaves the image as it is, an empty ``donor_masks`` removes the lesion; both return an empty mask.
    """
    found, outlines = np.zeros(images.shape, np.uint8), np.zeros(masks.shape, np.uint8)
    (masks, content), (donor_masks, _) = (check_masks(part, None, masks.shape) for part in (masks, donor_masks))
    for i, inside in enumerate(content):
        mixed = exchange._removed(images[i], masks[i], inside)
        if masks[i].any() and donor_masks[i].any():
            mixed, outlines[i] = exchange._paste(mixed, inside, donor_images[i], donor_masks[i], inside, exchange._box(masks[i]))
        found[i] = np.rint(np.clip(mixed, 0, 255))
    return found, outlines


def slow_flips(encode, images, masks, donor_images, donor_masks, reference) -> pd.DataFrame:
    """A row per image: bits_background, bits_lesion, bits_control, and flips_*: divided by the mean distance of a pair.

    ``encode``: uint8 images (N, C, H, W) -> real codes (N, K), bits by sign. ``reference``: real codes (M, K).
    """
    bits = np.asarray(reference) >= 0
    pairs = [np.count_nonzero(bits[i] != bits[j]) for i in range(len(bits)) for j in range(i)]
    before, table = encode(images) >= 0, {}
    for name, function, donors in (
        ("background", exchange.replace_background, (donor_images, donor_masks)),
        ("lesion", replace_lesion, (donor_images, donor_masks)),
        ("control", exchange.replace_background, (images, masks)),
    ):
        changed, outlines = function(images, masks, *donors)
        after = encode(changed) >= 0
        table[f"bits_{name}"] = [
            np.count_nonzero(a != b) if outline.any() else np.nan for a, b, outline in zip(after, before, outlines, strict=True)
        ]
    flips = {name.replace("bits", "flips"): np.array(each) / (np.mean(pairs) or np.nan) for name, each in table.items()}
    return pd.DataFrame(table | flips)
