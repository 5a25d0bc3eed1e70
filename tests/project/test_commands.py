"""The command lines of the documentation name modules and flags that there are.

Nothing is run or imported: flags are read out of the sources, where they are defined by
name, from the keys of a table, or from the fields of a dataclass.
"""

import ast
import pathlib
import re
import shlex

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of `learned_optimizer.utils.flags`, under the names it is imported by.
DEFINE = ("define_flags", "define_settings")
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


def flags_of(path, imported=False):
    """The names of the flags that a program defines.

    Args:
        path: Of its source.
        imported: Whether it is only imported, and so defines those alone that are not
            in a function.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    found = set()
    for node in _walk(top if imported else tree.body):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if function.endswith("define_modules"):
            found.add("modules")
        if not node.args:
            continue
        name = node.args[0]
        if function in DEFINE:
            found |= _fields_of_dataclasses(tree)
        if not re.search(r"\bDEFINE_\w+$|\b_?define$", function):
            continue
        if isinstance(name, ast.Constant):
            found.add(name.value)
        elif isinstance(name, ast.Name):
            found |= _keys_of_tables(tree)
        else:
            found |= _fields_of_dataclasses(tree)
    for source in _imported_sources(top):
        found |= flags_of(source, imported=True)
    return found


def _walk(nodes):
    for node in nodes:
        yield from ast.walk(node)


def _keys_of_tables(tree):
    """Keys of dicts at the top, and first entries of the rows of a loop."""
    keys = [
        key
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
    ]
    keys += [
        row.elts[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)
        for row in node.iter.elts
        if isinstance(row, ast.Tuple)
    ]
    return {key.value for key in keys if isinstance(key, ast.Constant)}


def _fields_of_dataclasses(tree):
    """Of all classes that the source gives to `define_flags` or asks for fields."""
    wanted = {
        ast.unparse(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in (*DEFINE, "dataclasses.fields")
        for argument in node.args
    }
    return _fields_of(wanted, tree)


def _fields_of(names, tree):
    """Of the classes of these names, in this source or one it imports, and bases."""
    found = set()
    for other in [tree, *map(_parsed, _imported_sources(tree.body, named=True))]:
        for node in other.body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                found |= {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign)
                }
                if node.bases:
                    found |= _fields_of(set(map(ast.unparse, node.bases)), other)
    return found


def _parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported_sources(nodes, named=False):
    """The sources of modules that are imported as such, or `named` in `from` too."""
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.partition(".")[0] not in PACKAGES:
            continue
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        if named:
            names.append(node.module)
        for path in map(source_of, names):
            if path and path.name != "__main__.py":
                yield path


def faults(text):
    """What is wrong with the commands of a page, in words."""
    for module, flags in commands(text):
        path = source_of(module)
        if path is None or "__main__" not in path.read_text(encoding="utf-8"):
            yield f"{module} cannot be run"
            continue
        known = flags_of(path)
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
        (
            "`python -m\nmeta_training.files`",
            ["meta_training.files cannot be run"],
        ),
        (
            "```sh\npython -m meta_training.publish --limits='a\nb --x' --y\n```\n",
            ["meta_training.publish has no --y"],
        ),
        # Defined by the module that it imports, by a table, and by a dataclass.
        (
            "`python -m imagenet.benchmark --batch_size=1 --probe_steps=1 --steps=1`",
            ["imagenet.benchmark has no --steps"],
        ),
        (
            "`python -m learned_optimizer.released --noattention --attentive`",
            ["learned_optimizer.released has no --attentive"],
        ),
    ],
)
def test_faults_are_found(text, wanted):
    assert list(faults(text)) == wanted
