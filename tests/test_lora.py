"""Adapters: nothing changes at first, what is trained is little, and merged they are the same model."""

import json

import pytest
import torch
from conftest import TINY_MODEL, alone, door_error, load_model, stage

import sft
from configurator import UserError
from model import ModelConfig, Transformer
from training import checkpoint
from training.lora import TARGETS, add_adapters, merged
from training.memory import memory_parts
from training.plan import Plan

QUIET = ["--compile=false", "--log_every=1", "--save_every=0", "--eval_every=0", "--micro_batch=4", "--eval_tokens=500"]


def tiny(**changes):
    torch.manual_seed(0)
    return Transformer(
        ModelConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, **changes)
    )


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_an_adapter_changes_nothing_at_first_and_is_all_that_learns():
    model, ids = tiny(), torch.arange(32).view(2, 16)
    before, whole = model(ids), sum(p.numel() for p in model.parameters())
    weights = {name: p.clone() for name, p in model.named_parameters()}
    add_adapters(model, 4, 8.0, False, list(TARGETS))
    assert torch.equal(model(ids), before)
    assert len(trained(model)) == 2 * 2 * len(TARGETS) and all("lora_" in name for name in trained(model))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) < whole / 4
    model(ids, ids.roll(-1)).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == trained(model)
    for name, gradient in gradients.items():
        assert gradient.any() == name.endswith("lora_b"), "as long as B is 0, A has no influence"
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters() if name in weights)
    assert not torch.equal(model(ids), before)


@pytest.mark.parametrize("by_root, scale", [(False, 8 / 4), (True, 8 / 4**0.5)])
def test_merged_is_the_same_model(by_root, scale):
    adapted, ids = tiny(qkv_bias=True), torch.arange(32).view(2, 16)
    add_adapters(adapted, 4, 8.0, by_root, ["q_proj", "down_proj"])
    torch.manual_seed(1)
    for name, p in adapted.named_parameters():
        p.data += 0.1 * torch.randn_like(p) * ("lora_" in name)
    plain = tiny(qkv_bias=True)
    plain.load_state_dict(merged(adapted.state_dict()))
    assert (plain(ids) - adapted(ids)).abs().max() < 1e-5
    attention = adapted.layers[0].self_attn
    by_hand = attention.q_proj.weight + scale * attention.q_proj.lora_b @ attention.q_proj.lora_a
    assert torch.allclose(plain.layers[0].self_attn.q_proj.weight, by_hand, atol=1e-6)
    assert torch.equal(plain.layers[0].self_attn.k_proj.weight, attention.k_proj.weight)


def test_an_adapter_of_full_rank_can_be_any_change():
    """What full tuning makes of every matrix, cut into two by its singular values, is the same model."""
    before, after = tiny(), tiny()
    torch.manual_seed(2)
    for name, p in after.named_parameters():
        p.data += 0.05 * torch.randn_like(p) * name.endswith("proj.weight")
    adapted, ids = tiny(), torch.arange(32).view(2, 16)
    add_adapters(adapted, 32, 32.0, False, list(TARGETS))
    changes = {name: p - dict(before.named_parameters())[name] for name, p in after.named_parameters()}
    for name, linear in adapted.named_modules():
        if hasattr(linear, "lora_a"):
            u, s, v = torch.linalg.svd(changes[f"{name}.weight"], full_matrices=False)
            rank = len(s)
            linear.lora_a.data.zero_()[:rank] = s.sqrt()[:, None] * v
            linear.lora_b.data.zero_()[:, :rank] = u * s.sqrt()
    assert (adapted(ids) - after(ids)).abs().max() < 1e-4


