"""How `make docs` makes a site of these pages: Sphinx, with MyST for Markdown and Furo's looks; design.md says why.

The source folder is the repository's root, so that a link to a file beside docs/ holds here as it does on a git host.
The pages are plain Markdown. What Sphinx wants to know besides (the order of pages) is read from the lists of index.md.
"""

from __future__ import annotations

import re
import tomllib
from glob import glob
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "Headwater"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
# Nothing else of the checkout is looked at, and nothing of what it may hold besides (a virtual environment, what was built).
exclude_patterns = [entry.name for entry in ROOT.iterdir() if entry.name not in ("README.md", "docs", "examples")]
include_patterns = ["README.md", "docs/**.md", "examples/**/README.md", "examples/README.md"]
myst_heading_anchors = 4  # the anchors that git hosts make
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure", "myst.header"]  # a piece of TOML need not be a file

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_js_files = ["offline.js"]
html_extra_path = ["_root"]
html_show_sourcelink = html_copy_source = html_show_copyright = html_use_index = False
html_search_language = "en"
pygments_style, pygments_dark_style = "tango", "monokai"

linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost)"]  # a device of the reader's own

ITEM = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)
FURTHER = re.compile(r"^<!-- further pages: (\S+) -->$", re.MULTILINE)


HAN = r"[\u3400-\u9fff]"


class EnglishAndChinese(SearchEnglish):
    """English by its stems, Chinese by pairs of characters: it has no spaces.

    Each pair of neighbours is a word of the index, and so is each character; a question is taken apart in the same way, so
    that 警报 finds every page on which the two stand side by side.
    """

    lang = "en"
    language_name = "English"  # by which the script of its stems is called
    js_splitter_code = """
function splitQuery(query) {
    const words = [];
    for (const run of query.match(/[\\u3400-\\u9fff]+|(?:(?![\\u3400-\\u9fff])[\\p{L}\\p{N}_])+/gu) || []) {
        if (!/^[\\u3400-\\u9fff]{2}/.test(run)) words.push(run);
        else for (let at = 0; at + 1 < run.length; at++) words.push(run.slice(at, at + 2));
    }
    return words;
}
"""

    def split(self, input: str) -> list[str]:  # noqa: A002 - as Sphinx calls it
        words: list[str] = []
        for run in re.findall(rf"{HAN}+|(?:(?!{HAN})\w)+", input):
            if not re.match(HAN, run):
                words.append(run)
                continue
            words.extend(run)
            words.extend(run[at : at + 2] for at in range(len(run) - 1))
        return words


def rooms(app: Sphinx, docname: str, source: list[str]) -> None:
    """The lists of index.md are the order of the site. What a pattern finds besides is put at the end of a list."""
    if docname != app.config.root_doc:
        return
    app.env.note_reread()  # a page may have been added
    listed = {path for _, path in ITEM.findall(source[0])}

    def further(found: re.Match[str]) -> str:
        pages = sorted(path for path in glob(found[1], root_dir=DOCS) if path.removesuffix(".md") not in listed)
        return "\n".join(f"- [{heading(DOCS / path)}]({path})" for path in pages if path != "index.md")

    text = FURTHER.sub(further, source[0])
    trees = []
    for room in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        entries = "\n".join(f"{name} <{path}>" for name, path in ITEM.findall(room))
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {room.splitlines()[0]}\n\n{entries}\n```\n")
    source[0] = text + "\n" + "\n".join(trees)


def heading(file: Path) -> str:
    return next(line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("# "))


def folders(app: Sphinx, document: nodes.document) -> None:
    """A link to a folder leads to its README; where there is none, its words stay."""
    for link in list(document.findall(addnodes.pending_xref)):
        if link["reftype"] != "myst" or link.get("refdomain"):
            continue
        folder = ROOT / Path(link["refdoc"]).parent / link["reftarget"]
        if (folder / "README.md").exists():
            name = (folder / "README").resolve().relative_to(ROOT).as_posix()
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", name, None
        elif folder.is_dir():
            link.replace_self(link.children)


def spoken(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    context["language"] = "zh" if page.endswith(".zh") else "en"


def setup(app: Sphinx) -> None:
    app.add_search_language(EnglishAndChinese)
    app.connect("source-read", rooms)
    app.connect("doctree-read", folders)
    app.connect("html-page-context", spoken)
