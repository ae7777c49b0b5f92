"""The cross-entropy of many tokens, a chunk at a time. The logits of all of them would be the largest tensor of the
training: 3.3 GB in fp32 for 16 rows of 1,024 tokens and 50,304 tokens to choose from."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE = -100  # a target with this value is not counted in the loss
CHUNK = 2048  # tokens whose logits exist at a time


def chunks(n):
    """n tokens as slices of up to CHUNK."""
    return [slice(first, first + CHUNK) for first in range(0, n, CHUNK)]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (N, vocab_size), targets (N,) -> the cross-entropy in nats of each token, 0 at IGNORE, fp32 (N,)."""
    # A softmax over thousands of bf16 numbers would be rough.
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")


def loss_of_chunk(logits: Tensor, targets: Tensor):
    """The sum of token_losses(), and its gradient with respect to the logits, in their format: softmax - one-hot."""
    z = logits.float()
    is_counted, targets = (targets != IGNORE)[:, None], targets.clamp(min=0)[:, None]
    top = z.amax(-1, keepdim=True)
    e = (z - top).exp()  # once for both results: on a CPU it is what costs most here
    s = e.sum(-1, keepdim=True)
    loss = ((s.log() + top - z.gather(-1, targets)) * is_counted).sum()
    is_target = torch.arange(z.shape[1], dtype=torch.int32, device=z.device) == targets.int()
    return loss, ((e / s - is_target.float()) * is_counted).to(logits.dtype)


class SummedLoss(torch.autograd.Function):
    """Cross-entropy of the logits x W^T, summed over tokens, a chunk of tokens at a time.

    The gradients are computed in the forward pass, while a chunk's logits are there (Liger, arXiv:2410.10989): they
    are linear in the one number that the backward pass brings.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, chunk_loss):
        """x (N, n_embd), weight (vocab_size, n_embd) in fp32, targets (N,) -> the loss in nats, fp32. chunk_loss:
        loss_of_chunk, or the same compiled."""
        w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
        grad_x, grad_w = torch.empty_like(x), torch.zeros_like(weight)
        for part in chunks(len(x)):
            loss, grad = chunk_loss(x[part] @ w.T, targets[part])
            total += loss
            grad_x[part] = grad @ w
            grad_w += grad.T @ x[part]
        ctx.save_for_backward(grad_x, grad_w)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        """The gradients of x and weight, times that of the loss."""
        grad_x, grad_w = ctx.saved_tensors
        return grad_x * scale, grad_w * scale, None, None
