"""Going on after a stop: what a resumed run refuses, what it makes up for, and what damage costs it."""

import contextlib
import json
import random
import shutil

import pytest
from conftest import TINY_MODEL, alone, door_error, load_model, write_records
from test_processes import in_processes

import anneal
import configurator
import pretrain
import sft
import training.log
from shards import exclusive, sha256_file
from training import checkpoint, resume

RUN = [*TINY_MODEL, "--data=data/shards", "--batch_tokens=256", "--micro_batch=4", "--warmup_steps=2"]
RUN += ["--compile=false", "--log_every=1", "--max_steps=8", "--eval_every=4", "--save_every=2"]
LATER = ["--init=resumed-trunk", "--data=data/shards", "--compile=false", "--log_every=1", "--decay_tokens=1024"]


def train(stage, *arguments):
    """Run a training stage in this process, which saves the seconds of importing torch and of measuring the device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.log, "peak_flops", lambda *_: (1e12, "not measured"))
        stage.main(configurator.load(stage.Settings, list(arguments), stage.__name__))


def metrics(folder):
    """The lines of metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    return [{key: line[key] for key in line if key not in ("tokens_per_second", "mfu")} for line in lines]


def weights(folder):
    return {name: tensor.numpy().tobytes() for name, tensor in load_model(folder)[0].state_dict().items()}


def steps(folder):
    return [int(path.name[5:]) for path in checkpoint.saved(folder)]


@pytest.fixture(scope="module")
def trained(workdir):
    """A run of eight steps with all its checkpoints."""
    with contextlib.chdir(workdir):
        train(pretrain, *RUN, "--out_dir=trained", "--keep=9")
    return workdir / "trained"


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


@pytest.fixture
def half(trained, here, tmp_path):
    """The same run as a kill after step 4 would have left it."""
    shutil.copytree(trained, tmp_path / "half")
    for step in (6, 8):
        shutil.rmtree(tmp_path / f"half/step_{step:08}")
    return tmp_path / "half"


# -- the last whole checkpoint is never lost


def test_a_damaged_newest_checkpoint_does_not_push_out_the_last_whole_one(trained, half, monkeypatch):
    """With --keep=1 a run goes on from step 4, since those of steps 6 and 8 are damaged, and is killed in its next step."""
    for step in (6, 8):
        shutil.copytree(trained / f"step_{step:08}", half / f"step_{step:08}")
        (half / f"step_{step:08}/model.pt").write_bytes(b"damaged")
    shutil.rmtree(half / "step_00000002")
    kept = []
    monkeypatch.setattr(checkpoint, "delete_older", lambda out_dir, whole: kept.append((out_dir, whole)))
    train(pretrain, *RUN, f"--out_dir={half}", "--resume", "--keep=1")
    monkeypatch.undo()
    for folder in (6, 8):
        assert checkpoint.checked_meta(half / f"step_{folder:08}")["step"] == folder, "written anew"
    checkpoint.delete_older(*kept[0])
    assert steps(half) == [6, 8]


def test_only_what_is_known_to_be_whole_counts_as_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        (tmp_path / f"step_{step:08}").mkdir()
    (tmp_path / "step_00000000").write_text("a person's own file")
    (tmp_path / "step_notes.md").mkdir()
    checkpoint.delete_older(tmp_path, [tmp_path / "step_00000002", tmp_path / "step_00000004"])
    assert steps(tmp_path) == [2, 4, 5], "one newer than what was just written is left alone"
    assert (tmp_path / "step_00000000").exists() and (tmp_path / "step_notes.md").exists()


def test_a_resumed_run_knows_of_older_checkpoints_that_are_whole(trained, half):
    shutil.copytree(trained / "step_00000006", half / "step_00000006")
    (half / "step_00000004/model.pt").write_bytes(b"damaged")
    assert checkpoint.whole_until(half / "step_00000006") == [half / "step_00000002", half / "step_00000006"]


# -- a resumed run is the same run


