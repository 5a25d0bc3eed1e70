"""The page on errors knows all that a user of the Keras class can meet."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "learned_optimizer"
MODULES = [
    *(PACKAGE / "keras_step").glob("*.py"),
    *(PACKAGE / name for name in ("hierarchical_rnn.py", "callbacks.py")),
]


def first_words(message):
    """Of a string or an f-string, in which each expression is read as `…`."""
    parts = message.values if isinstance(message, ast.JoinedStr) else [message]
    text = "".join(
        str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
    )
    return " ".join(text.split()[:5]).rstrip(".")


def messages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        raised = node.exc if isinstance(node, ast.Raise) else None
        is_warning = (
            isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
        )
        call = node if is_warning else raised
        if isinstance(call, ast.Call) and call.args:
            # What begins with another message is that one's.
            words = first_words(call.args[0])
            if not words.startswith("…"):
                yield words


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_message_is_explained(path):
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
    # Rows of the table begin alike.
    page = page.replace('| "', '| "A state must ')
    missing = [words for words in messages(path) if words not in page]
    assert missing == []
