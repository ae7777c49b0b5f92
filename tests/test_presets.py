"""The recipes are the sizes that their names and the README say."""

import contextlib
import io

import pytest
from conftest import ROOT

from experiments import presets


@pytest.mark.parametrize("name, millions", [("124m", 124), ("350m", 350), ("0.5b", 500), ("1b", 1000)])
def test_a_preset_has_the_size_of_its_name_and_twenty_tokens_per_parameter(name, millions):
    model, tokens, memory = presets.read_preset(name, presets.Settings())
    assert model.n_params() / 1e6 == pytest.approx(millions, rel=0.02)
    assert tokens / model.n_params() == pytest.approx(20, rel=0.05)
    assert memory < 20 * 2**30, "leaves room on a 24 GB card"


def test_readme_shows_the_table_that_presets_prints():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        presets.main(presets.Settings())
    assert printed.getvalue() in (ROOT / "README.md").read_text(encoding="utf-8")