@pytest.mark.parametrize(
    "setting, words",
    [
        ("--batch_tokens=512", "batch_tokens=256, not batch_tokens=512: rows would be skipped or read twice"),
        ("--seed=5", "rows would be skipped"),
        ("--best_fit", "rows would be skipped"),
        ("--data=data/shards:1,data/other:1", "rows would be skipped"),
        ("--lr=0.01", "trained with lr=0.006, not lr=0.01: give that again, or --changed=lr"),
        ("--weight_decay=0", "--changed=weight_decay"),
        ("--doc_mask=false", "--changed=doc_mask"),
        ("--schedule=cosine", "--changed=schedule"),
        ("--decay_steps=5", "--changed=decay_steps"),
        ("--block_size=64", "give block_size=32, not block_size=64"),
        ("--max_steps=3", "already reached step 4, beyond max_steps=3"),
        ("--changed=seed --seed=5", "seed=1337, not seed=5"),
        ("--changed=lrr", "no setting of this stage"),
    ],
)
def test_other_settings_than_before_are_named_and_refused(half, setting, words):
    shutil.copytree("data/shards", "data/other", dirs_exist_ok=True)
    assert words in door_error(pretrain, *RUN, f"--out_dir={half}", "--resume", *setting.split())
    assert steps(half) == [2, 4]


def test_what_decides_nothing_may_differ_and_is_named(trained, half, capsys):
    shutil.copytree("data/shards", half.parent / "moved")
    moved = [f"--data={half.parent}/moved", "--keep=1", "--recompute"]
    train(pretrain, *RUN, *moved, f"--out_dir={half}", "--resume")
    assert f"with other settings: keep=1, out_dir={half}, recompute=True" in capsys.readouterr().out
    assert weights(half) == weights(trained) and metrics(half)[:-1] == metrics(trained)[:-1] and steps(half) == [8]


def test_a_folder_made_anew_from_other_text_is_other_data(half):
    shutil.copytree("data/shards", half.parent / "new")
    manifest = json.loads((half.parent / "new/manifest.json").read_text())
    manifest["files"][0]["sha256"] = "0" * 64
    (half.parent / "new/manifest.json").write_text(json.dumps(manifest))
    error = door_error(pretrain, *RUN, f"--data={half.parent}/new", "--verify=false", f"--out_dir={half}", "--resume")
    assert "rows would be skipped" in error


def test_a_setting_can_be_changed_knowingly(half):
    train(pretrain, *RUN, f"--out_dir={half}", "--resume", "--lr=0.001", "--changed=lr")
    assert [line["lr"] for line in metrics(half) if "lr" in line] == [0.003, 0.006, 0.006, 0.006] + [0.001] * 4


def test_more_steps_at_a_constant_rate_are_the_same_run_and_a_longer_cosine_is_another(half, here):
    train(pretrain, *RUN, f"--out_dir={half}", "--resume", "--max_steps=9")
    assert steps(half)[-1] == 9
    train(pretrain, *RUN, f"--out_dir={half}-cosine", "--schedule=cosine")
    error = door_error(pretrain, *RUN, f"--out_dir={half}-cosine", "--schedule=cosine", "--max_steps=20", "--resume")
    assert "max_steps=8, not max_steps=20" in error


def test_one_command_line_starts_goes_on_and_has_nothing_left_to_do(trained, half, capsys):
    train(pretrain, *RUN, f"--out_dir={half}", "--resume=auto")
    assert weights(half) == weights(trained) and metrics(half) == metrics(trained)
    train(pretrain, *RUN, f"--out_dir={half}", "--resume=auto")
    assert metrics(half) == metrics(trained) and steps(half) == [6, 8]
    train(pretrain, *RUN, f"--out_dir={half.parent}/new", "--resume=auto")
    assert metrics(half.parent / "new") == metrics(trained)


# -- later stages


def test_a_later_stage_resumes_from_what_it_began_with(here, tmp_path):
    """The trunk trains on meanwhile, and is then deleted: the stage goes on as if nothing had happened."""
    shutil.rmtree("resumed-trunk", ignore_errors=True)
    train(pretrain, *RUN, "--out_dir=resumed-trunk", "--max_steps=4")
    arguments = [*LATER, "--save_every=2", "--keep=9"]
    train(anneal, *arguments, f"--out_dir={tmp_path}/whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/step_00000004")
    train(pretrain, *RUN, "--out_dir=resumed-trunk", "--resume", "--max_steps=6")
    shutil.copytree(tmp_path / "broken", tmp_path / "without")
    train(anneal, *arguments, f"--out_dir={tmp_path}/broken", "--resume")
    shutil.rmtree("resumed-trunk")
    train(anneal, *arguments, f"--out_dir={tmp_path}/without", "--resume")
    for other in ("broken", "without"):
        assert metrics(tmp_path / other) == metrics(tmp_path / "whole")
        assert weights(tmp_path / other) == weights(tmp_path / "whole")


