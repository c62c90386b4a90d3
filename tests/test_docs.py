"""The site as a reader meets it: built without a warning, every link leads somewhere, pages fit a desktop and a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from address import REPOSITORY

pytestmark = [pytest.mark.whole, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
#: What a page may not hold: what the network would have to bring.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("myst_nb", reason="the site's packages are not installed (extra: docs)")
    folder = tmp_path_factory.mktemp("site")
    recipe = (ROOT / "Makefile").read_text().split("\ndocs:")[1].splitlines()[1].strip()
    command = recipe.replace("$(PY)", sys.executable).replace("out/docs", str(folder / "out")).split()
    started = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_PROXY": "*"}, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert time.perf_counter() - started < 120
    return folder / "out"


class _Page(HTMLParser):
    """Names, links and fetched files of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in FETCHED and given.get(FETCHED[tag]) and given.get("rel") != "canonical":
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, _Page]:
    return {path: _Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts}


def test_every_page_of_the_checkout_is_on_the_site(site, pages):
    sources = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("figures/*.md")]
    sources += [ROOT / name for name in ("data/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    missing = [p.name for p in sources if site / p.relative_to(ROOT).with_suffix(".html") not in pages]
    assert not missing
    assert (site / "searchindex.js").is_file() and (site / "search.html") in pages
    assert "docs/index.html" in (site / "index.html").read_text()


def test_no_internal_link_is_dead(pages):
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                dead.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                dead.append(f"{path.name}: {link}: no such place")
    assert not dead, "\n".join(sorted(set(dead)))


def test_nothing_is_fetched_and_one_repository_is_named(pages):
    for path, page in pages.items():
        assert not [link for link in page.fetched if urlsplit(link).netloc], f"{path.name}: {page.fetched}"
        for owner in re.findall(r"https://github\.com/[\w.-]+/ynet-lite\b", " ".join(page.links)):
            assert owner == REPOSITORY, f"{path.name} names {owner}"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    program = os.environ.get("YNET_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: install Debian's package chromium, or name one in YNET_CHROMIUM")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=flags, timeout=300_000)
        yield found
        found.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_pages_fit_and_are_accessible(device, browser, site, pages, tmp_path):
    """No sideways scrolling, no error of a script, and nothing serious for axe-core, with the network off."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (extra: test)")
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    width, height = WIDTHS[device]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    context.set_default_timeout(300_000)
    found = []
    for path in pages:
        if path == site / "index.html":
            continue  # only leads to the first page
        page, name = context.new_page(), path.relative_to(site).as_posix()
        page.on("pageerror", lambda error, name=name: found.append(f"{name}: {error}"))
        page.goto(path.as_uri())
        page.screenshot(path=tmp_path / f"{device}-{name.replace('/', '-')}.png")
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append(f"{name}: {wide} pixels wide")
        page.evaluate(script)
        for violation in page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append(f"{name}: {violation['id']}: {violation['nodes'][0]['html'][:200]}")
        page.close()
    context.close()
    assert not found, "\n".join(found)


def test_search_finds_a_word_of_ours(browser, site):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((site / "search.html").as_uri() + "?q=twin")
    page.wait_for_selector("#search-results li a", timeout=120_000)
    assert page.locator("#search-results li a").count() > 3
    context.close()