def test_gradients_and_state_take_the_memory_of_the_adapters_alone():
    model = tiny()
    settings, plan = sft.Settings(optimizer="adamw"), Plan(2, "ids", False, False)
    machine = alone()
    before = memory_parts(model, settings, machine, plan)
    add_adapters(model, 2, 4.0, False, ["q_proj"])
    after = memory_parts(model, settings, machine, plan)
    n_trained = 2 * 2 * (32 + 32)
    assert after["gradients"] == 4 * n_trained and after["optimizer state"] == 8 * n_trained
    assert before["gradients"] > 10 * after["gradients"]


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_the_rows_of_special_tokens_are_trained_and_no_others(tie_embeddings):
    """By a step of SGD without momentum: each of their rows moves as it does where everything is trained."""
    models, ids = [tiny(tie_embeddings=tie_embeddings) for _ in range(2)], torch.arange(32).view(2, 16) + 20
    before = models[0](ids)
    add_adapters(models[0], 4, 8.0, False, ["q_proj"], tokens=[50, 22])
    assert torch.equal(models[0](ids), before)
    for model in models:
        model(ids, ids.roll(-1)).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    adapted, whole, begun = merged(models[0].state_dict()), models[1].state_dict(), tiny(tie_embeddings=tie_embeddings)
    for name in ("embed_tokens.weight", "lm_head.weight"):
        moved = (adapted[name] != begun.state_dict()[name]).any(1)
        assert moved.nonzero().flatten().tolist() == [22, 50], name
        assert torch.allclose(adapted[name][moved], whole[name][moved], atol=1e-6)
    logits = models[0](ids)
    begun.load_state_dict(adapted)
    assert (begun(ids) - logits).abs().max() < 1e-5


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_embeddings_and_norms_are_trained_beside_adapters_if_that_is_asked(tie_embeddings):
    model = tiny(tie_embeddings=tie_embeddings)
    add_adapters(model, 4, 8.0, False, ["q_proj", "v_proj"], embeddings=True)
    others = {name for name in trained(model) if "lora_" not in name}
    norms = "input_layernorm post_attention_layernorm self_attn.q_norm self_attn.k_norm".split()
    expected = {f"layers.{n}.{norm}.weight" for n in range(2) for norm in norms}
    assert others == expected | {"norm.weight", "embed_tokens.weight"}


@pytest.mark.parametrize("embeddings", [False, True])
def test_what_is_trained_lies_in_a_file_of_its_own(tmp_path, tokenizer, embeddings):
    """And whoever has the checkpoint that was tuned gets the tuned model by that file alone."""
    before = checkpoint.save(tmp_path / "run", 1, tiny(), [], tokenizer, {"settings": {}}, alone())
    model, ids = tiny(), torch.arange(32).view(2, 16)
    add_adapters(model, 4, 8.0, False, ["q_proj", "down_proj"], embeddings)
    torch.manual_seed(1)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p) * p.requires_grad
    folder = checkpoint.save(tmp_path / "lora", 2, model, [], tokenizer, {"settings": {}}, alone())
    held, adapters = (torch.load(folder / name) for name in ("model.pt", "adapters.pt"))
    assert trained(model) <= adapters.keys() and not held.keys() & trained(model)
    assert not any("lora_" in name for name in held)
    assert {"model.pt", "adapters.pt"} <= json.loads((folder / "sha256.json").read_text()).keys()

    again = tiny()
    add_adapters(again, 4, 8.0, False, ["q_proj", "down_proj"], embeddings)
    checkpoint.load_weights(again, folder, "cpu")
    assert all(torch.equal(p, again.state_dict()[name]) for name, p in model.state_dict().items())
    plain, _, meta = load_model(before)
    (before / "adapters.pt").write_bytes((folder / "adapters.pt").read_bytes())
    tuned, _, new_meta = load_model(before)
    assert (tuned(ids) - model(ids)).abs().max() < 1e-5 < (plain(ids) - model(ids)).abs().max()
    assert new_meta["sha256"] != meta["sha256"], "what was measured of the one does not count for the other"


@pytest.fixture(scope="module")
def chats(workdir):
    records = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} {i}"}]}
        for i in range(80)
    ]
    (workdir / "say.jsonl").write_text("\n".join(map(json.dumps, records)))
    stage("prepare_data.py", "--sources=say.jsonl", "--chats", "--out_dir=data/say", "--val_fraction=0.2", cwd=workdir)
    shape = [*TINY_MODEL, *QUIET, "--data=data/shards", "--batch_tokens=256", "--warmup_steps=1", "--max_steps=2"]
    stage("pretrain.py", *shape, "--out_dir=lora-trunk", cwd=workdir)
    return ["--init=lora-trunk", "--data=data/say", *QUIET, "--lr=0.02", "--lora_rank=4"]


