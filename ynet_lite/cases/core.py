"""`Cases`: a set of images with masks, labels and patients, as arrays ready for training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

#: Columns of ``table`` that say where in its square an image lies, in pixels.
CONTENT = ("box_top", "box_left", "box_height", "box_width")


@dataclass(frozen=True, eq=False)
class Cases:
    """Images, masks, labels and the manifest rows they came from, all in the same order.

    Attributes
    ----------
    images : uint8 array, shape (N, C, H, W), C = 1 (grey) or 3 (RGB), square, aspect ratio kept by padding.
    masks : uint8 array, shape (N, H, W); 0 is background, ``i`` is ``mask_names[i]``.
    has_mask : bool array, shape (N,). False where no outline is known (which differs from "known to be empty").
    labels : int64 array, shape (N,), index into ``class_names``.
    table : DataFrame, N rows. Always has ``case_id``, ``label`` (class name), ``group`` (patient) and ``fold`` (int) or
        ``split`` ("train" / "test"); may have finer columns (BI-RADS, stage ...).
    finer : names of the columns of ``table`` that refine the class for graded relevance.
    """

    images: np.ndarray
    masks: np.ndarray
    has_mask: np.ndarray
    labels: np.ndarray
    table: pd.DataFrame
    class_names: tuple[str, ...]
    mask_names: tuple[str, ...] = ("background", "lesion")
    finer: tuple[str, ...] = ()
    name: str = "unnamed"
    fingerprint: str = ""

    def __post_init__(self):
        n = len(self.images)
        lengths = {part: len(getattr(self, part)) for part in ("masks", "has_mask", "labels", "table")}
        wrong = {part: length for part, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"Cases: {n} images, but {wrong}; every part needs one entry per image")
        if self.images.ndim != 4 or self.images.shape[1] not in (1, 3) or self.images.dtype != np.uint8:
            raise ValueError(f"Cases: images must be uint8 (N, 1 or 3, H, W), got {self.images.dtype} {self.images.shape}")
        if self.masks.shape != (n, *self.images.shape[2:]):
            raise ValueError(f"Cases: masks must be {(n, *self.images.shape[2:])}, got {self.masks.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> np.ndarray:
        """Case identifiers, str array of shape (N,)."""
        return self.table["case_id"].to_numpy(str)

    @property
    def groups(self) -> np.ndarray:
        """Patient (or near-duplicate cluster) of each case, str array of shape (N,)."""
        return self.table["group"].astype(str).to_numpy(str)

    def box(self, row: int) -> tuple[slice, slice]:
        """Rows and columns of the square at ``row`` that hold the image, without the padding that kept its aspect ratio."""
        if not set(CONTENT) <= set(self.table):
            return tuple(slice(0, side) for side in self.images.shape[2:])
        top, left, height, width = self.table[list(CONTENT)].iloc[row].astype(int)
        return slice(top, top + height), slice(left, left + width)

    def content(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (C, h, w) and mask (h, w) at ``row`` without padding."""
        rows, columns = self.box(row)
        return self.images[row][:, rows, columns], self.masks[row][rows, columns]

    @property
    def content_mask(self) -> np.ndarray:
        """Where the squares hold image and not padding: bool array, shape (N, H, W)."""
        inside = np.zeros(self.masks.shape, bool)
        for row in range(len(self)):
            inside[row][self.box(row)] = True
        return inside

    def take(self, index) -> Cases:
        """The cases at ``index`` (ints or a boolean mask), as a new object."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        arrays = {part: getattr(self, part)[index] for part in ("images", "masks", "has_mask", "labels")}
        return replace(self, **arrays, table=self.table.iloc[index].reset_index(drop=True))

    def split(self, fold: int = 1) -> tuple[Cases, Cases]:
        """``(database, queries)``: queries are the test cases of ``fold`` (or of the ``split`` column), the database all others.

        Raises ``ValueError`` when a patient stands on both sides or when a side is empty.
        """
        if "fold" in self.table:
            test = self.table["fold"].to_numpy() == fold
        elif "split" in self.table:
            test = self.table["split"].to_numpy() == "test"
        else:
            raise ValueError("manifest: needs a column 'fold' (integers) or 'split' ('train' / 'test')")
        shared = sorted(set(self.groups[test]) & set(self.groups[~test]))
        if shared:
            raise ValueError(
                f"{self.name}: {len(shared)} patient(s) stand in both database and queries of fold {fold}: "
                f"{', '.join(shared[:5])}; give all cases of a patient the same fold"
            )
        if test.all() or not test.any():
            there = f"; folds are {sorted(set(self.table['fold'].tolist()))}" if "fold" in self.table else ""
            raise ValueError(
                f"{self.name}: fold {fold} has {int(test.sum())} queries of {len(self)} cases; both sides need cases{there}"
            )
        there, asked = np.unique(self.labels[~test]), self.labels[test]
        lost = asked[~np.isin(asked, there)]
        if len(lost) or len(there) == 1:
            absent = f" ({', '.join(self.class_names[i] for i in np.unique(lost))})" if len(lost) else ""
            text = f"{len(there)} class(es); {len(lost)} queries have no relevant case{absent}"
            warnings.warn(f"{self.name}: the database of fold {fold} has {text}", stacklevel=2)
        return self.take(~test), self.take(test)
