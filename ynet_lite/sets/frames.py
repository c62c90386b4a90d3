"""One frame of the phantom: how lesion, tissue, speckle and what misleads are drawn."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class PhantomStyle:
    """Difficulty and looks of the phantom. Decibels are relative to the tissue, lengths are shares of the side."""

    # --- what decides the disease
    cue_strength: float = 1.2  # scales inner texture and rim together
    inner_db: float = 11.0  # amplitude of the heterogeneous inner texture
    rim_db: float = 12.0  # brightness of the rim above the surrounding tissue level
    rim_width: float = 0.035
    ambiguous: float = 0.10  # share of cases with a shared manifestation that get an undecided fine cue (half strength)
    # --- what shows the lesion
    lesion_contrast: float = 1.0  # scales the three echo levels
    anechoic_db: float = -17.0
    hypoechoic_db: float = -9.5
    isoechoic_db: float = -5.0
    area_min: float = 0.07
    area_max: float = 0.23
    posterior: float = 0.7  # share of anechoic (enhancement) and spiculated (shadow) lesions that show it
    # --- what misleads
    background_contrast: float = 0.8  # scales everything that tells the background types apart
    speckle_contrast: float = 0.42  # 1 = fully developed Rayleigh speckle, 0 = none
    distractor_rate: float = 1.0  # scales the mean number of lobules, vessels, ducts and specks
    lobules: float = 0.5  # mean number of small lesion-like lumps; their fine cue is independent of the disease
    vessels: float = 0.7
    ducts: float = 0.6
    specks: float = 0.6
    shadow_bands: float = 0.35
    text: float = 0.55  # share of cases
    calipers: float = 0.5
    wedge: float = 0.25
    second_view: float = 0.5  # share of patients with two views


def draw(row: dict, sequence: np.random.SeedSequence, size: int, style: PhantomStyle):
    """One frame: image uint8 (size, size), mask uint8, and what was drawn besides the lesion.

    Every component has its own random stream, so that more text or more distractors never move the lesion.
    """
    shape, tissue, inside, others, speckle, marks = map(np.random.default_rng, sequence.spawn(6))
    lesion = _lesion_shape(shape, row["margin"], size, style)
    mask = lesion["depth"] > 0
    alpha = _edge(lesion["depth"] * (55 if row["margin"] == "spiculated" else 96))  # a spiculated margin is blurred

    level, beam = _background(tissue, int(row["background"]), size, style)
    local = float(np.clip(level[mask].mean(), -5.0, 4.0))
    level, bands, count = _distractors(others, level, lesion, style)
    level = _posterior(level, row["posterior"], lesion, shape)
    level = level + alpha * (_inside(inside, row, lesion, local, size, style) - level)
    level = level + beam + bands

    # fully developed speckle: complex Gaussian scatterers seen through a beam wider than deep; then log compression
    scale = size / 96
    noise = [speckle.standard_normal((size, size), np.float32).astype(np.float64) for _ in range(2)]
    echo = [_smooth(one, 0.62 * scale, 1.15 * scale) for one in noise]
    power = echo[0] ** 2 + echo[1] ** 2
    power /= power.mean()
    decibel = _smooth(level, 0.45 * scale, 0.7 * scale) + style.speckle_contrast * (10 * np.log10(power + 0.01) + 2.2)
    gain, slope = marks.uniform(64, 108), marks.uniform(4.4, 6.4)
    grey = gain + slope * decibel
    grey = np.where(grey < 24, 24 * np.exp((np.minimum(grey, 24) - 24) / 24), grey)  # soft floor, as displays have
    grey, marked = _marks(marks, np.clip(grey, 0, 235), lesion, mask, size, style)
    drawn = {"distractors": count, **marked, "area": float(mask.mean())}
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8), mask.astype(np.uint8), drawn


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres as shares of the side: y (size, 1), x (1, size)."""
    line = (np.arange(size) + 0.5) / size
    return line[:, None], line[None, :]


@lru_cache(maxsize=256)
def _kernel(size: int, count: int, sigma: float) -> np.ndarray:
    """Matrix (size, count): Gaussian of ``sigma`` pixels over ``count`` samples spread over ``size`` pixels."""
    spread = (np.arange(count) + 0.5) * size / count
    weight = np.exp(-0.5 * ((np.arange(size)[:, None] + 0.5 - spread[None, :]) / sigma) ** 2)
    return weight / weight.sum(1, keepdims=True)


