"""Networks taken from transformers (Apache-2.0), built from their configuration with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import transformers
from spec import Flat, Spec, image
from torch import nn

SOURCE = f"transformers {transformers.__version__}"
EAGER = {"attn_implementation": "eager"}


class Text(nn.Module):
    """Token ids and a float mask in; the first output out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        bias = ((1 - mask) * -10000.0)[:, None, None, :]
        return self.network(tokens, attention_mask=bias)[0]


class MaskedToken(Text):
    """A masked language model as on Qualcomm AI Hub: the best token at the position of the third input."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens, mask).index_select(1, place)[:, 0].argmax(-1)


class Replaced(Text):
    """ELECTRA's discriminator as on Qualcomm AI Hub: one for a token that was replaced."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ((super().forward(tokens, mask)[0].sign() + 1) / 2).round()


def _model(kind: str, head: str, **options: object) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**EAGER, **options)
    return getattr(transformers, f"{kind}{head}")(config)


def _text(wrap: type[nn.Module], kind: str, head: str, **options: object) -> nn.Module:
    return wrap(_model(kind, head, **options))


_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_ALBERT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}


def _texts() -> Iterator[Spec]:
    rows = (
        ("bert_base_mlm-384", 384, partial(_text, MaskedToken, "Bert", "ForMaskedLM"), 109.5),
        ("distilbert_mlm-384", 384, partial(_text, MaskedToken, "DistilBert", "ForMaskedLM"), 67.0),
        ("albert_base_v2_mlm-384", 384, partial(_text, MaskedToken, "Albert", "ForMaskedLM", **_ALBERT), 11.8),
        ("mobilebert_mlm-384", 384, partial(_text, MaskedToken, "MobileBert", "ForMaskedLM"), 25.3),
        ("electra_base-384", 384, partial(_text, Replaced, "Electra", "ForPreTraining", **_ELECTRA), 109.0),
        ("bert_base-256", 256, partial(_text, Text, "Bert", "Model", vocab_size=21128, add_pooling_layer=False), 101.7),
        ("bert_base_cased-124", 124, partial(_text, Text, "Bert", "Model", vocab_size=28996), 108.3),
        ("bert_large_squad-384", 384, partial(_text, Text, "Bert", "ForQuestionAnswering", **_LARGE), 334.1),
        ("mobilebert_squad-384", 384, partial(_text, Text, "MobileBert", "ForQuestionAnswering"), 24.6),
        ("distilbert_sst2-128", 128, partial(_text, Text, "DistilBert", "ForSequenceClassification"), 67.0),
    )
    for name, length, build, mparams in rows:
        masked = name.endswith("_mlm-384")
        shapes = ((1, length), (1, length), (1,)) if masked else ((1, length), (1, length))
        tokens = (0, 2) if masked else (0,)
        yield Spec(name, "bert", SOURCE, build, shapes, tokens, None, mparams, _TEXT_NOTES.get(name, ""))


_TEXT_NOTES = {
    "albert_base_v2_mlm-384": "published figure counts the pooler too",
    "mobilebert_mlm-384": "published figure leaves the prediction head out",
}
_ELECTRA = {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}


def _clip_text(length: int, width: int = 512, heads: int = 8) -> nn.Module:
    config = transformers.CLIPTextConfig(
        **EAGER, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, vocab_size=49408
    )
    network = transformers.CLIPTextModelWithProjection(config)
    return Tokens(network, length)


class Tokens(nn.Module):
    """Token ids in, causal mask inside."""

    def __init__(self, network: nn.Module, length: int) -> None:
        super().__init__()
        self.network, self.length = network, length

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.network(tokens)[0]


def _clip_image(patch: int) -> nn.Module:
    config = transformers.CLIPVisionConfig(
        **EAGER, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, patch_size=patch
    )
    return Flat(transformers.CLIPVisionModelWithProjection(config), lambda result: result[0])


class BothClips(nn.Module):
    """Image and text encoder of CLIP ViT-B/16 and their cosine similarity, one graph on Qualcomm AI Hub."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = _clip_image(16), _clip_text(77)

    def forward(self, image_input: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        image_part, text_part = self.image(image_input)[0], self.text(tokens)
        image_part = image_part / image_part.norm(dim=1, keepdim=True)
        return image_part @ (text_part / text_part.norm(dim=1, keepdim=True)).t()


def _clips() -> Iterator[Spec]:
    both = ((1, 3, 224, 224), (1, 77))
    yield Spec("clip_b16-224", "vit", SOURCE, BothClips, both, (1,), None, 149.6)
    for length in (77, 20):
        build = partial(_clip_text, length)
        yield Spec(f"clip_text_b32-{length}", "bert", SOURCE, build, ((1, length),), (0,), None, 63.4)
    yield Spec("clip_image_b32-224", "vit", SOURCE, partial(_clip_image, 32), image(224), (), 8.8, 87.8)


def _first(kind: str, head: str, **options: object) -> nn.Module:
    return Flat(_model(kind, head, **options), lambda result: result[0])


def _backbone(dilated: bool, depth: int) -> object:
    return transformers.TimmBackboneConfig(
        backbone=f"resnet{depth}",
        use_pretrained_backbone=False,
        features_only=True,
        out_indices=(1, 2, 3, 4),
        output_stride=16 if dilated else 32,
    )


def detr(depth: int, *, dilated: bool = False) -> nn.Module:
    """DETR, at stride 16 when dilated; logits and boxes."""
    config = transformers.DetrConfig(**EAGER, num_labels=91, backbone_config=_backbone(dilated, depth))
    return Flat(transformers.DetrForObjectDetection(config), lambda result: result[:2])


def conditional_detr(depth: int) -> nn.Module:
    """Conditional DETR; logits and boxes."""
    config = transformers.ConditionalDetrConfig(**EAGER, num_labels=91, backbone_config=_backbone(False, depth))
    return Flat(transformers.ConditionalDetrForObjectDetection(config), lambda result: result[:2])


def segformer() -> nn.Module:
    """SegFormer-B0 for the 150 classes of ADE20K, at a quarter of the input size."""
    return _first(
        "Segformer",
        "ForSemanticSegmentation",
        num_labels=150,
        hidden_sizes=[32, 64, 160, 256],
        depths=[2, 2, 2, 2],
        decoder_hidden_size=256,
    )


def depth_anything() -> nn.Module:
    """Depth Anything (V1 or V2) small."""
    backbone = transformers.Dinov2Config(
        attn_implementation="eager",
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=12,
        image_size=518,
        patch_size=14,
        out_indices=[9, 10, 11, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        **EAGER,
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_in_index=-1,
    )
    return Flat(transformers.DepthAnythingForDepthEstimation(config), lambda result: result[0])


def videomae() -> nn.Module:
    """VideoMAE base; reads frames before channels."""
    return _first("VideoMAE", "ForVideoClassification", num_labels=400)


def _wav2vec2() -> Iterator[Spec]:
    build = partial(_first, "Wav2Vec2", "ForCTC")
    yield Spec("wav2vec2_base_ctc-20s", "wav2vec2", SOURCE, build, ((1, 320000),), (), None, 94.4)


def specs() -> Iterator[Spec]:
    """The transformers skeletons."""
    for group in (_texts, _clips, _wav2vec2):
        yield from group()
