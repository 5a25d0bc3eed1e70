r"""Changes the code at random places and counts the changes that the tests notice.

    python -m tests.mutate --number=200 --seed=0 --verdicts=build/mutants.csv
    python -m tests.mutate --number=10 --only=learned_optimizer/rule --slow

A mutant is one change of the syntax tree: a statement is dropped, an operator, a
comparison, a constant or an argument is another one. The tests of its module run in a
copy of the checkout, so the working tree is never touched. First come those of the
mirrored layout (`tests/a/b/test_c.py` for `a/b/c.py`). Where they pass, others of the
package follow, see `tests_of`; with `--slow`, slow ones too. Verdicts that the file
already has are kept, but with `--slow` those that were missed.

Each mutant has a fork of this process, which has imported TensorFlow but run nothing
of it. mutmut and cosmic-ray were looked at. mutmut imports the code before it forks,
which TensorFlow does not survive; cosmic-ray writes into the working tree; neither
drops statements and arguments of a sample that a seed draws.
"""

import argparse
import ast
import collections
import contextlib
import csv
import dataclasses
import functools
import gc
import importlib
import inspect
import itertools
import multiprocessing
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import types

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")
OTHER = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.MatMult: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr},
    **{ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
# Mutants that no test notices, and why; `same` is "yes" where they change nothing.
LEFT = pathlib.Path(__file__).with_name("mutants_left.csv")
TOO_LONG = "took too long"
STATEMENTS = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return, ast.Raise, ast.Delete)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file: `before` at a line becomes `after`."""

    path: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int
    within: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The source with the change."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    @property
    def change(self) -> str:
        """What is changed, in short and without its line."""
        cut = [" ".join(text.split())[:70] for text in (self.before, self.after)]
        return f"{self.path}: {self.kind}: {cut[0]} -> {cut[1]}"

    @property
    def key(self) -> tuple[str, ...]:
        """What a row of verdicts begins with."""
        return str(self.line), str(self.start), self.change


def changes(node):
    """Yields `(kind, node instead)` of the changes that a node can have."""
    copied = functools.partial(_with, node)
    if isinstance(node, STATEMENTS) and not _is_text(node):
        yield "statement", ast.Pass()
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
        yield "operator", copied(op=OTHER[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "operator", node.operand
    if isinstance(node, ast.Compare):
        yield "comparison", copied(ops=[OTHER[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "constant", ast.Constant(node.value * 2 if node.value else 1)
    if isinstance(node, ast.Call):
        # The order of what is compared changes nothing.
        ordered = not re.search(r"\b(max|min)(imum)?$", ast.unparse(node.func))
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        if len(node.args) > 1 and ordered and not starred:
            yield "argument", copied(args=[*node.args[1::-1], *node.args[2:]])
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                kept = [*node.keywords[:i], *node.keywords[i + 1 :]]
                yield "argument", copied(keywords=kept)


def _with(node, **fields):
    """A copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def places(node, within=()):
    """The nodes of a tree that count, no annotation, text or import, and the functions
    and classes that they are in."""
    yield node, within
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        within = (*within, node.name)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Within f-strings nodes have no places of their own before Python 3.12.
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from places(child, within)


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All mutants of a file."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node, within in places(ast.parse(source)):
        for kind, instead in changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            after = ast.unparse(ast.fix_missing_locations(instead))
            if isinstance(node, ast.expr):
                after = f"({after})"
            before = source.encode()[start:end].decode()
            where = (start, end, within)
            found.append(Mutant(path, node.lineno, kind, before, after, *where))
    return found


def draw(number: int, seed: int, only: str = "") -> list[Mutant]:
    """Draws mutants, each kind and then each place of it with the same chance."""
    by_kind = collections.defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(only):
                for mutant in mutants_of(name, path.read_text(encoding="utf-8")):
                    by_kind[mutant.kind].append(mutant)
    generator = random.Random(seed)
    for mutants in by_kind.values():
        generator.shuffle(mutants)
    kinds = sorted(by_kind)
    drawn = []
    while len(drawn) < number and any(by_kind.values()):
        kind = kinds[len(drawn) % len(kinds)]
        if by_kind[kind]:
            drawn.append(by_kind[kind].pop())
        else:
            kinds.remove(kind)
    return drawn


def tests_of(path: str, own: bool = False) -> list[str]:
    """The test files of a module, closest first.

    They are its own; those that import it; those of the modules that use it; those of
    its package that belong to no module, and those of all settings if it has some.

    Args:
        path: The module.
        own: The first of these kinds that there is alone.
    """
    mirrored = [mirror for mirror in [mirror_of(path)] if (ROOT / mirror).is_file()]
    package = f"tests/{path.partition('/')[0]}"
    importing = [test for test in importers(path, package) if "/test_" in test]
    rest = [test.relative_to(ROOT) for test in sorted((ROOT / package).rglob("test_*"))]
    rest = [test.as_posix() for test in rest if not module_of(test).is_file()]
    has_settings = "setting(" in (ROOT / path).read_text(encoding="utf-8")
    rest += ["tests/project/test_settings.py"] * has_settings
    kinds = [mirrored, importing, tests_of_users(path), rest]
    if own:
        return next(filter(None, kinds))
    return list(dict.fromkeys(itertools.chain(*kinds)))


def tests_of_users(path: str) -> list[str]:
    """The own tests of the modules that use one; if they have none, of their users."""
    found = []
    for user in itertools.chain(*(importers(path, package) for package in PACKAGES)):
        is_tested = (ROOT / mirror_of(user)).is_file()
        found += [mirror_of(user)] if is_tested else tests_of_users(user)
    return found


