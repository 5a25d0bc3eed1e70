"""What may import what: read from the sources, imports inside functions included."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")
LARGEST_FOLDER = 20

# From the bottom up: a folder of `learned_optimizer` imports only from itself and
# those before it here. Top-level modules stand between and after the folders; "" is
# the package's `__init__`.
LEARNED_OPTIMIZER = (
    "utils",
    "rule",
    "interop",
    "weights",
    "keras_step",
    "hierarchical_rnn",
    "callbacks",
    "",
    "released",
    "export",
    "benchmark",
    "benchmark_models",
    "model_garden",
)


@functools.cache
def modules():
    """`{dotted name: path}` of every module and package."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@functools.cache
def imports():
    """`{module: modules of ours that it imports}`, wherever the import stands."""
    return {name: set(_imports_of(path)) for name, path in modules().items()}


def _imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it points"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            wanted = [name if name in modules() else node.module for name in submodules]
        else:
            continue
        yield from (name for name in wanted if name in modules())


def circle_in(graph):
    """A circle of a graph of imports, as a list of names; None without one."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :] + [name]
        if name in done:
            return None
        path.append(name)
        found = next(filter(None, map(visit, sorted(graph.get(name, ())))), None)
        path.pop()
        done.add(name)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


def test_no_module_imports_itself_by_way_of_others():
    assert circle_in(imports()) is None


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("learned_optimizer", ("meta_training", "imagenet")),
        ("meta_training", ("imagenet",)),
        ("imagenet", ("meta_training",)),
    ],
)
def test_packages_point_one_way(package, strangers):
    wrong = [
        (name, wanted)
        for name, all_wanted in imports().items()
        for wanted in all_wanted
        if name.split(".")[0] == package and wanted.split(".")[0] in strangers
    ]
    assert wrong == []


def test_folders_of_the_optimizer_point_one_way():
    def place(name):
        return LEARNED_OPTIMIZER.index((name.split(".") + [""])[1])

    wrong = [
        (name, wanted)
        for name, all_wanted in imports().items()
        for wanted in all_wanted
        if name.startswith("learned_optimizer") and place(wanted) > place(name)
    ]
    assert wrong == []


def test_no_folder_is_crowded():
    folders = [path.parent for path in modules().values() if path.stem != "__init__"]
    crowded = {
        str(folder.relative_to(ROOT)): folders.count(folder)
        for folder in folders
        if folders.count(folder) > LARGEST_FOLDER
    }
    assert crowded == {}