def _smooth(values: np.ndarray, sigma_y: float, sigma_x: float) -> np.ndarray:
    """Separable Gaussian as two matrix products: quicker than a convolution at this size."""
    size = len(values)
    return _kernel(size, size, sigma_y) @ values @ _kernel(size, size, sigma_x).T


def _field(rng: np.random.Generator, size: int, sigma_y: float, sigma_x: float) -> np.ndarray:
    """Smooth random field of mean 0 and deviation 1, drawn on a coarse grid; the sigmas are shares of the side."""
    rows, columns = (min(size, int(np.ceil(1.5 / s)) + 2) for s in (sigma_y, sigma_x))
    noise = rng.standard_normal((rows, columns))
    field = _kernel(size, rows, sigma_y * size) @ noise @ _kernel(size, columns, sigma_x * size).T
    return (field - field.mean()) / (field.std() + 1e-6)


def _edge(t: np.ndarray) -> np.ndarray:
    """Logistic step: 0 far outside, 1 far inside."""
    return 1 / (1 + np.exp(-np.clip(2.2 * t, -30, 30)))


def _bell(t: np.ndarray) -> np.ndarray:
    """1 at 0, falling like a Gaussian."""
    return np.exp(-(t**2))


def _rim(depth: np.ndarray, style: PhantomStyle) -> np.ndarray:
    """Share of the bright rim along the contour ``depth = 0``."""
    return style.cue_strength * _bell((depth - 0.8 * style.rim_width) / style.rim_width)


def _lesion_shape(rng: np.random.Generator, margin: str, size: int, style: PhantomStyle) -> dict:
    """Radial contour (Fourier waves and bumps) of a random area; ``depth`` is the radial distance, inside positive."""
    angle = np.linspace(-np.pi, np.pi, 361)
    wave = rng.uniform(-1, 1, (3, 2))
    flat = rng.uniform(0.5, 0.9) if margin != "spiculated" else rng.uniform(0.8, 1.2)
    tilt = rng.normal(0, 0.3)
    contour = 1 / np.sqrt((np.cos(angle - tilt)) ** 2 + (np.sin(angle - tilt) / flat) ** 2)
    low = sum(w[0] * np.cos(k * angle) + w[1] * np.sin(k * angle) for k, w in zip((2, 3, 4), wave, strict=True))
    lobes, spikes = int(rng.integers(3, 6)), int(rng.integers(8, 13))
    if margin == "smooth":
        contour = contour * (1 + 0.025 * low)
    elif margin == "lobulated":
        contour = contour * (0.85 + 0.04 * low + _bumps(rng, angle, lobes, (0.25, 0.6), (0.32, 0.5)))
    else:
        contour = contour * (0.85 + 0.07 * low + _bumps(rng, angle, spikes, (0.12, 0.55), (0.09, 0.18)))
    contour = np.maximum(contour, 0.25)
    area = np.exp(rng.uniform(np.log(style.area_min), np.log(style.area_max)))
    unit = 0.5 * np.sum(0.5 * (contour[1:] ** 2 + contour[:-1] ** 2)) * (angle[1] - angle[0])
    radius = contour * np.sqrt(area / unit)
    # the whole contour stays between the skin and the lower edge
    down, right = radius * np.sin(angle), radius * np.cos(angle)
    low_y, high_y, low_x, high_x = 0.11 - down.min(), 0.965 - down.max(), 0.06 - right.min(), 0.94 - right.max()
    u, v = rng.uniform(0, 1), rng.beta(1.3, 1.8)
    centre_x = low_x + u * (high_x - low_x) if high_x > low_x else 0.5 * (low_x + high_x)
    centre_y = low_y + v * (high_y - low_y) if high_y > low_y else 0.5 * (low_y + high_y)
    y, x = _grid(size)
    dy, dx = y - centre_y, x - centre_x
    depth = np.interp(np.arctan2(dy, dx), angle, radius) - np.sqrt(dy**2 + dx**2)
    extent = float(np.sqrt(area / np.pi))
    return {"y": centre_y, "x": centre_x, "angle": angle, "contour": radius, "radius": extent, "depth": depth}