def test_what_earlier_stages_have_read_travels_along(here, tmp_path, workdir):
    """Trunk on a, annealed on b, annealed again on a: it reads on where the trunk stopped."""
    shutil.copytree("data/shards", tmp_path / "b")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["files"][0]["sha256"] = "f" * 64  # what tells folders apart
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree("resumed-trunk", ignore_errors=True)
    train(pretrain, *RUN, "--out_dir=resumed-trunk", "--max_steps=4")
    train(anneal, *LATER, f"--data={tmp_path}/b", "--verify=false", f"--out_dir={tmp_path}/second")
    train(anneal, *LATER, f"--init={tmp_path}/second", f"--out_dir={tmp_path}/third")
    _, meta = checkpoint.newest(tmp_path / "third")
    rows = 256 // 32
    assert sorted(meta["rows_read"].values()) == [4 * rows, 8 * rows] and len(meta["read_before"]) == 2


def test_a_setting_that_follows_from_the_length_is_not_blamed_for_it(half):
    """Without --warmup_steps tuning warms up for a tenth of its steps: who gives another length hears of that alone."""
    settings = sft.Settings(out_dir=str(half), resume=True, max_steps=40)
    resume.starting_point(settings, alone())
    assert settings.warmup_steps == 2 and settings.lr == 0.006


def test_another_stage_does_not_go_on_from_a_stage_s_own_checkpoints(half):
    """They may agree in all that is compared, and have read other rows before."""
    error = door_error(anneal, *LATER, f"--out_dir={half}", "--resume")
    assert f"{half}/step_00000004 was trained by pretrain.py" in error


@pytest.mark.parametrize("changed", ["optimizer", "grad_clip"])
def test_the_command_that_a_refusal_suggests_works(half, changed):
    value = {"optimizer": "adamw", "grad_clip": "0.5"}[changed]
    arguments = [*RUN, f"--out_dir={half}", "--resume", f"--{changed}={value}"]
    assert f"--changed={changed}" in door_error(pretrain, *arguments)
    train(pretrain, *arguments, f"--changed={changed}")
    assert steps(half)[-1] == 8


@pytest.mark.parametrize("first, words", [([], "begin again with a lower rate"), (["--resume"], "go on from")])
def test_a_run_that_diverges_is_sent_to_a_checkpoint_that_is_there(half, monkeypatch, first, words):
    monkeypatch.setattr(pretrain, "train_step", lambda *_: (float("nan"), 1.0))
    out = half if first else f"{half}-new"
    assert words in door_error(pretrain, *RUN, f"--out_dir={out}", *first)


def test_nothing_to_resume_is_told_before_the_plan(here, tmp_path):
    for stage_, arguments in ((pretrain, RUN), (anneal, LATER)):
        error = door_error(stage_, *arguments, f"--out_dir={tmp_path}/none", "--resume")
        assert "the same command without --resume begins" in error and not (tmp_path / "none").exists()


# -- damage


def rewrite(folder, name, data):
    """Put other bytes into a checkpoint's file, with their sha256: what no damage does, but another version may."""
    (folder / name).write_bytes(data)
    digests = json.loads((folder / "sha256.json").read_text())
    (folder / "sha256.json").write_text(json.dumps({**digests, name: sha256_file(folder / name)}))


NEEDED = "step settings schedule metrics model tokenizer data data_ahead rows_read lr"


@pytest.mark.parametrize("missing", NEEDED.split())
def test_a_checkpoint_of_another_version_is_told_in_one_line(half, missing):
    folder = half / "step_00000004"
    meta = json.loads((folder / "meta.json").read_text())
    del (meta["settings"] if missing == "lr" else meta)[missing]
    rewrite(folder, "meta.json", json.dumps(meta).encode())
    assert "another version" in door_error(pretrain, *RUN, f"--out_dir={half}", "--resume")
    assert "another version" in door_error(anneal, *LATER, f"--init={folder}", f"--out_dir={half}-later")


@pytest.mark.parametrize("size", [0, 100, 10_000])
@pytest.mark.parametrize("name", ["model.pt", "optimizer-0.pt"])
def test_a_file_of_tensors_that_was_cut_is_told_in_one_line(half, name, size):
    folder = half / "step_00000004"
    rewrite(folder, name, (folder / name).read_bytes()[:size])
    assert f"does not hold this model's {name}" in door_error(pretrain, *RUN, f"--out_dir={half}", "--resume")


def test_when_all_checkpoints_are_damaged_the_hint_is_not_refused_by_the_next_command(half):
    for folder in checkpoint.saved(half):
        (folder / "sha256.json").write_text("[" * 100_000)
    for how in ("--resume", "--resume=auto"):
        error = door_error(pretrain, *RUN, f"--out_dir={half}", how)
        assert error.endswith(f"no whole checkpoint in {half}, delete it and train again")


