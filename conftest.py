"""Settings of every test run. It lies at the root because nbval needs it to reach the notebooks as well.

Environment variables set here reach the kernels that nbval starts. Strict nbval compares text: numbers, tables as text,
facts. What differs between two good runs (progress bars, HTML, pictures, widgets) is left out of the comparison.
"""

from __future__ import annotations

import os
from collections import OrderedDict

# One thread per process: three libraries bring an OpenMP of their own, and sums over threads change last digits.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("PYTHONHASHSEED", "0")

# Besides what nbval leaves out by itself (metadata, counts, PNG and JPEG).
NOT_COMPARED = (
    "stderr",
    "image/png",
    "image/jpeg",
    "image/svg+xml",
    "text/html",
    "application/javascript",
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
)

# Pattern and replacement, applied to both sides. [^\n] keeps each replacement inside its line.
SANITISE = OrderedDict(
    [
        (r"<Figure size [^\n>]*>", "<Figure>"),
        (r"\b0x[0-9a-fA-F]{6,}", "<address>"),
        (r"[^\n\r]*\d+%\|[^\n\r]*\|[^\n\r]*\[[^\n\r]*\]", "<progress>"),
    ]
)


def pytest_configure(config):
    # With another backend than the inline one the figures of a notebook vanish, and with them their compared outputs.
    if config.getoption("nbval", False) or config.getoption("nbval_lax", False):
        os.environ.pop("MPLBACKEND", None)


def pytest_collection_modifyitems(items):
    for notebook in {item.parent for item in items if hasattr(item.parent, "skip_compare")}:
        notebook.skip_compare = tuple(dict.fromkeys((*notebook.skip_compare, *NOT_COMPARED)))
        notebook.sanitize_patterns.update(SANITISE)
