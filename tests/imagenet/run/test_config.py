"""The settings of a run: what the page says of them."""

import pathlib

from imagenet.run.config import RunConfig
from learned_optimizer.utils.flags import settings_table

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "imagenet.md"


def test_the_page_has_every_setting():
    assert settings_table(RunConfig) in PAGE.read_text(encoding="utf-8")
