import os
import subprocess
import sys

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


@pytest.mark.parametrize(
    "path, tests",
    [
        ("rule/nominal_rate.py", "rule/test_nominal_rate.py"),
        # Only `update_rule.py` imports it.
        ("rule/parameter_level.py", "rule/test_update_rule.py"),
    ],
)
def test_a_module_has_its_own_tests_or_those_of_its_users(path, tests):
    found = mutate.tests_of(f"learned_optimizer/{path}", own=True)
    assert found == [f"tests/learned_optimizer/{tests}"]


def test_the_tests_of_users_and_of_no_module_come_last():
    found = mutate.tests_of("learned_optimizer/rule/features.py")
    names = [test.rpartition("test_")[2] for test in found]
    assert names[:2] == ["features.py", "update_rule.py"]
    assert "loading.py" in names and "weights.py" not in names


def test_every_module_has_tests():
    for package in mutate.PACKAGES:
        for path in (mutate.ROOT / package).rglob("*.py"):
            assert mutate.tests_of(path.relative_to(mutate.ROOT).as_posix())


MODULE = """def plus(x, y):
    return x + y


UNUSED = 3
"""
TESTS = """from imagenet.a import plus


def test_plus():
    assert plus(2, 3) == 5
"""


@pytest.mark.slow
def test_mutants_are_tried_in_a_copy(tmp_path):
    files = {"imagenet/__init__.py": "", "imagenet/a.py": MODULE}
    files["tests/imagenet/test_a.py"] = TESTS
    files["pyproject.toml"] = "[tool.pytest.ini_options]\npythonpath = ['.']\n"
    for name in ("__init__.py", "conftest.py", "mutate.py"):
        files[f"tests/{name}"] = (mutate.ROOT / "tests" / name).read_text()
    change = "imagenet/a.py: constant: 3 -> (6)"
    files["tests/mutants_left.csv"] = f"change,same,why\n{change},yes,It is not used.\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "tests.mutate", "--verdicts=../verdicts.csv"]
    # The second time goes on with the first one's verdicts.
    for number in (1, 4):
        done = subprocess.run(
            [*command, f"--number={number}"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    *verdicts, share = done.stdout.splitlines()
    assert share.startswith("imagenet: 2 of 3, 67% noticed; 1 change nothing;")
    assert sum(verdict.endswith("::test_plus") for verdict in verdicts) == 2
    assert f"5: 44: {change}: MISSED" in verdicts
    rows = (tmp_path.parent / "verdicts.csv").read_text().splitlines()
    assert len(rows) == len(verdicts) == 4
    assert {name: (tmp_path / name).read_text() for name in files} == files
