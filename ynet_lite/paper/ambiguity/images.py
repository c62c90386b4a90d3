"""Images, outlines and content that `exchange` takes, checked.

Squares of real images are padded with black. Where a function takes ``content`` (bool (N, H, W), True where the square holds
image, see `Cases.content_mask`; None = everywhere), pixels of the padding count neither as lesion nor as background.
"""

import numpy as np

from ... import overlap


def check_images(images, what: str = "images") -> np.ndarray:
    """uint8 (N, 1 or 3, H, W), or ``ValueError``."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(f"{what}: must be uint8 (N, 1 or 3, H, W), got {images.dtype} {images.shape}")
    return images


def check_masks(masks, content, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lesion inside the content, and the content; bool (N, H, W) each. ``ValueError`` where they do not fit ``shape``."""
    masks = overlap.mask_stack(masks, "masks")
    content = np.ones(shape, bool) if content is None else overlap.mask_stack(content, "content")
    for what, part in (("masks", masks), ("content", content)):
        if part.shape != shape:
            raise ValueError(f"{what}: shape {part.shape}, but {shape} is needed: one per image, of its height and width")
    empty = np.flatnonzero(~content.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(f"content: {len(empty)} image(s) without any pixel, first rows {empty[:5].tolist()}")
    return masks & content, content
