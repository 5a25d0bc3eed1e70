"""The command lines of the documentation name modules and flags that there are.

Nothing is run or imported: the names of flags are looked for in the sources.
"""

import ast
import functools
import pathlib
import re
import shlex

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")
# Blocks of code, and code in the text.
CODE = re.compile(r"^```\w*\n(.*?)^```$|`([^`]+)`", re.DOTALL | re.MULTILINE)


def commands(text):
    """`(module, flags)` of every command of these packages in the code of a page."""
    for block, span in CODE.findall(text):
        pending = ""
        for line in (block or span.replace("\n", " ")).split("\n"):
            pending += line
            if line.endswith("\\"):
                pending = pending[:-1] + " "
                continue
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:
                # A quotation that goes on in the next line.
                pending += "\n"
                continue
            pending = ""
            for place, word in enumerate(words[:-2]):
                module = words[place + 2]
                is_ours = module.partition(".")[0] in PACKAGES
                if [word, words[place + 1]] == ["python", "-m"] and is_ours:
                    flags = [w for w in words[place + 3 :] if w.startswith("-")]
                    yield module, [f.lstrip("-").partition("=")[0] for f in flags]


def source_of(module):
    """The file that `python -m` runs; None if there is none."""
    path = ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__main__.py"):
        if found.is_file():
            return found
    return None


@functools.cache
def names_of(path):
    """What could be a flag: fields of classes and texts of one word in a program and in
    the modules of ours that it imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
            found |= {field.target.id for field in fields}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            ours = (n for n in names if n.partition(".")[0] in PACKAGES)
            for other in filter(None, map(source_of, ours)):
                if other.name != "__main__.py":
                    found |= names_of(other)
    return found


def faults(text):
    """What is wrong with the commands of a page, in words."""
    for module, flags in commands(text):
        path = source_of(module)
        if path is None or "__main__" not in path.read_text(encoding="utf-8"):
            yield f"{module} cannot be run"
            continue
        known = names_of(path)
        for flag in flags:
            if flag not in known and flag.removeprefix("no") not in known:
                yield f"{module} has no --{flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    lines = re.findall(rf"^python -m (?:{'|'.join(PACKAGES)})\b", text, re.MULTILINE)
    assert len(list(commands(text))) >= len(lines)
    assert list(faults(text)) == []


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("`python -m meta_training.train --train_dir=x --noseed`", []),
        (
            "```sh\npython -m meta_training.train --train_dir=x \\\n  --sede=1\n```\n",
            ["meta_training.train has no --sede"],
        ),
        (
            "```sh\npython -m imagenet.nothing  # it's no module\n```\n",
            ["imagenet.nothing cannot be run"],
        ),
        ("`python -m\nmeta_training.files`", ["meta_training.files cannot be run"]),
        (
            "```sh\npython -m meta_training.publish --limits='a\nb --x' --y\n```\n",
            ["meta_training.publish has no --y"],
        ),
    ],
)
def test_faults_are_found(text, wanted):
    assert list(faults(text)) == wanted