def mirror_of(path: str) -> str:
    """Where the tests of a module lie."""
    folder, _, name = path.rpartition("/")
    return f"tests/{folder}/test_{name}"


def module_of(test: pathlib.Path) -> pathlib.Path:
    """Where the module of a test file would lie."""
    return ROOT.joinpath(*test.parts[1:-1], test.name.removeprefix("test_"))


@functools.cache
def importers(path: str, folder: str) -> list[str]:
    """The files of a folder that import a module, those closest to it first."""
    package, _, name = path.removesuffix(".py").replace("/", ".").rpartition(".")
    names = rf"from {re.escape(package)} import (\([^)]*|.*)\b{name}\b"
    imported = re.compile(rf"\b{re.escape(package)}\.{name} import|{names}")
    found = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / folder).rglob("*.py"))
        if imported.search(file.read_text(encoding="utf-8"))
    ]
    return sorted(found, key=lambda file: f"{path.rpartition('/')[0]}/" not in file)


class Copy:
    """A copy of the working tree in which mutants are tried."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        files = "git ls-files -z --cached --others --exclude-standard"
        command = f"{files} | tar --null -cf - -T - | tar -xf - -C {folder}"
        subprocess.run(command, shell=True, cwd=ROOT, check=True)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)

    def judge(self, mutant: Mutant, slow: bool, time_limit: float) -> str:
        """The test that fails with a mutant, "" if none does."""
        path, kept = self.folder / mutant.path, self.folder / "kept.py"
        source = path.read_text(encoding="utf-8")
        # Its time stays, so that Python never mistakes compiled code of the mutant.
        path.rename(kept)
        path.write_text(mutant.applied(source), encoding="utf-8")
        failed = []
        for own in (False,) if slow else (True, False):
            options = ["-x", "-m", "" if slow else "not slow"]
            options += tests_of(mutant.path, own)
            failed = failed or self.failing(options, time_limit, mutant.within)
        kept.replace(path)
        return failed[0] if failed else ""

    def failing(self, options, time_limit=None, names=()) -> list[str]:
        """The tests that fail, or why pytest ended otherwise."""
        said = self.folder / "said.txt"
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_test, args=(said, options, names))
        process.start()
        process.join(time_limit)
        took_too_long = process.is_alive()
        # What it started may go on without it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        if took_too_long:
            return [TOO_LONG]
        if not process.exitcode:
            return []
        found = re.findall(
            r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said.read_text(), re.M
        )
        return found or [f"exit status {process.exitcode}"]


def _test(said, options, names):
    """Runs pytest in a fork, in the folder that `said` is in.

    Tests that name a function or class of `names` come first.
    """
    os.setsid()
    os.chdir(said.parent)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["PYTHONPATH"] = str(said.parent)
    sys.path[:] = [str(said.parent)] + [path for path in sys.path if path != str(ROOT)]
    for name in [name for name in sys.modules if name.startswith("tests")]:
        del sys.modules[name]
    import pytest

    def named(item):
        words = set(re.findall(r"\w+", inspect.getsource(item.function)))
        return -len(words.intersection(names))

    order = types.SimpleNamespace(
        pytest_collection_modifyitems=lambda items: items.sort(key=named)
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    os._exit(pytest.main(options, plugins=[order]))


def main() -> int:
    """Draws, judges, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=200, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="beginning of the paths to mutate")
    parser.add_argument("--slow", action="store_true", help="all tests of a module")
    parser.add_argument("--time_limit", type=float, default=900, help="seconds each")
    parser.add_argument("--verdicts", default=os.devnull, help="CSV to go on with")
    options = parser.parse_args()
    drawn = draw(options.number, options.seed, options.only)
    drawn.sort(key=lambda mutant: PACKAGES.index(mutant.path.partition("/")[0]))
    # The tests' environment, then what takes long to import and to collect.
    for name in ("tests.conftest", "tensorflow", "keras", "hypothesis"):
        importlib.import_module(name)
    gc.freeze()
    with (
        open(options.verdicts, "a+", encoding="utf-8", newline="") as file,
        tempfile.TemporaryDirectory() as folder,
    ):
        file.seek(0)
        failed = {tuple(row[:-1]): row[-1] for row in csv.reader(file)}
        copy = Copy(pathlib.Path(folder))
        for mutant in drawn:
            key = mutant.key
            if key not in failed or (options.slow and not failed[key]):
                failed[key] = copy.judge(mutant, options.slow, options.time_limit)
                csv.writer(file).writerow([*key, failed[key]])
                file.flush()
            print(f"{': '.join(key)}: {failed[key] or 'MISSED'}", flush=True)
        tests = {test for test in failed.values() if "::" in test}
        unclear = {
            TOO_LONG,
            *(copy.failing(["-m", "", *sorted(tests)]) if tests else ()),
        }
    with LEFT.open(encoding="utf-8", newline="") as file:
        same = {row["change"] for row in csv.DictReader(file) if row["same"] == "yes"}
    for package in PACKAGES:
        said = collections.Counter()
        for mutant in drawn:
            if mutant.path.startswith(f"{package}/"):
                test = failed[mutant.key]
                missed = "same" if mutant.change in same else "missed"
                said[
                    ("unclear" if test in unclear else "noticed") if test else missed
                ] += 1
        if total := said["noticed"] + said["missed"]:
            share = f"{said['noticed']} of {total}, {said['noticed'] / total:.0%}"
            print(
                f"{package}: {share} noticed; {said['same']} change nothing; ", end=""
            )
            print(f"of {said['unclear']} the tests fail anyway or take too long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