def _bumps(rng, angle: np.ndarray, count: int, height: tuple, width: tuple) -> np.ndarray:
    """``count`` rounded bumps on a circle, unevenly spaced, of uneven height and width (radians)."""
    at = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count + rng.uniform(0, 2 * np.pi)
    turn = (angle[:, None] - at + np.pi) % (2 * np.pi) - np.pi
    return (rng.uniform(*height, count) * _bell(turn / rng.uniform(*width, count))).sum(1)


def _inside(rng, row: dict, lesion: dict, local: float, size: int, style: PhantomStyle) -> np.ndarray:
    """Level inside the lesion in decibels: echo, and the fine cue (half strength when the case is undecided)."""
    echo = {"anechoic": style.anechoic_db, "hypoechoic": style.hypoechoic_db, "isoechoic": style.isoechoic_db}
    level = local + style.lesion_contrast * (echo[row["echo"]] + rng.normal(0, 0.8))
    inner, rim = float(row["inner"] == "heterogeneous"), float(row["rim"] == "bright")
    if row["ambiguous"]:
        inner = rim = 0.5
    # lumps of a quarter of the radius, never finer than what half the resolution can show
    grain = round(max(0.26 * lesion["radius"], 0.03) * 200) / 200
    lumps = np.tanh(1.4 * _field(rng, size, grain, grain))
    lift = 0.9 if row["echo"] == "anechoic" else 0.0  # below the display's floor only bright lumps can be seen
    field = level + style.cue_strength * style.inner_db * inner * (lumps + lift)
    uneven = np.clip(0.85 + 0.2 * _field(rng, size, 0.08, 0.08), 0.4, 1.1)  # no rim is even
    return field + _rim(lesion["depth"], style) * uneven * rim * np.maximum(local + style.rim_db - field, 0)


def _background(rng, kind: int, size: int, style: PhantomStyle) -> tuple[np.ndarray, np.ndarray]:
    """Layers of tissue (skin, fat, gland, muscle) whose places and texture the background type sets, and the beam; decibels."""
    y, x = _grid(size)
    contrast = style.background_contrast
    wave = [rng.normal(0, 0.022) * np.sin(2 * np.pi * (rng.uniform(0.4, 1.4) * x + rng.uniform())) for _ in range(3)]
    common = (0.24, 0.80)  # where the fat ends and where the muscle begins when types do not differ
    own = ((0.46, 0.82), (0.16, 0.86), (0.22, 0.74), (0.25, 0.90))[kind]
    top, bottom = (c + contrast * (o - c) + rng.normal(0, 0.025) for c, o in zip(common, own, strict=True))
    skin = 0.045 + 0.012 * rng.uniform(-1, 1)
    depth = y + 0.025 * _field(rng, size, 0.12, 0.2)
    fine = _field(rng, size, 0.012, 0.03)
    streak = _field(rng, size, 0.011, 0.08)
    fibres = np.clip(_field(rng, size, 0.013, 0.13) - 1.0, 0, 2) * 4.0  # a few bright strands lying across the beam
    broad = 1.3 * _field(rng, size, 0.12, 0.16)
    fat = -5.5 + 1.0 * fine + 0.6 * broad
    septa = _bell(_field(rng, size, 0.05, 0.14) / 0.14)  # bright lines where a field crosses zero
    fat = fat + 7.0 * septa * np.clip(0.7 + 0.5 * streak, 0, 1.5)
    gland = 0.5 + 1.4 * fine + 2.0 * streak + broad + fibres
    if kind == 0:  # fatty lobules: dark lumps between bright septa, down to the muscle
        lobes = _bell(_field(rng, size, 0.055, 0.12) / 0.15)
        gland = gland + contrast * (-5.0 + 8.0 * lobes * np.clip(0.7 + 0.4 * streak, 0, 1.5))
    elif kind == 1:  # dense gland: bright and even
        gland = gland + contrast * (3.2 + 0.6 * _field(rng, size, 0.08, 0.12))
    elif kind == 2:  # fibrous bands: bright horizontal streaks
        bands = np.sin(2 * np.pi * (depth * rng.uniform(9, 12) + 0.5 * _field(rng, size, 0.1, 0.25)))
        gland = gland + contrast * (-0.5 + 3.6 * bands + 1.2 * streak)
    else:  # mottled gland: dark ducts and lobules spread through bright tissue
        spots = _field(rng, size, 0.026, 0.034)
        gland = gland + contrast * (1.8 - 7.0 * np.clip(spots - 0.5, 0, 1.2))
    muscle = -7.0 + 2.4 * _field(rng, size, 0.011, 0.14) + 0.8 * fine

    level = fat + _edge((depth - top - wave[0]) * 45) * (gland - fat)
    level = level + _edge((depth - bottom - wave[1]) * 60) * (muscle - level)
    level = level + np.clip(_bell((depth - bottom - wave[1]) / 0.012) * (5 + 4 * streak), 0, 11)  # fascia
    level = level + _edge((skin + 0.3 * wave[2] - y) * 150) * (5 + 2.5 * streak - level)
    attenuation = -rng.uniform(2, 9) * np.clip(y - 0.35, 0, 1) ** 1.3  # with depth, what its compensation leaves
    contact = np.exp(-0.5 * ((x - rng.uniform(0.2, 0.8)) / rng.uniform(0.5, 0.9)) ** 2)  # of the probe: uneven
    return level, attenuation + 3 * (contact - 1)


