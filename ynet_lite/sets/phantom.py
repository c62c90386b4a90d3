"""The phantom: ultrasound-like cases made from a seed, ambiguous by construction, with every hidden variable known.

Four invented diseases in three stages. What is seen at first glance, the *manifestation* (margin and echo), is drawn from a
hand-made table, so that the same manifestation occurs in different diseases (SPDD; only the *fine cue* inside the lesion, its
texture and rim, tells which), and a disease changes its manifestation from stage to stage (DPSD).

The tissue around the lesion (the *background*) goes with the disease in the training cases by the dial ``confounding``, and
never in the test cases. Vessels, ducts, lobules that look like small lesions, bright specks, shadow bands, burnt-in text and
caliper crosses carry no information at all.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..cases.core import Cases
from ..cases.loading import BOX, keep, read_cache, resize_cases
from ..config import Data
from .folders import DataSet
from .frames import PhantomStyle, draw

GENERATOR_VERSION = "2"
DISEASES = ("disease A", "disease B", "disease C", "disease D")
STAGES = (1, 2, 3)
BACKGROUNDS = ("fatty lobules", "dense gland", "fibrous bands", "mottled gland")  # index = background id
SIZE = 96  # pixels: the side that the look is made for
BLOCK = 20  # patients per block: every disease five times, one of them test
MIN_CASES = 2 * BLOCK  # a block has at most two views per patient, so this many cases hold every disease in both splits

# (disease, stage) -> ((margin, echo), probability): the first glance
MANIFESTATIONS = {
    ("disease A", 1): ((("smooth", "anechoic"), 0.8), (("smooth", "hypoechoic"), 0.2)),
    ("disease A", 2): ((("smooth", "hypoechoic"), 0.8), (("lobulated", "hypoechoic"), 0.2)),
    ("disease A", 3): ((("lobulated", "hypoechoic"), 0.8), (("lobulated", "anechoic"), 0.2)),
    ("disease B", 1): ((("smooth", "hypoechoic"), 0.8), (("lobulated", "isoechoic"), 0.2)),
    ("disease B", 2): ((("lobulated", "isoechoic"), 0.8), (("spiculated", "isoechoic"), 0.2)),
    ("disease B", 3): ((("spiculated", "isoechoic"), 0.8), (("lobulated", "isoechoic"), 0.2)),
    ("disease C", 1): ((("lobulated", "hypoechoic"), 0.8), (("spiculated", "hypoechoic"), 0.2)),
    ("disease C", 2): ((("spiculated", "hypoechoic"), 0.8), (("lobulated", "hypoechoic"), 0.2)),
    ("disease C", 3): ((("lobulated", "isoechoic"), 0.8), (("spiculated", "hypoechoic"), 0.2)),
    ("disease D", 1): ((("smooth", "anechoic"), 0.8), (("smooth", "isoechoic"), 0.2)),
    ("disease D", 2): ((("smooth", "isoechoic"), 0.8), (("spiculated", "hypoechoic"), 0.2)),
    ("disease D", 3): ((("spiculated", "hypoechoic"), 0.8), (("smooth", "isoechoic"), 0.2)),
}

# The fine cue: (heterogeneous inner texture, bright rim). Diseases that share a manifestation always differ in it.
FINE_CUES = {"disease A": (0, 0), "disease B": (1, 0), "disease C": (0, 1), "disease D": (1, 1)}


def make_phantom(
    n_cases: int = 1000,
    seed: int = 0,
    size: int = SIZE,
    confounding: float = 0.9,
    style: PhantomStyle | None = None,
    *,
    kept: bool = False,
) -> Cases:
    """Make ``n_cases`` ultrasound-like cases; case ``i`` is the same whatever ``n_cases`` is.

    ``P(background = the disease's own)`` is ``confounding + (1 - confounding) / 4`` in the training split and 1/4 in the test
    split. One patient in five is test; patients have one or two views, on the same side of the split.

    ``n_cases`` : at least 40, so that every disease has training and test cases. ``seed`` : integer >= 0. ``size`` : side of the
    images in pixels, 48 to 512; the look is made for 96. ``confounding`` : 0 to 1. ``style`` : difficulty and looks. ``kept`` :
    in a checkout, frames that were drawn before come from `ynet_lite.paths.cache`, and new ones are left there.

    Returns `Cases` with images uint8 (n, 1, size, size), masks uint8 0/1 (n, size, size), never empty, labels 0-3, and a table
    with ``case_id, label, group, split, disease, stage`` (1-3), ``manifestation`` (margin and echo), ``background`` (id as text),
    ``margin, echo, inner, rim, posterior, ambiguous`` (fine cue undecided), ``distractors`` (number of structures drawn),
    ``text, calipers`` (bool) and ``area`` (lesion share of the image). Raises ``ValueError`` for an argument outside its range.

    Same pixels whatever the BLAS kernels, vector instructions and threads: everything is drawn in double precision and rounded
    to grey levels once, so that last bits cannot be seen. In single precision one pixel in a million differed by one grey level,
    which moved the mAP of a short training by six hundredths.
    """
    style = style or PhantomStyle()
    limits = {"n_cases": (n_cases, MIN_CASES, 1_000_000), "seed": (seed, 0, 2**63 - 1), "size": (size, 48, 512)}
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"make_phantom: {name} must be an integer from {low} to {high}, got {value!r}")
    number = isinstance(confounding, int | float | np.number) and not isinstance(confounding, bool)
    if not number or not 0 <= confounding <= 1:
        raise ValueError(f"make_phantom: confounding must be a number from 0 to 1, got {confounding!r}")
    rows = _plan(n_cases, seed, confounding, style)
    parameters = {"n_cases": int(n_cases), "seed": int(seed), "size": int(size), "confounding": float(confounding)}
    text = json.dumps({"version": GENERATOR_VERSION, **parameters, "style": asdict(style)}, sort_keys=True)
    about = (rows, seed, size, style)
    drawn = _kept_frames(text, *about) if kept and paths.in_checkout() else _frames(*about)
    images, masks = drawn.pop("images"), drawn.pop("masks")
    table = pd.DataFrame(rows).assign(**drawn)
    labels = np.array([DISEASES.index(disease) for disease in table["disease"]], np.int64)
    about = {"finer": ("manifestation", "stage"), "name": "phantom", "fingerprint": hashlib.sha256(text.encode()).hexdigest()}
    return Cases(images[:, None], masks, np.ones(n_cases, bool), labels, table, DISEASES, **about)


def sharing_diseases() -> dict[str, tuple[str, ...]]:
    """Manifestation name -> diseases in which it occurs, from the table ``MANIFESTATIONS``."""
    pairs = {(" ".join(look), disease) for (disease, _), options in MANIFESTATIONS.items() for look, _ in options}
    seen: dict[str, tuple[str, ...]] = {}
    for name, disease in sorted(pairs):
        seen[name] = (*seen.get(name, ()), disease)
    return seen


def _plan(n_cases: int, seed: int, confounding: float, style: PhantomStyle) -> list[dict]:
    """The rows of the table: patients in order, one or two views each, until ``n_cases`` are reached."""
    shared = {name for name, diseases in sharing_diseases().items() if len(diseases) > 1}
    rows: list[dict] = []
    patient = 0
    while len(rows) < n_cases:
        if patient % BLOCK == 0:
            slots = np.random.default_rng([seed, 0, patient]).permutation(BLOCK)
        slot = slots[patient % BLOCK]
        rng = np.random.default_rng([seed, 2, patient])
        disease, test = int(slot) % len(DISEASES), slot < len(DISEASES)
        views = 2 if rng.random() < style.second_view else 1
        stage = int(rng.integers(1, len(STAGES) + 1))
        options = MANIFESTATIONS[DISEASES[disease], stage]
        look = options[rng.choice(len(options), p=[p for _, p in options])][0]
        own, other = rng.random() < confounding, int(rng.integers(len(BACKGROUNDS)))
        margin, echo = look
        ambiguous = bool(rng.random() < style.ambiguous) and " ".join(look) in shared
        posterior = "enhancement" if echo == "anechoic" else "shadow" if margin == "spiculated" else "none"
        inner, rim = FINE_CUES[DISEASES[disease]]
        about = {
            "label": DISEASES[disease],
            "group": f"p{patient:04d}",
            "split": "test" if test else "train",
            "disease": DISEASES[disease],
            "stage": stage,
            "manifestation": " ".join(look),
            "background": str(disease if own and not test else other),
            "margin": margin,
            "echo": echo,
            "inner": ("homogeneous", "heterogeneous")[inner],
            "rim": ("none", "bright")[rim],
            "posterior": posterior if rng.random() < style.posterior else "none",
            "ambiguous": ambiguous,
        }
        rows += [{"case_id": f"p{patient:04d}-{view}", **about} for view in range(1, views + 1)]
        patient += 1
    return rows[:n_cases]


#: What is known of a frame only when it was drawn, beside its pixels.
DRAWN = {"distractors": np.int64, "text": bool, "calipers": bool, "area": np.float64}


def _frames(rows: list[dict], seed: int, size: int, style: PhantomStyle) -> dict[str, np.ndarray]:
    """Images and masks, uint8 (n, size, size), and the columns of `DRAWN`."""
    frames = [draw(row, np.random.SeedSequence([seed, 1, i]), size, style) for i, row in enumerate(rows)]
    images, masks, drawn = zip(*frames, strict=True)
    columns = {name: np.array([one[name] for one in drawn], kind) for name, kind in DRAWN.items()}
    return {"images": np.stack(images), "masks": np.stack(masks)} | columns


def _kept_frames(text: str, rows: list[dict], seed: int, size: int, style: PhantomStyle) -> dict[str, np.ndarray]:
    """`_frames` by way of the cache, under a key made of ``text`` (all parameters), the code and NumPy's version."""
    code = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("phantom.py", "frames.py"))
    key = hashlib.sha256(code + f"{text} {np.__version__}".encode()).hexdigest()[:16]
    path, square = paths.cache() / f"phantom-{size}-{key}.npz", np.zeros((len(rows), size, size), np.uint8)
    like = {"images": square, "masks": square} | {name: np.zeros(len(rows), kind) for name, kind in DRAWN.items()}
    arrays = read_cache(path, like)
    if arrays is None:
        arrays = _frames(rows, seed, size, style)
        keep(path, lambda file: np.savez_compressed(file, **arrays))
    return arrays


def load(cfg: Data) -> Cases:
    """The phantom that ``cfg`` describes, drawn from ``cfg.seed`` and resized; the table holds the box of the content."""
    cases = make_phantom(n_cases=cfg.phantom_cases, seed=cfg.seed, size=SIZE, confounding=cfg.confounding, kept=True)
    table = cases.table.assign(**dict(zip(BOX, (SIZE, SIZE, 0, 0, cfg.size, cfg.size), strict=True)))
    return resize_cases(replace(cases, table=table), cfg.size, cfg.channels)


PHANTOM = DataSet("phantom", "phantom", load, drawn=True)
