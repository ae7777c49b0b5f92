"""The recipes are the sizes that their names and the README say."""

import contextlib
import io
import re

import pytest
from conftest import ROOT, door_error
from test_rehearsal import sources_of

from corpus.sources import parsed
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


def test_times_follow_from_the_makers_figures():
    """350m on one 3090: 1.94e19 FLOPs at 40 % of 71 TFLOP/s."""
    model, tokens, _ = presets.read_preset("350m", presets.Settings())
    days = tokens * model.flops_per_token() / (0.4 * 71e12) / 86400
    assert days == pytest.approx(7.9, abs=0.05) and presets.duration(24 * days) == "7.9 days"
    assert [presets.duration(hours) for hours in (0.6, 20.5, 47.4, 48)] == ["1 h", "20 h", "47 h", "2.0 days"]


def test_the_speeds_that_the_questions_name():
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    model, _, _ = presets.read_preset("124m", presets.Settings())
    for card, flops in {"3090": 71e12, "4090": 165e12, "A100": 312e12}.items():
        speed = round(0.4 * flops / model.flops_per_token(), -3)
        assert re.search(rf"{speed:,.0f}( tokens a second)? on an? {card}", page), (card, speed)


def test_a_card_without_a_known_speed_is_one_line():
    assert "needs one of" in door_error(presets, "--card=Voodoo2")


def test_every_data_set_of_the_recipes_has_its_licence_on_the_page():
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    named = set()
    for path in (ROOT / "configs").glob("*.toml"):
        named |= set(re.findall(r"hf:([\w./-]+)", path.read_text(encoding="utf-8")))
        found = [parsed(source, must_exist=False) for source in sources_of(path.stem)]
        named |= {source.hub for source in found if source.path is None}
    assert len(named) > 25 and [name for name in named if f"huggingface.co/datasets/{name})" not in page] == []
