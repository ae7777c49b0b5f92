"""What people use instead of this repository, for experiments.speed: each as its own examples use it."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn


class NanoGPT(nn.Module):
    """GPT-2 as nanoGPT writes it: LayerNorm, GELU, learned positions, one product for q, k and v, a tied head."""

    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(NanoGPTBlock(config.n_embd, config.n_head) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=False)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight
        nn.init.normal_(self.wte.weight, std=0.02)

    def forward(self, ids, targets):
        """ids and targets (B, T) -> mean cross-entropy."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class NanoGPTBlock(nn.Module):
    """Its block: causal attention, then an MLP of 4 n_embd."""

    def __init__(self, width, n_head):
        super().__init__()
        self.n_head = n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        """x (B, T, n_embd) -> the same shape."""
        B, T, width = x.shape
        q, k, v = (y.view(B, T, self.n_head, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(width, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, width))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


def hf_llama(transformers, config):
    """Hugging Face's Llama of a ModelConfig's shape, with random weights in fp32. Its library no longer remarks on
    anything: that would fall between the lines of a table."""
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    shape = dict(hidden_size=config.n_embd, intermediate_size=config.mlp_width, num_hidden_layers=config.n_layer)
    shape |= dict(num_attention_heads=config.n_head, num_key_value_heads=config.n_kv_head)
    shape |= dict(vocab_size=config.vocab_size, max_position_embeddings=config.block_size, tie_word_embeddings=True)
    no_tokens = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **no_tokens))


def training(model, tokens, machine, compile=False):
    """A function that makes one training step: fp32 weights, autocast to the machine's format, fused AdamW, clipped
    gradients, the loss read back. tokens (B, T + 1): the batch of every step."""
    model = model.to(machine.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if compile else model

    def step():
        """One step."""
        batch = torch.from_numpy(tokens).to(machine.device)
        ids, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        with torch.autocast(machine.device.type, machine.dtype, enabled=machine.dtype != torch.float32):
            # Hugging Face's models shift the labels themselves.
            loss = run(ids, targets) if isinstance(model, NanoGPT) else run(ids, labels=ids, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits until a GPU has finished

    return step


def hf_generate(model, prompts, n_new):
    """Greedy, n_new tokens behind each of prompts (B, T), in the format of the model's weights: lists of ids."""
    how = dict(attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0)
    return model.generate(prompts, max_new_tokens=n_new, min_new_tokens=n_new, **how).tolist()


def hf_tokenizer(tokenizers, texts, vocab_size):
    """A byte-level BPE of the tokenizers package, trained on texts."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
