"""The two networks of the zoo: what an NPU likes, at the size of a digit.

Both take `image`, f32[1, 1, 8, 8] in 0..1, and give `logits`, f32[1, 10].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def conv(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the export folds the batch norm into the convolution."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DigitsCnn(nn.Module):
    """A plain convolution, a depthwise-separable block with a residual add, two poolings, one linear layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = conv(1, width)
        self.depthwise = conv(width, width, groups=width)
        self.pointwise = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.join = nn.ReLU()
        self.down = nn.MaxPool2d(2)
        self.deep = conv(width, 2 * width)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(2 * width * 4, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = self.join(x + self.pointwise(self.depthwise(x)))
        x = self.pool(self.deep(self.down(x)))
        return self.head(torch.flatten(x, 1))


class Attention(nn.Module):
    """Multi-head self-attention with three plain projections: Split and Gather are poorly placed on NPUs."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.heads, self.size = heads, dim // heads

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        shape = (batch, tokens, self.heads, self.size)
        query = (self.query(x) * self.size**-0.5).reshape(shape).transpose(1, 2)
        key = self.key(x).reshape(shape).permute(0, 2, 3, 1)
        value = self.value(x).reshape(shape).transpose(1, 2)
        mixed = torch.softmax(query @ key, dim=-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm encoder block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DigitsTransformer(nn.Module):
    """16 patches of 2x2 pixels, two encoder blocks, mean over the patches, one linear layer."""

    def __init__(self, dim: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(1, 16, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image)
        x = x.reshape(image.shape[0], -1, 16).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(dim=1))
