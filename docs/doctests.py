"""Shows the doctests of docstrings as code in the API reference."""

import re

import griffe

_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1(?! *$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts a fence of Markdown around each doctest: `>>>` would be a quotation."""

    def on_object(self, *, obj, **_):
        """Changes the docstring of what was loaded."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(_fenced, obj.docstring.value)


def _fenced(found):
    indent = found[1]
    return f"{indent}```pycon\n{found[0]}\n{indent}```"
