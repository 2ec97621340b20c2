"""Whisper as Qualcomm AI Hub exports it: single-head attention, 1x1 convolutions for linear layers, rank 4.

The encoder also makes the keys and values of every cross attention; the decoder reads one token and a cache of 199.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from spec import Shape, Spec
from torch import nn

SOURCE = "own module, published architecture"
_VOCABULARY, _FRAMES, _CACHE, _MELS = 51865, 1500, 199, 80
_SPLIT = "single heads as convolutions, as AI Hub exports it"


@dataclass(frozen=True)
class Size:
    """Width, heads and layers (of the encoder and of the decoder)."""

    width: int
    heads: int
    layers: int

    @property
    def head(self) -> int:
        return self.width // self.heads


def _to_rows(x: torch.Tensor) -> torch.Tensor:
    """From channels in the second place to channels last."""
    return x.permute(0, 2, 3, 1)


def _to_maps(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def _heads(size: Size, *, bias: bool = True) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(size.width, size.head, 1, bias=bias) for _ in range(size.heads))


class KeysValues(nn.Module):
    """One convolution per head for the keys (without bias) and one for the values."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.k, self.v = _heads(size, bias=False), _heads(size)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [conv(x).permute(0, 2, 1, 3) for conv in self.k], [_to_rows(conv(x)) for conv in self.v]


class Attention(nn.Module):
    """Attention of each head on its own; the scale sits in the query's weights."""

    def __init__(self, size: Size, *, own: bool) -> None:
        super().__init__()
        self.q, self.out = _heads(size), nn.Conv2d(size.width, size.width, 1)
        self.kv = KeysValues(size) if own else None

    def attend(
        self, x: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], bias: torch.Tensor | None
    ) -> torch.Tensor:
        scores = [_to_rows(conv(x)) @ key for conv, key in zip(self.q, keys, strict=True)]
        if bias is not None:
            scores = [score + bias for score in scores]
        parts = [score.softmax(-1) @ value for score, value in zip(scores, values, strict=True)]
        return _to_rows(self.out(_to_maps(torch.cat(parts, -1))))


class Mlp(nn.Module):
    """Feed-forward part, its own normalisation and shortcut."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.wide, self.narrow = nn.Conv2d(size.width, 4 * size.width, 1), nn.Conv2d(4 * size.width, size.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + _to_rows(self.narrow(nn.functional.gelu(self.wide(_to_maps(self.norm(x))))))


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm, self.attention, self.mlp = nn.LayerNorm(size.width), Attention(size, own=True), Mlp(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _to_maps(self.norm(x))
        return self.mlp(x + self.attention.attend(y, *self.attention.kv(y), None))


class Encoder(nn.Module):
    """Two convolutions over the mel spectrum, the blocks, then the caches of the cross attentions."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(_MELS, size.width, (1, 3), padding=(0, 1))
        self.conv2 = nn.Conv2d(size.width, size.width, (1, 3), stride=2, padding=(0, 1))
        self.position = nn.Parameter(torch.zeros(_FRAMES, size.width))
        self.blocks = nn.ModuleList(EncoderBlock(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.cross = nn.ModuleList(KeysValues(size) for _ in range(size.layers))

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = nn.functional.gelu(self.conv1(mel.unsqueeze(0).permute(1, 2, 0, 3)))
        x = _to_rows(nn.functional.gelu(self.conv2(x))) + self.position
        for block in self.blocks:
            x = block(x)
        x = _to_maps(self.norm(x))
        return tuple(torch.cat(parts, 0) for cross in self.cross for parts in cross(x))


class DecoderBlock(nn.Module):
    """Self-attention over the cache, cross attention over the encoder's keys, feed-forward."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.own, self.cross, self.mlp = Attention(size, own=True), Attention(size, own=False), Mlp(size)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, *caches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        past_k, past_v, cross_k, cross_v = (torch.split(cache, 1) for cache in caches)
        y = _to_maps(self.norm1(x))
        new_k, new_v = self.own.kv(y)
        keys = [torch.cat(pair, 3) for pair in zip(past_k, new_k, strict=True)]
        values = [torch.cat(pair, 2) for pair in zip(past_v, new_v, strict=True)]
        x = x + self.own.attend(y, keys, values, bias)
        x = x + self.cross.attend(_to_maps(self.norm2(x)), cross_k, cross_v, None)
        return self.mlp(x), torch.cat(keys, 0)[..., 1:], torch.cat(values, 0)[:, :, 1:]


class Decoder(nn.Module):
    """Token, mask, caches and position in; logits and the new self-attention caches out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = nn.Embedding(_VOCABULARY, size.width)
        self.position = nn.Embedding(448, size.width)
        self.blocks = nn.ModuleList(DecoderBlock(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.logits = nn.Conv2d(size.width, _VOCABULARY, 1, bias=False)

    def forward(self, token: torch.Tensor, bias: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *caches, place = inputs
        own, cross = caches[: len(caches) // 2], caches[len(caches) // 2 :]
        x = self.embed(token).unsqueeze(0) + self.position(place)
        outputs = []
        for index, block in enumerate(self.blocks):
            at = slice(2 * index, 2 * index + 2)
            x, k, v = block(x, bias, *own[at], *cross[at])
            outputs += [k, v]
        return (self.logits(_to_maps(self.norm(x))), *outputs)


def _decoder_shapes(size: Size) -> tuple[Shape, ...]:
    own, cross = (
        ((size.heads, 1, size.head, length), (size.heads, 1, length, size.head)) for length in (_CACHE, _FRAMES)
    )
    return ((1, 1), (1, 1, 1, _CACHE + 1), *own * size.layers, *cross * size.layers, (1,))


def specs() -> Iterator[Spec]:
    """Whisper tiny, base and small for 30 seconds."""
    for name, size in (("tiny", Size(384, 6, 4)), ("base", Size(512, 8, 6)), ("small", Size(768, 12, 12))):
        mel = ((1, _MELS, 2 * _FRAMES),)
        yield Spec(f"whisper_{name}_encoder-30s-hub", "whisper", SOURCE, partial(Encoder, size), mel, note=_SPLIT)
        shapes = _decoder_shapes(size)
        tokens = (0, len(shapes) - 1)
        build = partial(Decoder, size)
        yield Spec(f"whisper_{name}_decoder-1x200-hub", "whisper", SOURCE, build, shapes, tokens, note=_SPLIT)
