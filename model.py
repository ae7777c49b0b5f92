"""The transformer: a decoder-only language model in the Llama layout, on one screen per idea.

    ids -> embedding -> n_layer x [ x + attention(norm(x)); x + mlp(norm(x)) ] -> norm -> logits

RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864), grouped-query attention (arXiv:2305.13245),
SwiGLU (arXiv:2002.05202), normalised queries and keys (arXiv:2010.04245). The parameter names are those of Hugging
Face's Llama, Qwen2 (qkv_bias) and Qwen3 (qk_norm), so that moving weights there and back is a renaming.

Shapes in comments: B rows in the batch, T tokens in a row, head_dim = n_embd / n_head.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention import attention, attention_mask, shifted_masks
from loss import SummedLoss, chunks, loss_of_chunk, token_losses
from ranges import Context, Range, RopeBase, ShareAbove0, SmallCount, Width, check_fields
from rope import Factor, Scaling, rope_tables, rotate


@dataclass
class Shape:
    """The shape of a new model. Raises ValueError where the numbers do not fit together."""

    # -- model
    # rows of the embedding; 0 = the tokenizer's size rounded up to a multiple of 64
    vocab_size: Annotated[int, Range(0, 65_536)] = 0
    block_size: Context = 256  # context length in tokens
    n_layer: SmallCount = 6  # blocks
    n_head: SmallCount = 2  # query heads; n_embd / n_head is the size of a head
    n_kv_head: SmallCount = 2  # key and value heads; fewer than n_head shrinks the KV cache (GQA)
    n_embd: Width = 128  # width of the residual stream
    mlp_dim: Annotated[int, Range(0, 2**18)] = 0  # width inside the MLP; 0 = 8/3 n_embd rounded up to a multiple of 64
    rope_base: RopeBase = 10000.0  # the longest wavelength of the rotary positions is about 2 pi rope_base tokens
    norm_eps: ShareAbove0 = 1e-6  # keeps RMSNorm finite on a zero vector
    tie_embeddings: bool = True  # one matrix for input and output: saves much below 0.5 B parameters
    qkv_bias: bool = False  # bias on q, k and v, as in Qwen2
    qk_norm: bool = True  # RMSNorm on every query and key head, as in Qwen3: learns faster at a high lr

    def __post_init__(self):
        check_fields(self, Shape)
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            raise ValueError(f"n_embd={self.n_embd} must give n_head={self.n_head} heads of an even size")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head={self.n_head} must be a multiple of n_kv_head={self.n_kv_head}")
        matrices = self.n_layer * self.n_embd * (4 * self.n_embd + 3 * self.mlp_width)
        if matrices > 1e10:  # every process holds the whole model: at 8 bytes each, 80 GB
            raise ValueError(
                f"n_layer={self.n_layer} and n_embd={self.n_embd} make {matrices:.0e} parameters: too many"
            )

    @property
    def head_dim(self):
        """Size of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self):
        """Width inside the MLP. With three matrices, 8/3 n_embd costs what 4 n_embd costs with two."""
        return self.mlp_dim or math.ceil(8 * self.n_embd / 3 / 64) * 64


@dataclass
class ModelConfig(Shape):
    """The shape of a model, and how a later stage has stretched its positions over a longer context (rope.py)."""

    rope_scaling: Scaling = "none"
    rope_factor: Factor = 1.0  # how far they are stretched
    rope_trained: Annotated[int, Range(0, 2**20)] = 0  # the context length before that; 0 where they are not

    def __post_init__(self):
        super().__post_init__()
        check_fields(self, ModelConfig)
        if len({self.rope_scaling != "none", self.rope_factor > 1, self.rope_trained > 0}) > 1:
            raise ValueError(
                f"rope_scaling={self.rope_scaling} with rope_factor={self.rope_factor:g} does not fit: a scaling other "
                "than none needs a block_size longer than the one that was trained, or a factor above 1"
            )
        if self.rope_scaling == "ntk" and self.head_dim == 2 or self.rope_scaling == "yarn" and self.rope_base == 1:
            raise ValueError(f"rope_scaling={self.rope_scaling} needs heads of over 2 numbers and a rope_base above 1")


