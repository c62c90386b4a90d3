"""The site: ``make docs``. Pages are read where they lie in the checkout, notebooks are shown as stored, nothing is fetched.

The source folder of Sphinx is the root of the checkout, so that a link between two files means the same here and on GitHub.
"""

import inspect
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = "Y-Net Lite"
author = "The Y-Net Lite authors"
version = release = PROJECT["version"]
language = "en"
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/[0-9]*.ipynb",
    "figures/*.md",
    "data/README.md",
    "data/results/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
# Not even looked into: environments, outputs and images.
exclude_patterns = [
    ".*",
    "out",
    "build",
    "ynet_lite",
    "tests",
    "data/raw",
    "data/cache",
    "figures/local",
    "**/.ipynb_checkpoints",
]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.githubpages"]
suppress_warnings = ["mystnb.mime_priority"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show {type}"
nb_code_prompt_hide = "Hide {type}"
# The page to click through needs a running Jupyter; without this, two scripts from the network would be named for it.
nb_ipywidgets_js = {}

# A name in single backticks: a link where it is on the page, else just the name.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = "Y-Net Lite"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"].rstrip("/") + "/",
    "source_branch": "main",
    "source_directory": "",
    "top_of_page_buttons": ["view"],
    "light_css_variables": {"color-brand-primary": "#005a8c", "color-brand-content": "#005a8c"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
    "footer_icons": [],
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def mathml(translator, node: nodes.Node) -> None:
    """Formulas as MathML, which browsers draw by themselves: the usual script would come from the network."""
    block = isinstance(node, nodes.math_block)
    text = re.sub(r"\\[bB]ig+[lrm]?(?![a-zA-Z])", "", node.astext())  # brackets grow by themselves
    text = re.sub(r"(frac)(\d)(\d)", r"\1{\2}{\3}", text)
    formula = latex2mathml.tex2mathml(text, as_block=block)
    translator.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def settings(config: type) -> list[str]:
    """Every field of `Config` as a list, by the class that it stands in, with the comment behind it."""
    defaults = {f.name: f for f in fields(config)}
    made = []
    for part in config.__mro__:
        own = [f"{name}: {of}" for name, of in vars(part).get("__annotations__", {}).items() if name in defaults]
        text = "Names." if part is config else inspect.getdoc(part).splitlines()[0].replace("|", r"\|")
        made += ["", f"**{part.__name__}.** {text}", ""] if own else []
        for line in own:
            name, source = line.split(":")[0], inspect.getsource(part)
            said = re.search(rf"^    {name}: .*?  # (.*)$", source, re.MULTILINE)
            known = defaults[name].metadata.get("known", ())
            about = ["of " + ", ".join(f"``{value!r}``" for value in known)] if known else []
            about += [said.group(1).replace("`", "``").replace("|", r"\|")] if said else []
            made.append(f"* ``{name}`` = ``{defaults[name].default!r}``" + (f": {'; '.join(about)}" if about else ""))
    return made


def sections(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings have numpydoc's sections with one line ``name : what it is`` for each argument; here these become a list."""
    made, section = [], ""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below.strip() and set(below.strip()) == {"-"}:
            section = line.strip()
            made += [f"**{section}**", ""]
        elif line.strip() and set(line.strip()) == {"-"}:
            continue
        elif section in ("Parameters", "Attributes") and " : " in line and not line.startswith(" "):
            names, text = line.split(" : ", 1)
            made.append(f"* {', '.join(f'``{n}``' for n in names.split(', '))}: {text}")
        elif section in ("Parameters", "Attributes") and line.startswith(" "):
            made.append("  " + line.strip())
        else:
            made.append(line)
    made = [re.sub(r"(?<!`)\bmAP@", r"mAP\\@", line) for line in made]  # no address of mail
    lines[:] = made + (settings(obj) if name == "ynet_lite.Config" else [])


def signature(app, what, name, obj, options, given: str | None, returned: str | None):
    """Long lists of fields are shown as a list below; a default that is made anew is shown as three dots."""
    if name == "ynet_lite.Config":
        return "(**settings)", returned
    if given and "<factory>" in given:
        given = re.sub(r"~[\w.]+\.", "", given).replace("<factory>", "...")
    return given, returned


#: What the theme leaves out, by the rules of axe-core: what scrolls is reached with the keyboard, a heading has a level; and
#: badges would be fetched.
MENDED = (
    (r"<pre>", '<pre tabindex="0">'),
    (r'<div class="(table-wrapper|cell_output|output|math)\b', r'<div tabindex="0" class="\1'),
    (r'<img alt="(Binder|Colab)" src="https:[^>]*>', r"Open in \1"),
)


def mend(app, page: str, template: str, context: dict, doctree) -> None:
    for found, instead in MENDED:
        context["body"] = re.sub(found, instead, context.get("body", ""))
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app) -> None:
    app.add_node(nodes.math, html=(mathml, None), override=True)
    app.add_node(nodes.math_block, html=(mathml, None), override=True)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", sections)
    app.connect("html-page-context", mend, priority=900)