def _ellipse(size: int, centre_y: float, centre_x: float, radius_y: float, radius_x: float) -> np.ndarray:
    """Distance-like field of an ellipse in shares of the side: positive inside, 0 on the contour."""
    y, x = _grid(size)
    return (1 - np.sqrt(((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2)) * min(radius_y, radius_x)


def _distractors(rng, level: np.ndarray, lesion: dict, style: PhantomStyle) -> tuple[np.ndarray, np.ndarray, int]:
    """Structures that resemble parts of a lesion, all outside it: the new level, bands of poor contact, how many there are."""
    size = len(level)
    y, x = _grid(size)
    outside = _edge(-(lesion["depth"] + 0.03) * 96)

    def number(mean: float) -> range:
        return range(rng.poisson(style.distractor_rate * mean))

    def place(radius: float):
        """A centre from which ``radius`` does not reach the lesion, or None after eight tries."""
        for cy, cx in zip(rng.uniform(0.12, 0.93, 8), rng.uniform(0.08, 0.92, 8), strict=True):
            if lesion["depth"][int(cy * size), int(cx * size)] < -radius - 0.03:
                return cy, cx
        return None

    count = 0
    for _ in number(style.lobules):
        radius, flat, dark = rng.uniform(0.045, 0.085), rng.uniform(0.55, 0.95), rng.uniform(-10, -5)
        inner, rim, spot = rng.random() < 0.5, rng.random() < 0.5, place(radius)
        lumps = np.tanh(1.4 * _field(rng, size, 0.03, 0.03))
        if spot is not None:
            depth = _ellipse(size, *spot, radius * flat, radius)
            around = level[int(spot[0] * size), int(spot[1] * size)]
            fill = around + dark + style.cue_strength * style.inner_db * inner * lumps
            uneven = np.clip(0.8 + 0.25 * _field(rng, size, 0.06, 0.06), 0.3, 1.1)
            fill = fill + _rim(depth, style) * uneven * rim * np.maximum(around + style.rim_db - 2 - fill, 0)
            level = level + outside * _edge(depth * 96) * (fill - level)
            count += 1
    for _ in number(style.vessels):
        radius, flat, spot = rng.uniform(0.02, 0.045), rng.uniform(0.5, 1), place(0.05)
        if spot is not None:
            depth = _ellipse(size, *spot, radius * flat, radius)
            level = level + outside * _edge(depth * 96) * (-18 - level)
            level = level + 5 * outside * _bell(depth / 0.012) * _bell((x - spot[1]) / (0.6 * radius))  # its wall
            count += 1
    for _ in number(style.ducts):
        cy, cx, long = rng.uniform(0.15, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.25)
        slope, bend = rng.uniform(-0.5, 0.5), rng.uniform(-1.5, 1.5)
        off = np.abs(y - (cy + slope * (x - cx) + bend * (x - cx) ** 2))
        width, along = rng.uniform(0.010, 0.016), _edge((long - np.abs(x - cx)) * 60)
        level = level - 9 * outside * _edge((width - off) * 110) * along
        level = level + 4 * outside * _bell((off - 2.2 * width) / 0.011) * along
        count += 1
    for _ in number(style.specks):
        spot, points = place(0.06), rng.normal(0, 0.03, (5, 2))
        if spot is not None:
            for py, px in points + np.array(spot):
                level = level + 11 * outside * np.exp(-(((y - py) / 0.010) ** 2) - ((x - px) / 0.013) ** 2)
            count += 1
    bands = np.zeros((1, size))  # through the whole depth
    for _ in number(style.shadow_bands):
        bands = bands - rng.uniform(2, 6) * _bell((x - rng.uniform()) / rng.uniform(0.015, 0.05))
        count += 1
    return level, bands, count


def _posterior(level: np.ndarray, kind: str, lesion: dict, rng: np.random.Generator) -> np.ndarray:
    """Shadow or enhancement below the lesion, as wide as it and fading with depth."""
    strength, width = rng.uniform(0.7, 1.2), rng.uniform(0.75, 0.95)
    if kind == "none":
        return level
    y, x = _grid(len(level))
    gain, reach = (-9.0, 0.9) if kind == "shadow" else (7.0, 0.3)
    half = width * float(np.abs(lesion["contour"] * np.cos(lesion["angle"])).max())
    across, below = _edge((half - np.abs(x - lesion["x"])) * 35), _edge((y - lesion["y"]) * 30)
    return level + across * below * np.exp(-np.clip(y - lesion["y"], 0, 1) / reach) * strength * gain


GLYPHS = {  # 3 columns x 5 rows, one octal digit per row
    "A": "25755", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755", "I": "72227",
    "L": "44447", "M": "57755", "O": "25552", "R": "65655", "T": "72222", "U": "55557", "X": "55255", "0": "25552",
    "1": "26227", "2": "61247", "3": "61216", "4": "55711", "9": "25316", ".": "00002", " ": "00000",
}  # fmt: skip

WORDS = ("LEFT", "RIGHT", "LEFT OUT", "RIGHT LO", "AXILLA", "D 1.4CM", "D 0.9CM", "12H", "3H RIGHT", "9H LEFT")


def _bitmap(text: str) -> np.ndarray:
    """The text as a boolean picture, 5 rows, 4 columns per letter."""
    rows = [[[int(digit) >> shift & 1 for shift in (2, 1, 0, 3)] for digit in GLYPHS[letter]] for letter in text]
    return np.hstack(np.array(rows, bool))[:, :-1]


def _marks(rng, grey: np.ndarray, lesion: dict, mask: np.ndarray, size: int, style: PhantomStyle):
    """Black borders, burnt-in text and caliper crosses, on a copy of the frame."""
    y, x = _grid(size)
    left, right = rng.uniform(0, 0.05, 2) * (rng.random(2) < 0.35)
    dark = np.broadcast_to((x < left) | (x > 1 - right), mask.shape)
    cut, rise = rng.uniform(0.05, 0.3), rng.uniform(0.8, 2.5)
    wedge = y - 1 + cut > rise * np.minimum(x, 1 - x) * 2
    if rng.random() < style.wedge and not (wedge & mask).any():  # sector probe: the lower corners see nothing
        dark = dark | wedge
    grey = np.where(dark, 3.0, grey)

    zoom = max(1, round(size / 96))
    has_text = bool(rng.random() < style.text)
    word, white = WORDS[int(rng.integers(len(WORDS)))], rng.uniform(190, 250)
    v, u, upper = rng.uniform(), rng.uniform(), rng.random() < 0.25
    if has_text:
        bits = np.kron(_bitmap(word), np.ones((zoom, zoom), bool))
        h, w = bits.shape
        top, start = int((0.02 + 0.06 * v if upper else 0.72 + 0.2 * v) * size), int(u * (size - w))
        grey[top : top + h, start : start + w][bits] = white
    crosses = 2 * int(rng.integers(1, 3)) * (rng.random() < style.calipers)
    gap, white = rng.uniform(0.005, 0.03), rng.uniform(190, 250)
    reach, arm = lesion["contour"], 2 * zoom
    long = int(np.argmax(reach[:180] + reach[180:360]))
    for k in range(crosses):
        j = (long + (k % 2) * 180 + (k // 2) * 90) % 360
        turn = np.array([np.sin(lesion["angle"][j]), np.cos(lesion["angle"][j])])
        cy, cx = ((np.array([lesion["y"], lesion["x"]]) + (reach[j] + gap) * turn) * size).astype(int)
        grey[max(cy - arm, 0) : max(cy + arm + 1, 0), max(cx, 0) : max(cx + zoom, 0)] = white
        grey[max(cy, 0) : max(cy + zoom, 0), max(cx - arm, 0) : max(cx + arm + 1, 0)] = white
    return grey, {"text": has_text, "calipers": bool(crosses)}