def table(layer: nn.Module) -> Tensor:
    """The weight of a layer; with LoRA, some tokens' rows of it are changed (training/lora.py)."""
    if not hasattr(layer, "lora_rows"):
        return layer.weight
    return layer.weight.index_add(0, layer.lora_tokens, layer.lora_rows)


class Embedding(nn.Embedding):
    """A row of numbers for each token."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids of any shape -> the same shape with one more dimension, n_embd."""
        return F.embedding(ids, table(self))


class Linear(nn.Linear):
    """x W^T, multiplied in the format of x, which Transformer.dtype decides. The weights that the optimizer changes
    stay in fp32: in bf16, with 8 bits, most of its updates would round to nothing."""

    laid_out = joined = None  # what lay_out() makes of this layer alone, or of all that have the same input

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features) in the same format."""
        if self.laid_out:
            return product(x, *self.laid_out)
        y = F.linear(x, table(self).to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        if not hasattr(self, "lora_a"):
            return y
        # LoRA: a change of W is learnt, as the product of two narrow matrices (training/lora.py).
        return y + F.linear(F.linear(x, self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype)) * self.lora_scale.to(x.dtype)


def outputs(x: Tensor, *linears: Linear) -> list[Tensor]:
    """What several layers make of one input: in one product, where lay_out() has put their weights side by side."""
    if not linears[0].joined:
        return [linear(x) for linear in linears]
    return product(x, *linears[0].joined).split([linear.out_features for linear in linears], -1)


def lay_out(*linears: Linear) -> tuple[Tensor, Tensor | None]:
    """(weight, bias) of layers with one input, for few tokens at a time: side by side, as one large product takes less
    time than several, and on a CPU in oneDNN's blocks, which PyTorch else makes anew for each product or does without.
    """
    weight = torch.cat([linear.weight.data for linear in linears]) if len(linears) > 1 else linears[0].weight.data
    bias = torch.cat([linear.bias.data for linear in linears]) if linears[0].bias is not None else None
    if multiplies_blocks(weight):
        weight = torch.ops.mkldnn._reorder_linear_weight(weight)
    else:
        for linear, part in zip(linears, weight.split([linear.out_features for linear in linears])):
            linear.weight.data = part  # so that they take memory once
    return weight, bias


def multiplies_blocks(weight: Tensor) -> bool:
    """Whether oneDNN can multiply with weights of this format on this device; on ARM it was not tried."""
    was_tried = weight.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    is_there = was_tried and torch.backends.mkldnn.is_available()
    return is_there and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias, of a weight in blocks or as usual."""
    if not weight.is_mkldnn:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension; sums inside the kernel are fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape (..., n) -> the same shape and format."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Every token looks at those up to itself: a mean of their values v, weighted by softmax(q.k / sqrt(head_dim))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_dim = config.head_dim
        width, kv_width, bias = config.n_embd, config.n_kv_head * config.head_dim, config.qkv_bias
        self.q_proj = Linear(width, width, bias=bias)
        self.k_proj = Linear(width, kv_width, bias=bias)
        self.v_proj = Linear(width, kv_width, bias=bias)
        self.o_proj = Linear(width, width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x, rope, mask, append=None):
        """x (B, T, n_embd), rope (cos, sin), mask from attention_mask() or shifted_masks() -> (B, T, n_embd).

        append(k, v) returns the keys and values of earlier tokens too."""
        B, T, _ = x.shape
        projected = outputs(x, self.q_proj, self.k_proj, self.v_proj)
        # q (B, n_head, T, head_dim), k and v (B, n_kv_head, T, head_dim)
        q, k, v = (y.reshape(B, T, -1, self.head_dim).transpose(1, 2) for y in projected)
        q, k = rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope)
        if append is not None:
            k, v = append(k, v)
        y = attention(q, k, v, mask)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """SwiGLU: a gate, made from the token itself, decides how much of each hidden unit passes."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.mlp_width, bias=False)
        self.up_proj = Linear(config.n_embd, config.mlp_width, bias=False)
        self.down_proj = Linear(config.mlp_width, config.n_embd, bias=False)

    def forward(self, x):
        """x (B, T, n_embd) -> the same shape."""
        gate, up = outputs(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class Block(nn.Module):
    """Attention, then MLP. Each reads a normalised copy of the residual stream x and adds its answer to x."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, rope, mask, append=None):
        """As in Attention."""
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, append)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """The whole model: ids in, logits or a loss out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.n_embd)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.dtype = torch.float32  # the format of activations and products: bf16 where the device has units for it
        self.chunk_loss = loss_of_chunk  # compile() puts the same compiled in its place
        self.recompute = False  # in training, keep each block's input alone and compute the rest again when needed
        self.shifted = False  # in training, let each head look at its own part of a row alone (LongLoRA)
        self.init_weights()

    def init_weights(self):
        """Normal with standard deviation 0.02, and smaller by sqrt(2 n_layer) for the two matrices of each block that
        write into the residual stream: its variance at the top then does not grow with depth (GPT-2, section 2.3)."""
        for name, p in self.named_parameters():
            if p.dim() == 2:
                writes_to_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.config.n_layer) if writes_to_stream else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        doc_ids: Tensor | None = None,
        reduction: str = "sum",
    ) -> Tensor:
        """ids (B, T) -> logits (B, T, vocab_size), or, with targets (B, T), the cross-entropy in nats.

        reduction: "sum" over the targets that are not IGNORE, or "none" for one number per token, (B * T,), 0 at
        IGNORE. "values" is what value_head says of each token (see add_value_head()), "both" is "none" and "values".
        doc_ids (B, T) number the documents in each row, or are document_bounds(): attention then stays inside each.
        """
        if self.shifted and self.training:
            mask = shifted_masks(doc_ids, *ids.shape, ids.device)
        else:
            mask = attention_mask(doc_ids, ids.shape[1], ids.device)
        positions = torch.arange(ids.shape[1], device=ids.device)
        rope = rope_tables(positions, self.config)
        x = self.embed_tokens(ids).to(self.dtype)
        for layer in self.layers:
            if self.recompute and self.training:
                x = checkpoint(layer, x, rope, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, rope, mask)
        x = self.norm(x)
        values = self.value_head(x.float()).flatten() if reduction in ("values", "both") else None
        if reduction == "values":
            return values
        if targets is None:
            return self.lm_head(x)
        x, targets = x.flatten(0, 1), targets.flatten()
        if reduction == "sum":
            return SummedLoss.apply(x, table(self.lm_head), targets, self.chunk_loss)
        # Unlike those of a sum, the gradients of single losses come later: the logits are then made once more.
        again = partial(checkpoint, self.losses_of, use_reentrant=False, preserve_rng_state=False)
        losses = torch.cat([again(x[part], targets[part]) for part in chunks(len(x))])
        return losses if values is None else (losses, values)

    def losses_of(self, x: Tensor, targets: Tensor) -> Tensor:
        """x (N, n_embd) behind the last norm, targets (N,) -> token_losses(), (N,)."""
        return token_losses(self.lm_head(x), targets)

    @torch.inference_mode()
    def extend(self, ids: Tensor, cache: "KVCache", rows: list[int], n_new: list[int]) -> Tensor:
        """The next tokens of some of a cache's rows: ids (len(rows), T), of which the first n_new[i] count in a row ->
        the logits behind the last of these, (len(rows), vocab_size)."""
        mask = cache.place(rows, ids.shape[1])
        x = self.embed_tokens(ids).to(self.dtype)
        for i, layer in enumerate(self.layers):
            x = layer.forward(x, cache.rope, mask, partial(cache.append, i))  # not compiled: lengths differ each time
        for row, n in zip(rows, n_new):
            cache.lengths[row] += n
        last = x[torch.arange(len(rows), device=x.device), torch.tensor(n_new, device=x.device) - 1]
        return self.lm_head(self.norm(last))

    def add_value_head(self):
        """A layer beside lm_head that makes one number of each token: how much reward a text that begins so will earn
        (grpo.py's critic), or how good a text that ends so is. It begins by saying 0."""
        self.value_head = Linear(self.config.n_embd, 1, bias=False).to(self.embed_tokens.weight.device)
        nn.init.zeros_(self.value_head.weight)

    def ready(self, dtype: torch.dtype) -> "Transformer":
        """This model, to be asked: weights and products in one format, on the device where it is. What was laid out is
        not changed when weights are trained, loaded or moved afterwards: call it again then."""
        self.dtype = dtype
        self.to(dtype).eval().requires_grad_(False)
        for layer in self.layers:
            a, mlp = layer.self_attn, layer.mlp
            a.q_proj.joined, a.o_proj.laid_out = lay_out(a.q_proj, a.k_proj, a.v_proj), lay_out(a.o_proj)
            mlp.gate_proj.joined, mlp.down_proj.laid_out = lay_out(mlp.gate_proj, mlp.up_proj), lay_out(mlp.down_proj)
        self.lm_head.laid_out = lay_out(self.lm_head)
        return self

    def compile(self):
        """torch.compile, block by block: one small graph serves all blocks, and it is made in seconds."""
        for layer in self.layers:
            layer.compile()
        self.chunk_loss = torch.compile(loss_of_chunk)

    def n_params(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward pass per token of a full context.

        6 for every weight that is multiplied with (2 forward, 4 backward), and 12 n_layer n_embd block_size for
        attention (PaLM, arXiv:2204.02311, appendix B).
        """
        c = self.config
        lookup_only = 0 if c.tie_embeddings else self.embed_tokens.weight.numel()
        return 6 * (self.n_params() - lookup_only) + 12 * c.n_layer * c.n_embd * c.block_size


class KVCache:
    """Keys and values of the tokens so far, so that a new token costs one position instead of all of them.

    Each row is a text of its own length, and one that has ended makes room for another:

        row 0    def  f  (  x  )  :  .  .        lengths[0] = 6: its next token belongs into column 6
        row 1    if   x  .  .  .  .  .  .        lengths[1] = 2
    """

    def __init__(self, model: Transformer, n_rows: int, max_length: int):
        c, device = model.config, model.embed_tokens.weight.device
        self.device, self.lengths = device, [0] * n_rows
        # Keys and values beside each other: they are written at once.
        shape = (n_rows, 2 * c.n_kv_head, max_length, c.head_dim)
        self.layers = [torch.zeros(shape, dtype=model.dtype, device=device) for _ in range(c.n_layer)]
        self.tables = rope_tables(torch.arange(max_length, device=device), c)

    def place(self, rows: list[int], T: int) -> Tensor:
        """Say where the keys and values go that append() is given next: those of the next T tokens of these rows.
        Returns the mask (len(rows), 1, T, columns): bool, or for one token numbers for attention() to add."""
        starts = [self.lengths[row] for row in rows]
        self.n_columns, self.is_whole = max(starts) + T, len(rows) == len(self.lengths)
        self.rows = torch.tensor(rows, device=self.device)
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(T, device=self.device)
        _, n_heads, max_length, _ = self.layers[0].shape
        heads = self.rows[:, None] * n_heads + torch.arange(n_heads, device=self.device)
        self.places = (heads[:, :, None] * max_length + positions[:, None]).flatten()  # in a layer as one list
        self.rope = [table[positions][:, None] for table in self.tables]
        mask = (torch.arange(self.n_columns, device=self.device) <= positions[..., None])[:, None]
        return mask if T > 1 else torch.where(mask, 0.0, -math.inf).to(self.layers[0].dtype)

    def append(self, i: int, k: Tensor, v: Tensor):
        """Store k and v (len(rows), n_kv_head, T, head_dim) of block i; returns all keys and values of the rows."""
        self.layers[i].flatten(0, 2).index_copy_(0, self.places, torch.cat((k, v), 1).flatten(0, 2))
        layer = self.layers[i][:, :, : self.n_columns]
        return (layer if self.is_whole else layer[self.rows]).split(k.shape[1], 1)

    def copy(self, sources: list[int], rows: list[int]):
        """Give rows the texts of others: rows[i] that of sources[i]."""
        end = max(self.lengths[row] for row in sources)
        for layer in self.layers:
            layer[rows, :, :end] = layer[sources, :, :end]
        for source, row in zip(sources, rows):
            self.lengths[row] = self.lengths[source]

    def keep(self, rows: list[int]):
        """Forget all other rows."""
        for i, layer in enumerate(self.layers):  # one by one: two whole caches may not fit
            self.layers[i] = layer[rows]
        self.lengths = [self.lengths[row] for row in rows]
