"""What must hold for every file that is tracked, whatever it is about."""

import ast
import functools
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Written in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(
    r"(?<![\w./~$}-])/(?:" + "|".join(["work", "root", "home", "Users", "mnt"]) + r")/"
)
REGISTRY_HOST = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("deb", "debian", "org"),
            ("anaconda", "org"),
        ]
    )
)
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "joblib"}


@functools.cache
def tracked_files():
    """The files of the repository: tracked, or new and not ignored."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_files():
    """`(path, text)` of each tracked file that is text."""
    for path in tracked_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def find_lines(pattern):
    """The places where `pattern` occurs, as readable lines."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_one_machine():
    assert find_lines(MACHINE_PATH) == []


def test_no_merge_is_left_open():
    assert find_lines(re.compile("^(<{7}|>{7}) ")) == []


def test_no_host_of_a_package_registry():
    assert find_lines(REGISTRY_HOST) == []


def test_nothing_is_unpickled():
    found = []
    for path, text in text_files():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                off = isinstance(node.value, ast.Constant) and node.value.value is False
                modules = set() if off else {"pickle"}
            else:
                continue
            if modules & UNPICKLERS:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_the_commands_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    # At the start of code only: "make" is also an English word and a Debian package.
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", code, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):(?!=)", makefile, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_files_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tracked_files_are_small():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked_files()}
    large = [path for path in sizes if path.suffix == ".csv" and sizes[path] > 200_000]
    assert large == []
    assert sum(sizes.values()) <= 8_000_000


def test_pages_are_short():
    lines = {
        page: len((ROOT / page).read_text(encoding="utf-8").splitlines())
        for page in (
            *("README.md", "BUILD_NOTES.md"),
            *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
        )
    }
    assert lines.pop("README.md") <= 200
    assert lines.pop("BUILD_NOTES.md") <= 200
    assert sum(lines.values()) <= 3000


def test_the_modules_that_pages_name_exist():
    names = [f"/{path.relative_to(ROOT).as_posix()}" for path in tracked_files()]
    missing = []
    for path, text in text_files():
        if path.suffix == ".md" and (path.parent == ROOT or path.parent.name == "docs"):
            prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
            for name in re.findall(r"`([\w./]+\.py)(?::[^`]*)?`", prose):
                if not any(other.endswith(f"/{name}") for other in names):
                    missing.append(name)
    # What a reader of the page on meta-training writes.
    assert missing == ["valleys.py"]
