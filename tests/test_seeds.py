"""Several runs of one recipe: what --seed changes in its steps, and the spread between runs."""

import json

import pytest
from conftest import ROOT, door_error

import recipe
from experiments import seeds


def test_another_seed_trains_on_the_same_data_into_another_folder():
    steps = recipe.read_steps([str(ROOT / "configs/demo.toml")])
    others = [recipe.with_seed(step, "out/demo", recipe.Path("out/demo-seed2"), 2) for step in steps]
    for step, other in zip(steps, others, strict=True):
        expected = vars(step.settings).copy()
        for name, value in expected.items():
            if isinstance(value, str) and value.startswith("out/demo/"):
                expected[name] = value.replace("out/demo/", "out/demo-seed2/")
        if step.stage in recipe.TRAINING:
            expected["seed"] = 2
        assert vars(other.settings) == expected, step.name
        assert step.stage in recipe.TRAINING or step.stage == "eval_humaneval" or other.settings == step.settings
    arguments = recipe.command_of(others[-1], 1, resume=False)
    assert "--checkpoint=out/demo-seed2/sft" in arguments and "--out_dir=out/demo-seed2/eval-tuned" in arguments


def test_a_folder_moves_wherever_a_setting_names_it():
    given = {"out/x": "out/y", "out/x/a:1,out/x/b:2": "out/y/a:1,out/y/b:2", "data/p,./out/x/p": "data/p,out/y/p"}
    given |= {name: name for name in ("out/xy/a", "my/out/x/a", "data/p", "")}
    assert {text: recipe.in_folder(text, "out/x", "out/y") for text in given} == given


def run_folder(folder, n=100, **scores):
    """The folder of a recipe whose ladder has these scores of two models, {set: (base, tuned)}; None: not scored."""
    ladder = {}
    for name, values in scores.items():
        models = [pair for pair in zip(("base", "tuned"), values) if pair[1] is not None]
        ladder[name] = {model: {"pass@1": value, "stderr": 0.05, "n": n} for model, value in models}
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"ladder": ladder}))
    return str(folder)


def test_means_and_spreads_of_three_runs(tmp_path, capsys):
    folders = [run_folder(tmp_path / str(n), nouns=(n / 10, n / 5), mbpp=(0.1, 0.2)) for n in (1, 2, 3)]
    seeds.main(seeds.Settings(recipes=",".join(folders), out=str(tmp_path / "seeds.json")))
    found = json.loads((tmp_path / "seeds.json").read_text())["ladder"]
    assert found["mbpp"]["tuned"] == pytest.approx(
        {"pass@1": 0.2, "sd": 0, "stderr": 0.05, "gain": 0.1, "gain_stderr": 0}
    )
    # Of 0.2, 0.4, 0.6 the deviation is 0.2; the gains are 0.1, 0.2, 0.3, whose mean is known to 0.1 / sqrt(3).
    expected = {"pass@1": 0.4, "sd": 0.2, "stderr": 0.05, "gain": 0.2, "gain_stderr": 0.1 / 3**0.5}
    assert found["nouns"]["tuned"] == pytest.approx(expected)
    assert "40.0% +- 20.0% (5.0%)" in capsys.readouterr().out


def test_a_model_that_was_not_scored_on_a_set_leaves_its_column_empty(tmp_path, capsys):
    folders = [run_folder(tmp_path / str(n), nouns=(0.1, 0.2), mbpp=(None, 0.3), wordings=(0.4, None)) for n in (1, 2)]
    seeds.main(seeds.Settings(recipes=",".join(folders), out=str(tmp_path / "seeds.json")))
    _, head, nouns, mbpp, wordings, *_ = capsys.readouterr().out.splitlines()
    assert head.index("tuned") + 5 == len(nouns) == len(mbpp) and mbpp.split()[1] == "30.0%"
    assert wordings.rstrip().endswith("(5.0%)") and len(wordings.rstrip()) == head.index("base") + 4


def test_one_run_or_none_is_one_line(tmp_path):
    one = run_folder(tmp_path / "one", nouns=(0.1, 0.2))
    assert "two runs or more" in door_error(seeds, f"--recipes={one}")
    assert "no summary.json" in door_error(seeds, f"--recipes={one},{tmp_path / 'nowhere'}")
    for damaged in ("[]", '{"ladder": []}', '{"ladder": {"nouns": {"base": {"n": 3}}}}'):
        (tmp_path / "summary.json").write_text(damaged)
        assert "no summary.json" in door_error(seeds, f"--recipes={one},{tmp_path}")


def test_what_are_no_runs_of_one_recipe_is_one_line(tmp_path):
    one, other = run_folder(tmp_path / "one", nouns=(0.1, 0.2)), run_folder(tmp_path / "other", mbpp=(0.1, 0.2))
    assert "names a folder twice" in door_error(seeds, f"--recipes={one},{tmp_path}/other/../one")
    assert "no set of problems was scored in all of" in door_error(seeds, f"--recipes={one},{other}")
    short = run_folder(tmp_path / "short", nouns=(0.1,))
    for recipes in (f"{one},{short}", f"{short},{one}"):
        assert "base (100), tuned (100)" in door_error(seeds, f"--recipes={recipes}")
    fewer = run_folder(tmp_path / "fewer", n=50, nouns=(0.1, 0.2))
    assert "base (50), tuned (50) on nouns" in door_error(seeds, f"--recipes={one},{fewer}")
