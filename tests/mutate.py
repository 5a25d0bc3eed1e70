r"""Changes the code at random places and counts the changes that the tests notice.

    python -m tests.mutate --number=200 --seed=0
    python -m tests.mutate --number=10 --only=learned_optimizer/rule

A mutant is one change of the syntax tree: a statement is dropped, an operator, a
comparison, a constant or an argument is another one. The tests of its module run in a
copy of the checkout, so the working tree is never touched. They are those of the
mirrored layout (`tests/a/b/test_c.py` for `a/b/c.py`), then those of the same package
that import the module.

mutmut and cosmic-ray were looked at. mutmut runs the tests in forks of one process,
which TensorFlow does not survive; cosmic-ray writes into the working tree; neither
drops statements and arguments of a sample that a seed draws.
"""

import argparse
import ast
import collections
import dataclasses
import functools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

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

    def applied(self, source: str) -> str:
        """The source with the change."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    def __str__(self):
        cut = [" ".join(text.split())[:70] for text in (self.before, self.after)]
        return f"{self.path}:{self.line}: {self.kind}: {cut[0]!r} -> {cut[1]!r}"


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


def places(node):
    """The nodes of a tree that count: no annotation, no text, no import."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Within f-strings nodes have no places of their own before Python 3.12.
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from places(child)


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All mutants of a file."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node in places(ast.parse(source)):
        for kind, instead in changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            after = ast.unparse(ast.fix_missing_locations(instead))
            if isinstance(node, ast.expr):
                after = f"({after})"
            before = source.encode()[start:end].decode()
            found.append(Mutant(path, node.lineno, kind, before, after, start, end))
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


@functools.cache
def tests_of(path: str) -> tuple[str, ...]:
    """The test files of a module, its own first; all of the folder if it has none."""
    module = pathlib.PurePosixPath(path)
    folder = ROOT / "tests" / module.parent
    package, name = ".".join(module.parent.parts), module.stem
    ways = (f"{package}.{name} import", f"from {package} import {name}")
    found = {folder / f"test_{name}.py": None}
    files = sorted((ROOT / "tests" / module.parts[0]).rglob("test_*.py"))
    for file in sorted(files, key=lambda file: file.parent != folder):
        if any(way in file.read_text(encoding="utf-8") for way in ways):
            found[file] = None
    found = [file for file in found if file.is_file()]
    while not found:
        found = sorted(folder.glob("test_*.py"))
        folder = folder.parent
    return tuple(file.relative_to(ROOT).as_posix() for file in found)


class Copy:
    """A copy of the working tree in which mutants are tried."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._passes: dict[tuple, bool] = {}
        command = "git ls-files -z --cached --others --exclude-standard"
        names = subprocess.check_output(command.split(), cwd=ROOT, text=True)
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)

    def judge(self, mutant: Mutant, time_limit: float) -> str:
        """What the tests say: `noticed`, `missed`, or that they fail without it.

        The tests of a file run without the mutant only where they fail with one.
        """
        tests = tests_of(mutant.path)
        path = self.folder / mutant.path
        source = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied(source), encoding="utf-8")
        passed, said = self._run(tests, time_limit)
        path.write_text(source, encoding="utf-8")
        if passed:
            return "missed"
        # Nothing is said of a file where the process died or took too long.
        failed = tuple(re.findall(r"^(?:FAILED|ERROR) ([^:\s]+)", said, re.MULTILINE))
        failed = failed[:1] or tests
        if failed not in self._passes:
            self._passes[failed], _ = self._run(failed, time_limit)
        return "noticed" if self._passes[failed] else "tests fail without it"

    def _run(self, tests, time_limit):
        """Whether tests pass within the time, and what they printed."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, *tests],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=time_limit)
            return process.returncode == 0, said
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False, ""


def main() -> int:
    """Draws, judges, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=200, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="beginning of the paths to mutate")
    parser.add_argument("--time_limit", type=float, default=900, help="seconds each")
    options = parser.parse_args()
    counts = {package: collections.Counter() for package in PACKAGES}
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(pathlib.Path(folder))
        for mutant in draw(options.number, options.seed, options.only):
            said = copy.judge(mutant, options.time_limit)
            counts[mutant.path.partition("/")[0]][said] += 1
            print(f"{said}: {mutant}", flush=True)
    for package, said in counts.items():
        if total := said["noticed"] + said["missed"]:
            share = said["noticed"] / total
            print(f"{package}: {said['noticed']} of {total} noticed, {share:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