def test_a_linked_checkpoint_is_left_alone(trained, half):
    (half / "step_00000001").symlink_to(trained / "step_00000002")
    train(pretrain, *RUN, f"--out_dir={half}", "--resume", "--keep=1")
    assert steps(half) == [1, 8] and steps(trained) == [2, 4, 6, 8]


def test_a_log_that_was_deleted_while_the_run_went_on_does_not_end_it(half):
    (half / "step_00000004/metrics.jsonl").unlink()
    digests = json.loads((half / "step_00000004/sha256.json").read_text())
    del digests["metrics.jsonl"]
    (half / "step_00000004/sha256.json").write_text(json.dumps(digests))
    train(pretrain, *RUN, f"--out_dir={half}", "--resume")
    assert [line["step"] for line in metrics(half)] == [5, 6, 7, 8, 8]


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_anywhere_is_noticed(half, capsys, seed):
    rng = random.Random(seed)
    folder = half / "step_00000004"
    path = sorted(folder.iterdir())[seed % 6]
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    assert checkpoint.newest(half)[1]["step"] == 2
    assert f"{folder} is damaged" in capsys.readouterr().err


def test_a_garbled_log_is_mended_from_the_checkpoint(trained, half):
    (half / "metrics.jsonl").write_bytes(b'{"step": 1, "lo\xff\x00garbage\n[[[[\n')
    train(pretrain, *RUN, f"--out_dir={half}", "--resume")
    assert metrics(half) == metrics(trained)


def test_two_runs_cannot_write_to_one_folder(half):
    with exclusive(half):
        assert "another run is writing to" in door_error(pretrain, *RUN, f"--out_dir={half}", "--resume")
    assert steps(half) == [2, 4]


def test_validation_folders_are_verified_too(here, tmp_path):
    shutil.copytree("data/shards", tmp_path / "damaged")
    path = tmp_path / "damaged/val_000000.bin"
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    shutil.rmtree("resumed-trunk", ignore_errors=True)
    train(pretrain, *RUN, "--out_dir=resumed-trunk", "--max_steps=4")
    error = door_error(anneal, *LATER, f"--val={tmp_path}/damaged", f"--out_dir={tmp_path}/out")
    assert "damaged/val_000000.bin is damaged" in error and not (tmp_path / "out").exists()


# -- processes


def test_three_processes_resume_bit_for_bit(here, tmp_path):
    """Sums of three numbers depend on their order, which DistributedDataParallel settles in its first pass."""
    arguments = [*RUN, "--batch_tokens=768", "--max_steps=4", "--micro_batch=2", f"--out_dir={tmp_path}/three"]
    assert in_processes(3, train, pretrain, *arguments, "--keep=9") == [None] * 3
    shutil.copytree(tmp_path / "three", tmp_path / "whole")
    shutil.rmtree(tmp_path / "three/step_00000004")
    assert in_processes(3, train, pretrain, *arguments, "--keep=9", "--resume=auto") == [None] * 3
    assert weights(tmp_path / "three") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "three") == metrics(tmp_path / "whole")


def test_what_a_model_writes_and_solves_is_logged_with_every_evaluation(here, tmp_path, capsys):
    problem = {"task_id": "1", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n"}
    path = write_records(tmp_path / "problems.jsonl", [{**problem, "test": "def check(f):\n    assert f(1) == 1\n"}])
    asked = ["--sample=def", f"--problems={path}", "--eval_every=4", "--max_steps=4"]
    train(pretrain, *RUN, *asked, f"--out_dir={tmp_path}/run")
    *_, last = metrics(tmp_path / "run")
    assert last["step"] == 4 and last["pass@1"] == 0.0 and isinstance(last["sample"], str)
    assert "pass@1 0.0% of 1 problems" in capsys.readouterr().out


def test_a_checkpoint_that_is_deleted_while_it_is_read_gives_way_to_a_newer_one(trained, tmp_path, monkeypatch):
    """A run with --keep=1 saves step 8 while another program reads step 6."""
    for step in (6, 8):
        shutil.copytree(trained / f"step_{step:08}", tmp_path / f"{'later' if step == 8 else 'step'}_{step:08}")
    real = checkpoint.load_weights

    def overtaken(model, folder, device):
        if folder.name == "step_00000006":
            shutil.rmtree(folder)
            (tmp_path / "later_00000008").rename(tmp_path / "step_00000008")
        return real(model, folder, device)

    monkeypatch.setattr(checkpoint, "load_weights", overtaken)
    assert load_model(tmp_path)[2]["step"] == 8
