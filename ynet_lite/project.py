"""Where the project lives: everything that shows the repository's address is made here, from `pyproject.toml`."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

NAME = "ynet-lite"

START = "00_start_here"


def repository() -> str:
    """Address of the repository, without a slash at its end: from the checkout, else from the installed package.

    Raises ``ValueError`` where neither names one.
    """
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    address = ""
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == NAME:
            address = project.get("urls", {}).get("Repository", "")
    if not address:
        try:
            urls = metadata.metadata(NAME).get_all("Project-URL") or []
        except metadata.PackageNotFoundError:
            urls = []
        address = dict(url.split(", ", 1) for url in urls).get("Repository", "")
    if not address:
        raise ValueError(f"no repository address: expected [project.urls] Repository in {pyproject} or in the installed {NAME}")
    return address.rstrip("/")


def badges(notebook: str | None = None) -> str:
    """One line of Markdown: the badges that open a notebook on Binder and on Colab.

    ``notebook`` is its name in ``notebooks/``, with or without ``.ipynb``; by default the first one.
    """
    path = f"notebooks/{(notebook or START).removesuffix('.ipynb')}.ipynb"
    slug = repository().removeprefix("https://github.com/")
    binder = f"https://mybinder.org/v2/gh/{slug}/HEAD?labpath={quote(path, safe='')}"
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/{path}"
    return (
        f"[![Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )


def colab_cell() -> str:
    """Source of the cell that fetches and installs the project on Colab, and does nothing anywhere else.

    A notebook opened on Colab comes alone: no package, no committed results. The checkout is put on the path as well,
    because a running Python does not notice an editable installation. Only the standard library is needed.
    """
    return f"""# On Colab: fetch and install the project. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    import subprocess
    from pathlib import Path

    address = "{repository()}"
    checkout = Path("/content/{NAME}")
    if not checkout.exists():
        subprocess.run(["git", "clone", "--depth", "1", address, str(checkout)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", str(checkout)], check=True)
    sys.path.insert(0, str(checkout))"""
