"""Builds the pages and an API reference as one site: `make docs`.

The pages are copied with the tree around them, so that a link leads where it leads in
the repository. The reference has a page a folder of the packages, made from docstrings.
"""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")
# What the pages show or link to.
LINKED = (
    "*.md",
    "*.png",
    "*.csv",
    "*.xz",
    "*.json",
    "*.npz",
    "*.txt",
    "*.c",
    "LICENSE",
)


def copy_pages() -> None:
    """Copies the pages, and the files that they may link to, into `PAGES`."""
    listing = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            *LINKED,
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            target = PAGES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)


def write_reference() -> None:
    """Writes a page a folder, with the public modules in it, and their index."""
    folder = PAGES / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    index = ["# API reference\n", "What a user imports is in `learned_optimizer`.\n"]
    for package in PACKAGES:
        inits = sorted((ROOT / package).rglob("__init__.py"))
        for init in inits:
            name = ".".join(init.parent.relative_to(ROOT).parts)
            modules = sorted(path.stem for path in init.parent.glob("[!_]*.py"))
            entries = [name, *(f"{name}.{module}" for module in modules)]
            text = "\n".join(f"::: {entry}" for entry in entries)
            (folder / f"{name}.md").write_text(
                f"# {name}\n\n{text}\n", encoding="utf-8"
            )
            index.append(f"- [`{name}`]({name}.md)")
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")


def main() -> int:
    """Builds the site into `build/site`; returns the exit status of MkDocs."""
    shutil.rmtree(PAGES, ignore_errors=True)
    copy_pages()
    write_reference()
    command = [sys.executable, "-m", "mkdocs", "build"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
