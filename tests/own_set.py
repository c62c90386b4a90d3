"""A small colour set with several masks per case, written to files: what own data may bring."""

from __future__ import annotations

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

DISEASES = ("cyst", "scar", "tumour")
SIDE = 32


def disc(cy: float, cx: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - cy) ** 2 + (x - cx) ** 2 < radius**2


def save_image(path, grey: np.ndarray, kind: str) -> None:
    """Write brightness in [0, 1] as 8 bit grey, 8 bit colour, 16 bit grey or 16 bit colour."""
    if kind == "grey":
        Image.fromarray((255 * grey).astype(np.uint8)).save(path)
    elif kind == "colour":
        Image.fromarray((255 * np.stack([grey, grey**2, 1 - grey], axis=-1)).astype(np.uint8)).save(path)
    elif kind == "deep":
        Image.fromarray((500 + 3000 * grey).astype(np.uint16)).save(path)
    else:
        tifffile.imwrite(path, (60000 * np.stack([grey, grey, grey], axis=-1)).astype(np.uint16), photometric="rgb")


KINDS = (("grey", "png"), ("colour", "png"), ("deep", "png"), ("deep colour", "tif"))


def make_set(folder, seed: int = 0, patients: int = 24, kinds=KINDS) -> pd.DataFrame:
    """Three diseases, two views per patient; masks 0, 1 (organ), 2 (lesion) in up to three files, some empty or unknown."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(2 * patients):
        disease = i // 2 % 3
        organ, lesions = disc(16, 16, 12), [disc(*rng.uniform(11, 21, 2), 3 + disease) for _ in range(i % 3)]
        grey = 0.3 + 0.2 * organ + 0.05 * rng.standard_normal((SIDE, SIDE))
        for lesion in lesions:
            grey = grey + (0.2, -0.2, 0.35)[disease] * lesion
        kind, suffix = kinds[i % len(kinds)]
        save_image(folder / f"{i}.{suffix}", grey.clip(0, 1), kind)
        parts = []
        if i % 5:
            for j, part in enumerate([organ.astype(np.uint8), *(2 * lesion.astype(np.uint8) for lesion in lesions)]):
                parts.append(f"{i}_mask_{j}.png")
                Image.fromarray(part).save(folder / parts[-1])
        rows.append(
            {
                "case_id": f"case {i}",
                "image": f"{i}.{suffix}",
                "mask": ";".join(parts) if i % 10 else "empty",
                "label": DISEASES[disease],
                "group": f"patient {i // 2}",
                "split": "test" if i // 2 % 4 == 3 else "train",
                "finer": f"grade {i // 6 % 2}",
                "mask_names": "background;organ;lesion",
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(folder / "mine.csv", index=False)
    return table
