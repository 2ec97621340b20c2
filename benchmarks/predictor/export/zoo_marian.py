"""Opus-MT (Marian) as Qualcomm AI Hub splits it: an encoder that fills the cross caches, a one-token decoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from spec import Shape, Spec
from torch import nn

SOURCE = "own module, published architecture"
_WIDTH, _HEADS, _LAYERS, _HIDDEN, _VOCABULARY, _LENGTH = 512, 8, 6, 2048, 65001, 256
_HEAD = _WIDTH // _HEADS
_SCALE = 22.627417  # square root of the width


def _split(x: torch.Tensor) -> torch.Tensor:
    return x.view(1, -1, _HEADS, _HEAD).transpose(1, 2)


class Attention(nn.Module):
    """The projections of one attention (the query's weights hold the scale); batched products over the heads."""

    def __init__(self, parts: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({part: nn.Linear(_WIDTH, _WIDTH) for part in parts})

    def keys_values(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _split(self.parts["k"](x)), _split(self.parts["v"](x))

    def attend(self, x: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.reshape(_HEADS, -1, _HEAD) for part in (_split(self.parts["q"](x)), k, v))
        scores = query @ key.transpose(1, 2)
        length, source = scores.shape[1:]
        scores = scores.view(1, _HEADS, length, source) + bias
        mixed = scores.view(_HEADS, length, source).softmax(-1) @ value
        mixed = mixed.view(1, _HEADS, length, _HEAD).transpose(1, 2).reshape(1, length, _WIDTH)
        return self.parts["o"](mixed)


class Mlp(nn.Module):
    """Feed-forward part with its shortcut and the normalisation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.norm = nn.Linear(_WIDTH, _HIDDEN), nn.Linear(_HIDDEN, _WIDTH), nn.LayerNorm(_WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.narrow(nn.functional.silu(self.wide(x))))


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, normalised behind."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.norm, self.mlp = Attention("qkvo"), nn.LayerNorm(_WIDTH), Mlp()

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm(x + self.own.attend(x, *self.own.keys_values(x), bias)))


def _bias(mask: torch.Tensor) -> torch.Tensor:
    return (1 - mask[:, None, None, :]) * -10000.0


class Encoder(nn.Module):
    """Token embedding with positions, the blocks, then keys and values of every cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(_VOCABULARY, _WIDTH), nn.Parameter(torch.zeros(_LENGTH, _WIDTH))
        self.blocks = nn.ModuleList(EncoderBlock() for _ in range(_LAYERS))
        self.cross = nn.ModuleList(Attention("kv") for _ in range(_LAYERS))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.embed(tokens) * _SCALE + self.position
        bias = _bias(mask).expand(1, 1, _LENGTH, _LENGTH)
        for block in self.blocks:
            x = block(x, bias)
        return tuple(part for cross in self.cross for part in cross.keys_values(x))


class DecoderBlock(nn.Module):
    """Self-attention over the cache, cross attention over the encoder's keys, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.cross, self.mlp = Attention("qkvo"), Attention("qo"), Mlp()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)

    def forward(
        self, x: torch.Tensor, own_bias: torch.Tensor, bias: torch.Tensor, *caches: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        k, v, cross_k, cross_v = caches
        new_k, new_v = self.own.keys_values(x)
        k, v = torch.cat((k, new_k), 2), torch.cat((v, new_v), 2)
        x = self.norm1(x + self.own.attend(x, k, v, own_bias))
        x = self.norm2(x + self.cross.attend(x, cross_k, cross_v, bias))
        return self.mlp(x), new_k, new_v


class Decoder(nn.Module):
    """Token, source mask, position and caches in; logits and the new token's keys and values out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_VOCABULARY, _WIDTH)
        self.position, self.masks = nn.Embedding(_LENGTH, _WIDTH), nn.Embedding(_LENGTH, _LENGTH)
        self.blocks = nn.ModuleList(DecoderBlock() for _ in range(_LAYERS))
        self.logits = nn.Linear(_WIDTH, _VOCABULARY)

    def forward(
        self, token: torch.Tensor, mask: torch.Tensor, place: torch.Tensor, *caches: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        own_bias, bias = self.masks(place), _bias(mask)
        x = self.embed(token) * _SCALE + self.position(place)
        outputs = []
        for index, block in enumerate(self.blocks):
            x, k, v = block(x, own_bias, bias, *caches[4 * index : 4 * index + 4])
            outputs += [k, v]
        return (self.logits(x), *outputs)


def specs() -> Iterator[Spec]:
    """Both halves at 256 tokens."""
    shapes: tuple[Shape, ...] = ((1, _LENGTH), (1, _LENGTH))
    yield Spec("opus_mt_encoder-256-hub", "marian", SOURCE, Encoder, shapes, (0,))
    own, cross = ((1, _HEADS, length, _HEAD) for length in (_LENGTH - 1, _LENGTH))
    shapes = ((1, 1), (1, _LENGTH), (1,), *(own, own, cross, cross) * _LAYERS)
    yield Spec("opus_mt_decoder-1x256-hub", "marian", SOURCE, Decoder, shapes, (0, 2))
