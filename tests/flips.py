"""How many bits of a code flip when tissue is exchanged, counted slowly from the definition."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ynet_lite.paper.ambiguity import exchange


def slow_flips(encode, images, masks, donor_images, donor_masks, reference) -> pd.DataFrame:
    """A row per image: bits_background, bits_lesion, bits_control, and flips_*: divided by the mean distance of a pair.

    ``encode``: uint8 images (N, C, H, W) -> real codes (N, K), bits by sign. ``reference``: real codes (M, K).
    """
    bits = np.asarray(reference) >= 0
    pairs = [np.count_nonzero(bits[i] != bits[j]) for i in range(len(bits)) for j in range(i)]
    before, table = encode(images) >= 0, {}
    for name, function, donors in (
        ("background", exchange.replace_background, (donor_images, donor_masks)),
        ("lesion", exchange.replace_lesion, (donor_images, donor_masks)),
        ("control", exchange.replace_background, (images, masks)),
    ):
        changed, outlines = function(images, masks, *donors)
        after = encode(changed) >= 0
        table[f"bits_{name}"] = [
            np.count_nonzero(a != b) if outline.any() else np.nan for a, b, outline in zip(after, before, outlines, strict=True)
        ]
    flips = {name.replace("bits", "flips"): np.array(each) / (np.mean(pairs) or np.nan) for name, each in table.items()}
    return pd.DataFrame(table | flips)
