"""What Qualcomm AI Hub puts around a network: input scaling in front, box and class selection behind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
Post = Callable[[object], object]


class Hub(nn.Module):
    """A network behind its input scaling: imagenet, kinetics, unit (2x - 1), bytes (255x) or raw (as it is)."""

    def __init__(self, network: nn.Module, kind: str = "imagenet", post: Post | None = None) -> None:
        super().__init__()
        self.network, self.kind, self.post = network, kind, post
        mean, std = _KINETICS if kind == "kinetics" else _IMAGENET
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "raw":
            return x
        if self.kind == "bytes":
            return x * 255.0
        if self.kind == "unit":
            return x * 2.0 - 1.0
        shape = (1, 3, *(1,) * (x.dim() - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def forward(self, x: torch.Tensor) -> object:
        result = self.network(self.scale(x))
        return self.post(result) if self.post else result


def best_pixel_class(scores: torch.Tensor) -> torch.Tensor:
    """The class of each pixel (uint8 on AI Hub, int32 here as for the boxes)."""
    return scores.argmax(1).to(torch.int32)


def set_boxes(side: int) -> Post:
    """DETR: softmax over the classes, the best real class, corner boxes in pixels."""

    def post(result: object) -> list[torch.Tensor]:
        logits, boxes = result[0], result[1]
        top, index = logits.softmax(-1)[..., :-1].max(-1)
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        corners = torch.cat((centre - half, centre + half), -1) * torch.full((4,), float(side))
        return [corners, top, index.to(torch.int32)]

    return post
