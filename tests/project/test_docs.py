"""The Python of the documentation runs as it stands."""

import pathlib
import re
import sys
import types

import pytest

from tests.conftest import installed

ROOT = pathlib.Path(__file__).parents[2]
# Packages outside of the extras that `make setup` installs.
NEEDED = {"model_garden": "official"}
# The others take half a minute each.
QUICK = ("mathematics",)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if BLOCK.search(page.read_text(encoding="utf-8"))
]


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, marks=() if page.stem in QUICK else pytest.mark.slow, id=page.stem
        )
        for page in PAGES
    ],
)
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    needed = NEEDED.get(page.stem)
    if needed and not installed(needed):
        pytest.skip(f"{needed} is not installed")
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    # AutoGraph reads the source of what it converts at the lines it is told.
    blocks = [
        "\n" * text.count("\n", 0, found.start(1)) + found[1]
        for found in BLOCK.finditer(text)
    ]
    # Dataclasses look for the module that they are defined in.
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    for block in blocks:
        exec(compile(block, str(page), "exec"), module.__dict__)


@pytest.mark.backend("tensorflow")
def test_the_minute_of_the_readme_runs():
    pytest.importorskip("sklearn")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [found for found in BLOCK.findall(text) if "load_digits" in found]
    assert "epochs=10" in block
    names = {}
    exec(block.replace("epochs=10", "epochs=1"), names)
    (loss,) = names["model"].history.history["loss"]
    # Of a network that has learned nothing: ln 10 = 2.3.
    assert loss < 2.0
