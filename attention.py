"""Attention: which key a query may look at, and the kernel that is fastest where it runs.

Shapes in comments: B rows in the batch, T tokens in a row, head_dim numbers in a head.
"""

import inspect
import math

import torch
import torch.nn.functional as F
from torch import Tensor

VARLEN_OPTIONS, varlen_attn = (), None
if torch.cuda.device_count():  # to import it takes seconds, and a CPU has no use for it
    try:
        from torch.nn.attention.varlen import varlen_attn

        VARLEN_OPTIONS = inspect.signature(varlen_attn).parameters
    except ImportError:
        pass

BLOCK = 128  # queries at a time, on a CPU
LONGEST_IN_BLOCKS = 1024  # tokens in a row: beyond, what is kept of so many products costs too much memory


def document_form(doc_mask: bool, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """How the model is to be told of documents, for the fastest kernel: as document_bounds() ("bounds"), as numbers
    ("ids"), or None without doc_mask: then a row is one document, which PyTorch's flash attention needs no mask for."""
    if not doc_mask:
        return None
    has_kernel = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    has_function = "window_size" in VARLEN_OPTIONS  # from PyTorch 2.11 on
    fits = dtype == torch.bfloat16 and head_dim % 8 == 0 and head_dim <= 192  # beyond, some GPUs have no backward pass
    return "bounds" if has_kernel and has_function and fits else "ids"


def works_in_blocks(T: int, device: torch.device) -> bool:
    """Whether attention() over rows of T tokens is two products and a softmax."""
    return device.type == "cpu" and T <= LONGEST_IN_BLOCKS


def kernel_name(form: str | None, T: int, device: torch.device) -> str:
    """The kernel of attention(), in words, for rows of T tokens and documents in a document_form()."""
    if form == "bounds":
        return "flash, variable length"
    if works_in_blocks(T, device):
        return "two products and a softmax"
    return "PyTorch's, with a mask" if form else "PyTorch's"


def attention_mask(doc_ids: Tensor | None, T: int, device: torch.device) -> Tensor | None:
    """What attention() takes as its mask, made once for all blocks. doc_ids (B, T) number the documents in each row,
    as a 1-D tensor they are document_bounds() already, None is one document per row."""
    if doc_ids is not None and doc_ids.dim() == 1:
        return doc_ids
    if works_in_blocks(T, device):
        visible = causal_mask(T, device) if doc_ids is None else document_mask(doc_ids)
        return torch.zeros(visible.shape, device=device).masked_fill(~visible, -math.inf)
    return None if doc_ids is None else document_mask(doc_ids)


def shifted_masks(doc_ids: Tensor | None, B: int, T: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Shifted sparse attention (LongLoRA, arXiv:2309.12307), to train on long rows: one mask for the first half of the
    heads, and one for the second. doc_ids as in attention_mask(); B rows of T tokens.

    A row is cut into groups of T / 4 tokens, for the second half of the heads half a group later. A token looks at
    those before it in its group. Through several blocks it learns of earlier groups too, as each group of one half
    of the heads lies across two of the other:

        position       0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
        first half     0 0 0 0 1 1 1 1 2 2  2  2  3  3  3  3
        second half    0 0 1 1 1 1 2 2 2 2  3  3  3  3  4  4

    The paper's code moves tokens round in a circle instead. The last of a row then join the first in a group, before
    them, and these see what they are to predict. Here a group is just a document of its own. Only the kernel for
    document_bounds() takes less time with it.
    """
    size, masks = math.ceil(T / 4), []
    for shift in (0, size // 2):
        groups = (torch.arange(T) + shift) // size  # 0 to 4
        if doc_ids is None:
            numbers = groups[None].to(device)
        elif doc_ids.dim() == 1:  # some groups begin where a document does: each bound is to be there once
            numbers = torch.cat([doc_ids, document_bounds(groups.expand(B, T)).to(device)]).unique()
        else:
            numbers = 5 * doc_ids + groups.to(device)
        masks.append(attention_mask(numbers, T, device))
    return tuple(masks)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | tuple[Tensor, Tensor] | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v, where a query looks at the keys before it, in its own document.

    q (B, n_head, T, head_dim), k and v (B, n_kv_head, T, head_dim) -> (B, n_head, T, head_dim). The mask says which
    kernel runs:

        document_bounds()      variable-length flash attention, on a GPU: neither the T x T products nor a mask of that
                               size exist anywhere (arXiv:2307.08691)
        fp32, added to scores  two products and a softmax for BLOCK queries at a time: fastest on a CPU for short rows
        bool, or None          scaled_dot_product_attention; with a single query also for numbers in the format of q,
                               which are added to its scores

    Two masks are shifted_masks(), for half of the heads each.
    """
    n_groups = q.shape[1] // k.shape[1]  # query heads that share a key head
    if isinstance(mask, tuple):
        k, v = k.repeat_interleave(n_groups, dim=1), v.repeat_interleave(n_groups, dim=1)
        halves = [x.tensor_split([q.shape[1] // 2], dim=1) for x in (q, k, v)]
        return torch.cat([attention(*parts) for parts in zip(*halves, mask)], dim=1)
    if mask is not None and mask.dtype == torch.int32:
        return varlen_attention(q, k, v, mask, n_groups)
    if q.shape[2] == 1 and mask is not None and mask.dtype in (torch.bool, q.dtype):
        grouped = q.reshape(q.shape[0], k.shape[1], n_groups, -1)  # as several queries of one head
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)
    if n_groups > 1:  # enable_gqa=True would shut out the GPU kernel that takes a mask
        k, v = k.repeat_interleave(n_groups, dim=1), v.repeat_interleave(n_groups, dim=1)
    if mask is None or mask.dtype == torch.bool:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    # softmax() computes in fp32 inside, also where scores are bf16. The backward pass reads its result alone, in bf16.
    parts = []
    for first in range(0, q.shape[2], BLOCK):
        end = min(first + BLOCK, q.shape[2])  # no query of this part looks at a key behind it
        scores = (q[:, :, first:end] @ k[:, :, :end].mT) * q.shape[3] ** -0.5 + mask[..., first:end, :end].to(q.dtype)
        parts.append(scores.softmax(-1) @ v[:, :, :end])
    return torch.cat(parts, dim=2)


def varlen_attention(q, k, v, bounds, n_groups):
    """attention() between document_bounds()."""
    B, _, T, _ = q.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B * T, heads, head_dim)
    if "enable_gqa" in VARLEN_OPTIONS:
        how = {"enable_gqa": n_groups > 1}
    else:  # PyTorch 2.11
        k, v, how = k.repeat_interleave(n_groups, dim=1), v.repeat_interleave(n_groups, dim=1), {}
    y = varlen_attn(q, k, v, bounds, bounds, T, T, window_size=(-1, 0), **how)
    return y.unflatten(0, (B, T)).transpose(1, 2)


def causal_mask(T: int, device: torch.device) -> Tensor:
    """(T, T) bool, true where key j is not behind query i: j <= i."""
    return torch.ones(T, T, dtype=torch.bool, device=device).tril()


def document_mask(doc_ids: Tensor) -> Tensor:
    """(B, T) document numbers -> (B, 1, T, T) bool, true where query i may look at key j: same document, j <= i.

    doc_ids 1 1 1 2 2       key    1 1 1 2 2
                    query 1        x . . . .
                          1        x x . . .
                          1        x x x . .
                          2        . . . x .      the second document does not see the first
                          2        . . . x x
    """
    causal = causal_mask(doc_ids.shape[1], doc_ids.device)
    return ((doc_ids[:, :, None] == doc_ids[:, None, :]) & causal)[:, None]


def document_bounds(doc_ids: Tensor) -> Tensor:
    """(B, T) document numbers -> int32 (n + 1,): where the n documents begin if all rows are laid end to end, and the
    end of the last. doc_ids must be on the CPU: a GPU would have to tell Python the number n, and wait for it."""
    begins = torch.ones_like(doc_ids, dtype=torch.bool)
    begins[:, 1:] = doc_ids[:, 1:] != doc_ids[:, :-1]
    starts = begins.flatten().nonzero()[:, 0]
    return torch.cat([starts, torch.tensor([doc_ids.numel()])]).to(torch.int32)
