import subprocess

import pytest

from tests import mutate

SOURCE = '''"""Words 1."""


def area(width: float = 2, *, height):
    size = f"{width + 1}"
    if width < 0 and not height:
        raise ValueError(size)
    return pow(width * height, 2, mod=abs)
'''


@pytest.mark.parametrize(
    "kind, before, after",
    [
        ("statement", 'size = f"{width + 1}"', "pass"),
        ("statement", "raise ValueError(size)", "pass"),
        ("statement", "return pow(width * height, 2, mod=abs)", "pass"),
        ("operator", "width < 0 and not height", "(width < 0 or not height)"),
        ("operator", "not height", "(height)"),
        ("operator", "width * height", "(width / height)"),
        ("comparison", "width < 0", "(width <= 0)"),
        ("constant", "2", "(4)"),
        ("constant", "0", "(1)"),
        (
            "argument",
            "pow(width * height, 2, mod=abs)",
            "(pow(2, width * height, mod=abs))",
        ),
        ("argument", "pow(width * height, 2, mod=abs)", "(pow(width * height, 2))"),
    ],
)
def test_what_a_mutant_changes(kind, before, after):
    found = [m for m in mutate.mutants_of("a.py", SOURCE) if m.kind == kind]
    mutant = next(m for m in found if (m.before, m.after) == (before, after))
    assert mutant.applied(SOURCE).count(after) == SOURCE.count(after) + 1
    compile(mutant.applied(SOURCE), "a.py", "exec")


def test_the_order_of_what_is_compared_is_left_alone():
    for call in ("max(a, b)", "np.minimum(a, b)"):
        assert not mutate.mutants_of("a.py", call + "\n")[1:]


def test_no_mutant_is_of_text_or_annotations():
    for mutant in mutate.mutants_of("a.py", SOURCE):
        assert mutant.line >= 4
        assert '"""Words 1."""' in mutant.applied(SOURCE)


def test_the_seed_decides_what_is_drawn():
    drawn = [mutate.draw(20, seed, "learned_optimizer/rule") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {mutant.kind for mutant in drawn[0]} == {
        *("statement", "operator", "comparison", "constant", "argument")
    }


def test_every_module_has_tests():
    own = "learned_optimizer/rule/nominal_rate.py"
    assert (
        mutate.tests_of(own)[0] == "tests/learned_optimizer/rule/test_nominal_rate.py"
    )
    for package in mutate.PACKAGES:
        for path in (mutate.ROOT / package).rglob("*.py"):
            assert mutate.tests_of(path.relative_to(mutate.ROOT).as_posix())


@pytest.mark.slow
def test_mutants_are_tried_in_a_copy(tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    module, tests = (
        root / "imagenet" / "a.py",
        root / "tests" / "imagenet" / "test_a.py",
    )
    for path, text in (
        (root / "imagenet" / "__init__.py", ""),
        (module, "def plus(x, y):\n    return x + y\n\n\nUNUSED = 3\n"),
        (
            tests,
            "from imagenet.a import plus\n\n\ndef test():\n    assert plus(2, 3) == 5",
        ),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    monkeypatch.setattr(mutate, "ROOT", root)
    mutate.tests_of.cache_clear()
    copy = mutate.Copy(tmp_path / "copy")
    before = {path: path.read_bytes() for path in (module, tests)}
    said = {m.before: copy.judge(m, 60) for m in mutate.draw(9, 0)}
    assert said["x + y"] == said["return x + y"] == "noticed"
    assert said["3"] == said["UNUSED = 3"] == "missed"
    assert before == {path: path.read_bytes() for path in (module, tests)}
    mutate.tests_of.cache_clear()
