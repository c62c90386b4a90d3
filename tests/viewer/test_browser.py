"""A real browser: JupyterLab runs a notebook and moves the page of `explore`; an exported gallery opens without a network.

Needs the package playwright and a Chromium (``YNET_CHROMIUM``, or ``chromium`` in the path); skipped without them. Every wait is
for a condition, with room for a busy machine.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from parsed import Parsed
from PIL import Image

from ynet_lite import explore, export_gallery, paths
from ynet_lite.hashing import Codes, pack
from ynet_lite.index import Index
from ynet_lite.sets.phantom import make_phantom
from ynet_lite.viewer.explore import Explorer, View
from ynet_lite.viewer.gallery import write_gallery

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 1000  # milliseconds
#: For one reaction of a page, and for a whole notebook.
PATIENCE, LONG = 300 * SECONDS, 2400 * SECONDS
HOSTILE = "<img src=x onerror=document.title='hacked'>\"'&"
#: Decodes every picture of an SVG once more, because SVG says nothing about failed ones. How many there are, or -1.
PICTURES = """async (root) => {
  const found = [...document.querySelectorAll(root + ' image')];
  const sizes = await Promise.all(found.map((shown) => {
    const image = new Image();
    image.src = shown.getAttribute('href');
    return image.decode().then(() => image.naturalWidth, () => 0);
  }));
  return sizes.every((width) => width > 0) ? sizes.length : -1;
}"""


def chromium() -> str | None:
    named = os.environ.get("YNET_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium: install Debian's package chromium, or name one in YNET_CHROMIUM")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, headless=True, args=list(FLAGS), timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """A function that makes a page and what it did: ``requests``, ``errors`` (of scripts and of the policy)."""
    contexts = []

    def make(width: int = 1280, height: int = 900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        seen = SimpleNamespace(requests=[], errors=[])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
        return page, seen

    yield make
    for context in contexts:
        context.close()


# --- the gallery


@pytest.fixture
def ranked(draw_cases):
    """5 queries, one with a hostile name, a database and the codes of both."""
    cases = draw_cases(40)
    table = cases.table.copy()
    table.loc[1, "case_id"] = HOSTILE
    cases = replace(cases, table=table)
    sides = cases.take(np.arange(5)), cases.take(np.arange(5, 40))
    rng = np.random.default_rng(0)
    codes = tuple(Codes(pack(rng.random((len(c), 16)) < 0.5), c.ids, c.labels, 16) for c in sides)
    return sides, codes


@pytest.fixture
def gallery(ranked, tmp_path):
    """The path of a gallery."""
    sides, codes = ranked
    return export_gallery(tmp_path / "gallery.html", *sides, codes, k=8, maps=lambda image: image[0] / 255)


def only_the_file(seen, path: Path) -> None:
    outside = [url for url in seen.requests if not url.startswith("data:")]
    assert set(outside) == {path.as_uri()}, outside
    assert seen.errors == []


def text_of(locator) -> str:
    """What is read there, once it is laid out: what has just been shown may have no text in the very first frame."""
    for _ in range(100):
        if text := locator.inner_text():
            return text
        locator.page.wait_for_timeout(50)
    return ""


def drawn(page) -> dict[str, int]:
    """What is seen in the first picture, from its pixels: "grey" (the image), "orange" (an outline), "map" (other colours)."""
    shown = page.locator(".card:visible .picture").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")).reshape(-1, 3).astype(int)
    red, green, blue = pixels.T
    coloured = pixels.max(1) - pixels.min(1) > 12
    # between the outline's #E69F00 and the black under it or the grey beside it
    orange = coloured & (red > green) & (green > blue) & (abs((green - blue) / (red - blue).clip(1) - 159 / 230) < 0.1)
    grey = len(np.unique(pixels[~coloured][:, 0]))
    found = {"grey": grey, "orange": int(orange.sum()), "map": int((coloured & ~orange).sum())}
    return {name: count for name, count in found.items() if count > 20}


def test_gallery_opens_without_network(gallery, open_page):
    page, seen = open_page(offline=True)
    page.goto(gallery.as_uri())
    page.wait_for_selector("section.case:visible")
    assert page.evaluate(PICTURES, ".drawings") > 20
    assert set(drawn(page)) == {"grey", "orange"}
    assert page.title() == "Similar cases", "a name from the data ran as a script"
    assert page.locator("img").count() == 0
    only_the_file(seen, gallery)


def test_gallery_is_moved_with_the_keyboard(gallery, open_page):
    page, seen = open_page()
    page.goto(gallery.as_uri())
    visible, where = page.locator("section.case:visible"), page.locator("#where")
    assert visible.count() == 1 and where.inner_text() == "query case 1 of 5"
    said = text_of(visible.locator(".vote"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0, "the focused link should be seen"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "cases"
    page.keyboard.press("ArrowRight")
    assert where.inner_text() == "query case 2 of 5"
    assert HOSTILE in text_of(visible.locator("h2"))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is nothing before the first
    assert where.inner_text() == "query case 1 of 5" and text_of(visible.locator(".vote")) == said
    # every control is reached with the tabulator and shows that it has the focus
    page.locator(".skip").focus()
    reached = {}
    for _ in range(9):
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.id")
        reached[at] = page.evaluate(
            "(({ outlineWidth, outlineStyle }) => [outlineWidth, outlineStyle])(getComputedStyle(document.activeElement))"
        )
    assert {"pick", "next", "k", "only", "outlines", "maps"} <= set(reached)
    assert all(reached[name] == ["3px", "solid"] for name in ("pick", "next", "k", "only", "outlines", "maps"))
    page.locator("#k").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert where.inner_text() == "query case 1 of 5", "arrows inside a control are its own"
    assert page.locator("section.case:visible ol > li:visible").count() == 5
    assert text_of(visible.locator(".vote")).startswith("Vote of the 5 nearest")
    page.locator("#outlines").focus()
    page.keyboard.press("Space")
    assert set(drawn(page)) == {"grey"}
    page.locator("#maps").focus()
    page.keyboard.press("Space")
    assert "map" in drawn(page)
    only_the_file(seen, gallery)


def test_gallery_filters_and_lists(gallery, ranked, open_page):
    sides, codes = ranked
    page, seen = open_page()
    page.goto(gallery.as_uri() + "#case-3")
    where, items = page.locator("#where"), page.locator("section.case:visible ol > li:visible")
    assert where.inner_text() == "query case 3 of 5"
    whole = items.count()
    page.select_option("#only", label="square")
    kept = [text_of(items.nth(i).locator(".class")) for i in range(items.count())]
    assert 0 < len(kept) < whole and all(words.startswith("square") for words in kept)
    # the page in a notebook shows the same answers and the same votes
    explorer = Parsed(Explorer(*sides, codes).html(View(query=2, k=8, only="square")))
    own = [found["aria-label"] for found in explorer.all("svg") if found["aria-label"].startswith("Answer")]
    assert items.locator("svg").evaluate_all("(found) => found.map((svg) => svg.getAttribute('aria-label'))") == own
    assert text_of(page.locator("section.case:visible .vote")) in explorer.words
    page.select_option("#only", label="all classes")
    page.click("#next")
    assert where.inner_text() == "query case 4 of 5"
    page.select_option("#pick", label="all query cases, as a list")
    assert page.locator("section.case:visible").count() == 5 and where.inner_text() == "all 5 query cases"
    assert page.locator("#pick option").all_inner_texts()[1] == f"2. {HOSTILE} (disc)"
    scripted = page.locator(".vote").all_inner_texts()
    plain, _ = open_page(java_script_enabled=False)
    plain.goto(gallery.as_uri())
    # what the script writes is what stands in the file
    assert scripted == plain.locator(".vote").all_inner_texts()
    only_the_file(seen, Path(gallery))


def test_gallery_without_scripts_is_a_list(gallery, open_page):
    page, seen = open_page(java_script_enabled=False)
    page.goto(gallery.as_uri())
    assert page.locator("section.case:visible").count() == 5
    assert page.locator("ol > li:visible").count() == 5 * 8
    assert not page.locator("#choose").is_visible() and page.locator("#outlines").is_visible()
    assert set(drawn(page)) == {"grey", "orange"}
    page.click("#outlines")
    assert set(drawn(page)) == {"grey"}
    only_the_file(seen, gallery)


def test_gallery_fits_a_narrow_window(gallery, open_page):
    page, _ = open_page(width=360, height=700)
    page.goto(gallery.as_uri())
    page.select_option("#pick", label="all query cases, as a list")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_answers_of_an_index(open_page, tmp_path):
    """The gallery of what an index answered, and the page of the notebook on the same index."""
    phantom = make_phantom(40, seed=5)
    for image, name, label in zip(phantom.images, phantom.ids, phantom.table["label"], strict=True):
        (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(tmp_path / "pictures" / label / f"{name}.png")
    Image.fromarray(make_phantom(40, seed=6).images[0, 0]).save(tmp_path / "new.png")
    index, _ = Index.build(tmp_path / "my.index", tmp_path / "pictures", "phantom-quick", progress=False)
    answers = index.search(tmp_path / "new.png", 4)
    page, seen = open_page(offline=True)
    gallery = write_gallery(tmp_path / "answers.html", index, tmp_path / "new.png", answers)
    page.goto(gallery.as_uri())
    shown = page.locator("section.case:visible ol > li:visible")
    assert [text.split()[-1] for text in shown.locator(".quiet").all_inner_texts()] == [
        name.split()[-1] for name in answers["id"]
    ]
    assert (
        "class unknown" in page.locator(".card.query").inner_text() and "the query is" not in page.content().split("<script")[0]
    )
    only_the_file(seen, gallery)
    (tmp_path / "page.html").write_text("<!doctype html><meta charset=utf-8>" + explore(index, k=4).children[2].value)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("ol > li").count() == 4 and page.evaluate(PICTURES, ".ynl") == 5
    assert page.locator(".card.query .quiet").first.inner_text() == index.cases().ids[0]


def test_gallery_policy_holds_in_the_browser(gallery, open_page):
    """Whatever got into the page by mistake could neither call home nor run."""
    page, _ = open_page()
    page.goto(gallery.as_uri())
    refused = page.evaluate(
        """() => new Promise((done) => {
          const found = [];
          addEventListener("securitypolicyviolation", (event) => {
            found.push(event.effectiveDirective);
            if (found.length === 3) done(found.sort());
          });
          fetch("http://127.0.0.1:9/").catch(() => 0);
          const slipped = document.createElement("div");
          slipped.innerHTML = "<img src='http://127.0.0.1:9/a.png'><button onclick='document.title=1'>x</button>";
          document.body.append(slipped);
          slipped.querySelector("button").click();
        })"""
    )
    assert refused == ["connect-src", "img-src", "script-src-attr"]
    assert page.title() == "Similar cases"


# --- JupyterLab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on the loopback interface with a token, settings of its own and the folder ``root``."""
    base = tmp_path_factory.mktemp("lab")
    root = base / "notebooks"
    root.mkdir()
    settings = base / "settings" / "@jupyterlab"
    for plugin, values in {
        # all cells are in the page, so that it can be asked about all of them
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        (settings / plugin).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))
    ours = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    ours = {variable: str(base / variable.lower()) for variable in ours}
    left_out = {"YNET_DATA_DIR", "YNET_DATASET", "YNET_PRESET", "YNET_MANIFEST", "YNET_CHANNELS", "MPLBACKEND"}
    left_out |= {"JUPYTER_PATH", "JUPYTER_CONFIG_PATH"}
    token = secrets.token_hex(16)
    environment = {key: value for key, value in os.environ.items() if key not in left_out} | ours
    environment |= {
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "YNET_OUT": str(base / "out"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.extension_manager=readonly"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with open(base / "lab.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=base, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        address = _address(server, Path(ours["JUPYTER_RUNTIME_DIR"]), base / "lab.log")
        yield SimpleNamespace(root=root, address=address, token=token)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)  # our own group: the server and its kernels
            server.wait()


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """The server's address, when it answers."""
    until = time.monotonic() + LONG / SECONDS
    while time.monotonic() < until and server.poll() is None:
        for note in runtime.glob("jpserver-*.json"):
            try:
                about = json.loads(note.read_text())
                address = f"http://127.0.0.1:{about['port']}/"
                with urlopen(f"{address}api", timeout=PATIENCE / SECONDS):
                    return address
            except (OSError, ValueError):
                pass  # not written whole, or not listening yet
        time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def run_notebook(lab, open_page, name: str):
    """Open a notebook, run all its cells through the menu, wait until each has its number. Returns the page."""
    page, seen = open_page(height=1400)
    host = urlsplit(lab.address).netloc
    page.route("**/*", lambda route: route.continue_() if urlsplit(route.request.url).netloc in ("", host) else route.abort())
    # "reset": the panels of an earlier test are not opened again
    page.goto(f"{lab.address}lab/tree/{name}?reset&token={lab.token}", timeout=LONG)
    page.wait_for_selector(".jp-NotebookPanel:visible .jp-CodeCell", timeout=LONG)
    # without a kernel yet, running would ask for one; the indicator in the notebook says "idle" before there is a kernel
    page.wait_for_function("document.querySelector('#jp-main-statusbar')?.innerText.includes('(ipykernel) | Idle')", timeout=LONG)
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator('[data-command="runmenu:run-all"]').click()
    page.wait_for_function(
        """() => {
          // a folded cell shows a placeholder without a number; when it has run is known by the kernel alone
          const shown = ".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)";
          const cells = [...document.querySelectorAll(shown)];
          return cells.length && cells.every((prompt) => /^\\[\\d+\\]:?$/.test(prompt.textContent.trim()))
            && document.querySelector("#jp-main-statusbar").innerText.includes("(ipykernel) | Idle");
        }""",
        timeout=LONG,
        polling=500,
    )
    return page, seen


def no_error_output(page) -> None:
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert errors == []


def test_the_first_notebook_runs_in_jupyterlab(lab, open_page):
    shutil.copy(paths.root() / "notebooks" / "00_start_here.ipynb", lab.root)
    book = nbformat.read(lab.root / "00_start_here.ipynb", as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":  # what is seen afterwards was made now
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, lab.root / "00_start_here.ipynb")
    page, seen = run_notebook(lab, open_page, "00_start_here.ipynb")
    no_error_output(page)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert page.locator(".jp-CodeCell").count() == len(code)
    pictures = page.locator(".jp-OutputArea-output img")
    assert pictures.count() == sum("figure = " in cell.source for cell in code) >= 2
    widths = pictures.evaluate_all("(found) => found.map((image) => image.complete ? image.naturalWidth : 0)")
    assert min(widths) > 200
    assert "checked" in [text.strip() for text in page.locator(".jp-OutputArea-output").all_inner_texts()]

    # the page in the last cell: its pictures, its controls, and a list that follows them
    shown = page.locator(".jp-OutputArea-output .ynl", has=page.locator(".card.query"))
    shown.wait_for()
    answers = shown.locator("ol > li")
    assert answers.count() == 10 and page.evaluate(PICTURES, ".ynl") == 11
    listed = answers.all_inner_texts()
    page.locator(".widget-slider", has_text="Answers (k)").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelectorAll('.ynl ol > li').length === 9")
    assert answers.all_inner_texts() == listed[:9] and "Vote of the 9 nearest" in shown.inner_text()
    page.locator(".widget-slider", has_text="First bits of the code").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("[...document.querySelectorAll('.ynl ol > li')].every((li) => li.innerText.includes('of 56 bits'))")
    asked = shown.locator(".card.query").inner_text()
    page.get_by_label("Query case").select_option(index=1)
    page.wait_for_function("(before) => document.querySelector('.card.query').innerText !== before", arg=asked)
    assert answers.count() == 9 and page.evaluate(PICTURES, ".ynl") == 10
    assert not [error for error in seen.errors if "ynl" in error]


CELLS = (
    """from dataclasses import replace

from ynet_lite import explore, load_cases
from ynet_lite.search import load_shipped

checkpoint, _ = load_shipped("phantom-quick")
cases = load_cases(checkpoint.cfg.but(phantom_cases=60))
cases = replace(cases, table=cases.table.assign(case_id=["NAME" + f" {i:02d}" for i in range(60)]))
database, queries = cases.split(checkpoint.cfg.fold)""",
    "explore(queries, database, checkpoint, k=5, maps=lambda image: image[0] / 255)",
)


def test_the_page_in_a_notebook(lab, open_page, tmp_path):
    cells = [new_code_cell(source.replace('"NAME"', repr(HOSTILE))) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), lab.root / "page.ipynb")
    page, seen = run_notebook(lab, open_page, "page.ipynb")
    no_error_output(page)
    shown = page.locator(".jp-OutputArea-output .ynl", has=page.locator(".card.query"))
    shown.wait_for()
    answers = shown.locator("ol > li")
    assert answers.count() == 5 and shown.locator(".card.query").count() == 1
    assert page.evaluate(PICTURES, ".ynl") == 6
    assert HOSTILE in shown.inner_text(), "a name from the data should be seen as it is"
    assert page.locator(".jp-OutputArea-output img").count() == 0 and "hacked" not in page.title()

    # a query from the list
    choice = page.get_by_label("Query case")
    first = shown.locator(".card.query").inner_text()
    choice.select_option(index=1)
    page.wait_for_function("(before) => document.querySelector('.card.query').innerText !== before", arg=first)
    chosen = choice.evaluate("(list) => list.selectedOptions[0].textContent")
    assert chosen.replace("\xa0", " ").startswith(HOSTILE)  # ipywidgets keeps spaces from being joined

    # switches
    assert set(drawn(page)) == {"grey", "orange"}
    page.get_by_role("button", name="Outlines").click()
    page.wait_for_selector(".ynl.no-outlines")
    assert set(drawn(page)) == {"grey"}
    page.get_by_role("button", name="Attention").click()
    page.wait_for_selector(".ynl.with-maps .ynl-heat", state="attached")
    assert "map" in drawn(page)
    assert page.evaluate(PICTURES, ".ynl") == 12

    # number of answers, by keyboard
    page.locator(".widget-slider", has_text="Answers (k)").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelectorAll('.ynl ol > li').length === 6")
    assert "Vote of the 6 nearest" in shown.inner_text()

    # one class only
    page.get_by_label("Only class").select_option(label="disease B")
    page.wait_for_function("[...document.querySelectorAll('.ynl li .class')].every((c) => c.innerText.startsWith('disease B'))")

    # an image of one's own, then a file that is none
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80)).astype(np.uint8)).save(tmp_path / "mine.png")
    (tmp_path / "no picture.png").write_text("<b>text</b>")
    button = page.get_by_role("button", name="Upload image")
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(tmp_path / "mine.png")
    page.wait_for_function("document.querySelector('.card.query').innerText.includes('mine.png')")
    assert "class unknown" in shown.locator(".card.query").inner_text()
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(tmp_path / "no picture.png")
    alert = page.locator(".ynl .alert")
    alert.wait_for()
    assert "no picture.png: cannot be read" in alert.inner_text() and alert.get_attribute("role") == "alert"
    assert "mine.png" in shown.locator(".card.query").inner_text(), "the page should stay as it was"
    assert not [error for error in seen.errors if "ynl" in error]
