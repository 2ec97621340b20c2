"""Building blocks of the YOLO networks, written from their published descriptions."""

from __future__ import annotations

import torch
from torch import nn

Act = type[nn.Module]


def divisible(value: float, by: int = 8) -> int:
    """The next multiple of `by` that is not below `value`."""
    return -int(-value // by) * by


class Conv(nn.Sequential):
    """Convolution, batch norm and activation."""

    def __init__(self, cin: int, cout: int, k: int = 1, s: int = 1, g: int = 1, act: nn.Module | None = None) -> None:
        conv = nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), nn.SiLU() if act is None else act)


def linear(cin: int, cout: int, k: int = 1, s: int = 1, g: int = 1) -> Conv:
    """Convolution and batch norm alone."""
    return Conv(cin, cout, k, s, g, act=nn.Identity())


class Bottleneck(nn.Module):
    """Two convolutions with an optional shortcut."""

    def __init__(self, cin: int, cout: int, add: bool, k: tuple[int, int] = (3, 3), e: float = 0.5) -> None:
        super().__init__()
        mid = int(cout * e)
        self.cv1, self.cv2 = Conv(cin, mid, k[0]), Conv(mid, cout, k[1])
        self.add = add and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage partial block with three 1x1 convolutions."""

    def __init__(self, cin: int, cout: int, n: int, add: bool, e: float = 0.5, k: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        mid = int(cout * e)
        self.cv1, self.cv2, self.cv3 = Conv(cin, mid), Conv(cin, mid), Conv(2 * mid, cout)
        self.m = nn.Sequential(*(Bottleneck(mid, mid, add, k, 1.0) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C2f(nn.Module):
    """Cross-stage partial block that concatenates every inner step; the inner modules are given by subclasses."""

    def __init__(self, cin: int, cout: int, n: int, add: bool, e: float = 0.5) -> None:
        super().__init__()
        self.c = int(cout * e)
        self.cv1, self.cv2 = Conv(cin, 2 * self.c), Conv((2 + n) * self.c, cout)
        self.m = nn.ModuleList(self.inner(add) for _ in range(n))

    def inner(self, add: bool) -> nn.Module:
        return Bottleneck(self.c, self.c, add, (3, 3), 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for step in self.m:
            parts.append(step(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class C3k2(C2f):
    """YOLO11: half-width bottlenecks inside C2f."""

    def inner(self, add: bool) -> nn.Module:
        return Bottleneck(self.c, self.c, add)


class C3k2Deep(C2f):
    """YOLO11: small C3 blocks with 3x3 bottlenecks inside C2f."""

    def inner(self, add: bool) -> nn.Module:
        return C3(self.c, self.c, 2, add, k=(3, 3))


class CIB(nn.Module):
    """YOLOv10: compact inverted block; `large` uses the fused 7x7 depthwise convolution."""

    def __init__(self, c: int, add: bool, large: bool) -> None:
        super().__init__()
        k = 7 if large else 3
        self.add = add
        self.m = nn.Sequential(
            Conv(c, c, 3, g=c), Conv(c, 2 * c), Conv(2 * c, 2 * c, k, g=2 * c), Conv(2 * c, c), Conv(c, c, 3, g=c)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.m(x) if self.add else self.m(x)


class C2fCIB(C2f):
    """YOLOv10: C2f of compact inverted blocks."""

    def inner(self, add: bool) -> nn.Module:
        return CIB(self.c, add, large=False)


class C2fCIBLarge(C2f):
    """YOLOv10: C2f of compact inverted blocks with 7x7 depthwise convolutions."""

    def inner(self, add: bool) -> nn.Module:
        return CIB(self.c, add, large=True)


class SPPF(nn.Module):
    """Spatial pyramid pooling as three 5x5 poolings in a row."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(cin, cin // 2), Conv(cin * 2, cout)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Attention(nn.Module):
    """Self-attention over all positions with a 3x3 depthwise position term (YOLOv10, YOLO11)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.heads = c // 64
        self.dim = c // self.heads
        self.key = self.dim // 2
        self.qkv = linear(c, c + 2 * self.key * self.heads)
        self.proj, self.pe = linear(c, c), linear(c, c, 3, g=c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, c, h, w = x.shape
        qkv = self.qkv(x).view(1, self.heads, 2 * self.key + self.dim, h * w)
        q, k, v = qkv.split([self.key, self.key, self.dim], dim=2)
        attention = ((q.transpose(-2, -1) @ k) * self.key**-0.5).softmax(dim=-1)
        y = (v @ attention.transpose(-2, -1)).view(1, c, h, w)
        return self.proj(y + self.pe(v.reshape(1, c, h, w)))


class PSABlock(nn.Module):
    """Attention and a feed-forward part, both with shortcuts."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attn = Attention(c)
        self.ffn = nn.Sequential(Conv(c, 2 * c), linear(2 * c, c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)


class C2PSA(nn.Module):
    """Half of the channels pass through `n` attention blocks (n = 1: YOLOv10's PSA)."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c), Conv(c, c)
        self.m = nn.Sequential(*(PSABlock(c // 2) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        return self.cv2(torch.cat((a, self.m(b)), 1))


class SCDown(nn.Sequential):
    """YOLOv10: pointwise convolution, then a strided depthwise one."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(Conv(cin, cout), linear(cout, cout, 3, 2, g=cout))


class Pyramid(nn.Module):
    """Top-down and bottom-up neck: four blocks and two downsamplings over P3, P4, P5."""

    def __init__(self, blocks: list[nn.Module], downs: list[nn.Module]) -> None:
        super().__init__()
        self.top4, self.top3, self.out4, self.out5 = blocks
        self.down3, self.down4 = downs
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> list[torch.Tensor]:
        t4 = self.top4(torch.cat((self.up(p5), p4), 1))
        o3 = self.top3(torch.cat((self.up(t4), p3), 1))
        o4 = self.out4(torch.cat((self.down3(o3), t4), 1))
        o5 = self.out5(torch.cat((self.down4(o4), p5), 1))
        return [o3, o4, o5]