def test_tuning_by_adapters_learns_goes_on_and_is_read_by_later_stages(workdir, chats):
    whole = stage("sft.py", *chats, "--max_steps=12", "--out_dir=lora", cwd=workdir)
    assert "are trained" in whole.stdout
    steps = [json.loads(line) for line in (workdir / "lora/metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert losses[-1] < losses[0] - 0.2

    stage("sft.py", *chats, "--max_steps=12", "--out_dir=lora-cut", "--save_every=5", "--keep=9", cwd=workdir)
    cut = workdir / "lora-cut"
    for name in ("step_00000010", "step_00000012"):
        (cut / name).rename(cut / f"_{name}")
    stage("sft.py", *chats, "--max_steps=12", "--out_dir=lora-cut", "--save_every=5", "--resume", cwd=workdir)
    for file in ("model.pt", "adapters.pt"):
        first, again = (torch.load(path / "step_00000012" / file) for path in (workdir / "lora", cut))
        assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    size, whole = ((workdir / "lora/step_00000012" / name).stat().st_size for name in ("adapters.pt", "model.pt"))
    assert size < whole

    model, tokenizer, meta = load_model(workdir / "lora")
    assert not any("lora_" in name for name in model.state_dict()) and meta["settings"]["lora_rank"] == 4
    trunk = load_model(workdir / "lora-trunk")[0].state_dict()
    changed = [name for name, p in model.state_dict().items() if not torch.equal(p, trunk[name])]
    tables = ["embed_tokens.weight", "lm_head.weight"]  # of which the special tokens' rows are trained
    assert set(tables) <= set(changed) and all(name in tables or name.split(".")[-2] in TARGETS for name in changed)
    later = ["--init=lora", "--data=data/say", *QUIET, "--max_steps=1", "--lr=1e-9", "--out_dir=lora-later"]
    stage("sft.py", *later, cwd=workdir)  # a step that changes next to nothing: it shows what it began with
    for name, p in load_model(workdir / "lora-later")[0].state_dict().items():
        assert torch.allclose(p, model.state_dict()[name], atol=1e-7)


def test_adapters_have_three_times_the_learning_rate_of_all_weights(workdir, chats):
    """And the stages behind both begin at the same rate."""

    def rate(name, init, *arguments):
        """The learning rate that tuning chooses for itself."""
        places = [f"--init={init}", "--data=data/say", f"--out_dir={name}"]
        stage("sft.py", *places, *QUIET, "--max_steps=1", *arguments, cwd=workdir)
        return json.loads((workdir / name / "settings.json").read_text())["settings"]["lr"]

    whole, adapters = rate("whole", "lora-trunk"), rate("adapters", "lora-trunk", "--lora_rank=2")
    assert adapters == pytest.approx(3 * whole)
    assert rate("behind-whole", "whole") == pytest.approx(rate("behind-adapters", "adapters"))


def test_unknown_targets_are_one_line(workdir, chats, monkeypatch):
    monkeypatch.chdir(workdir)
    error = door_error(sft, *chats, "--max_steps=1", "--out_dir=lora-none", "--lora_targets=qproj,v_proj")
    assert "not qproj" in error and "gate_proj" in error
    assert "lora_targets are some of" in door_error(
        sft, *chats, "--max_steps=1", "--out_dir=lora-none", "--lora_targets="
    )


@pytest.mark.parametrize("given", ["lora_alpha=64", "lora_by_root=true", "lora_targets=q_proj", "lora_embeddings=true"])
def test_settings_of_adapters_need_adapters_and_stay_as_they_are(workdir, given, monkeypatch):
    monkeypatch.chdir(workdir)
    assert f"{given.split('=')[0]} is about adapters" in door_error(sft, f"--{given}")
    changed = f"--changed={given.split('=')[0]}"
    assert "cannot be changed" in door_error(sft, "--lora_rank=4", f"--{given}", "--resume", changed)


def test_a_damaged_adapter_is_one_line(tmp_path, tokenizer):
    model = tiny()
    add_adapters(model, 2, 4.0, False, ["q_proj"])
    folder = checkpoint.save(tmp_path, 1, model, [], tokenizer, {}, alone())
    adapters = torch.load(folder / "adapters.pt")
    del adapters["layers.0.self_attn.q_proj.lora_b"]
    torch.save(adapters, folder / "adapters.pt")
    with pytest.raises(UserError, match="does not hold this model"):
        checkpoint.load_weights(tiny(), folder, "cpu")
    with pytest.raises(UserError, match="adapters.pt does not have its sha256"):
        checkpoint.checked_meta(folder)
    (folder / "adapters.pt").unlink()
    with pytest.raises(UserError, match="is damaged.*adapters.pt"):
        checkpoint.checked_meta(folder)


def test_a_checkpoint_that_holds_adapters_and_weights_in_one_file_is_read(tmp_path):
    """As they were written once."""
    model, ids = tiny(), torch.arange(32).view(2, 16)
    add_adapters(model, 2, 4.0, False, ["q_proj"])
    for p in model.parameters():
        p.data += 0.1 * p.requires_grad
    torch.save(model.state_dict(), tmp_path / "model.pt")
    plain = tiny()
    checkpoint.load_weights(plain, tmp_path, "cpu")
    assert (plain(ids) - model(ids)).abs().max() < 1e-5
