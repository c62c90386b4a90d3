"""The repository's address, from `pyproject.toml`, and what shows it in every notebook: the badges and the cell for Colab."""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import quote

NAME = "ynet-lite"
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
REPOSITORY = tomllib.loads(PYPROJECT.read_text())["project"]["urls"]["Repository"].rstrip("/")


def badges(notebook: str = "00_start_here") -> str:
    """One line of Markdown: the badges that open a notebook on Binder and on Colab."""
    path = f"notebooks/{notebook}.ipynb"
    slug = REPOSITORY.removeprefix("https://github.com/")
    binder = f"https://mybinder.org/v2/gh/{slug}/HEAD?labpath={quote(path, safe='')}"
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/{path}"
    return (
        f"[![Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )


#: Source of the cell that fetches and installs the project on Colab, and does nothing anywhere else. A notebook opened on Colab
#: comes alone: no package, no committed results. The checkout is put on the path as well, because a running Python does not
#: notice an editable installation. Only the standard library is needed.
COLAB_CELL = f"""# On Colab: fetch and install the project. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    import subprocess
    from pathlib import Path

    address = "{REPOSITORY}"
    checkout = Path("/content/{NAME}")
    if not checkout.exists():
        subprocess.run(["git", "clone", "--depth", "1", address, str(checkout)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", f"{{checkout}}[umap]"], check=True)
    sys.path.insert(0, str(checkout))"""


#: How that cell is folded, by JupyterLab, by Colab and on the site.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form", "tags": ["hide-input"]}
