"""Qualcomm AI Hub and MLPerf Mobile: published model name to skeleton (the same graph on every device)."""

from __future__ import annotations

from collections.abc import Iterator

_HUB = {
    "beit": "beit_base-224",
    "convnext_base": "convnext_base-224-hub",
    "convnext_tiny": "convnext_tiny-224-hub",
    "dla102x [DLA-102-X]": "dla102x-224-hub",
    "efficientformer": "efficientformer_l1-224-hub",
    "efficientnet_v2_s": "efficientnet_v2_s-224-hub",
    "efficientvit_b2_cls": "efficientvit_b2-224-hub",
    "efficientvit_l2_cls": "efficientvit_l2-224-hub",
    "fcn_resnet50": "fcn_resnet50-520-hub",
    "googlenet": "googlenet-224-hub",
    "inception_v3": "inception_v3-224-hub",
    "levit": "levit_128s-224-hub",
    "mobile_vit": "mobilevit_s-256-hub",
    "mobilenet_v2": "mobilenet_v2-224-hub",
    "mobilenet_v3_large": "mobilenet_v3_large-224-hub",
    "resnet101": "resnet101-224-hub",
    "resnet18": "resnet18-224-hub",
    "resnet50": "resnet50-224-hub",
    "resnet_2plus1d": "r2plus1d_18-112-hub",
    "resnet_3d": "r3d_18-112-hub",
    "resnet_mixed [ResNet-Mixed-Convolution]": "mc3_18-112-hub",
    "resnext101": "resnext101_32x8d-224-hub",
    "resnext50": "resnext50_32x4d-224-hub",
    "sequencer2d": "sequencer2d_s-224-hub",
    "vit": "vit_b_16-224-hub",
    "yolov10_det [YOLOv10-Detection]": "yolov10n-640-hub",
    "yolov11_det [YOLOv11-Detection]": "yolo11n-640-hub",
    "yolov11_seg [YOLOv11-Segmentation]": "yolo11n_seg-640-hub",
    "yolov3 [Yolo-v3]": "yolov3_tinyu-640-hub",
    "yolov5 [Yolo-v5]": "yolov5mu-640-hub",
    "yolov6 [Yolo-v6]": "yolov6n-640-hub",
    "yolov7 [Yolo-v7]": "yolov7_tiny-640-hub",
    "yolov8_det [YOLOv8-Detection]": "yolov8n-640-hub",
    "yolov8_seg [YOLOv8-Segmentation]": "yolov8n_seg-640-hub",
    "yolox [Yolo-X]": "yolox_s-640-hub",
}
_HUB |= {
    "albert_base_v2_hf": "albert_base_v2_mlm-384",
    "bert_base_uncased_hf": "bert_base_mlm-384",
    "distil_bert_base_uncased_hf": "distilbert_mlm-384",
    "electra_bert_base_discrim_google": "electra_base-384",
    "mobile_bert_uncased_google": "mobilebert_mlm-384",
    "openai_clip": "clip_b16-224",
    "conditional_detr_resnet50": "conditional_detr_resnet50-640-hub",
    "detr_resnet50": "detr_resnet50-640-hub",
    "detr_resnet101": "detr_resnet101-640-hub",
    "detr_resnet50_dc5": "detr_resnet50_dc5-640-hub",
    "detr_resnet101_dc5": "detr_resnet101_dc5-640-hub",
    "segformer_base": "segformer_b0-512-hub",
    "depth_anything": "depth_anything_small-518-hub",
    "depth_anything_v2": "depth_anything_small-518-hub",
    "video_mae": "videomae_base-224-hub",
    "yamnet": "yamnet-96x64",
    "unet_segmentation": "unet-640x1280-hub",
    "deeplabv3_plus_mobilenet": "deeplabv3_plus_mobilenet_v2-520-hub",
    "hrnet_pose [HRNetPose]": "hrnet_w32_pose-256x192-hub",
    "posenet_mobilenet": "posenet_mobilenet_v1-513x257-hub",
    "real_esrgan_x4plus": "real_esrgan_x4plus-128",
    **{
        f"whisper_{size} [HfWhisper{part}]": f"whisper_{size}_{part.lower()}-{tail}-hub"
        for size in ("tiny", "base", "small")
        for part, tail in (("Encoder", "30s"), ("Decoder", "1x200"))
    },
    **{
        f"opus_mt_{pair} [OpusMT{part}]": f"opus_mt_{part.lower()}-{tail}-hub"
        for pair in ("en_es", "es_en", "en_zh", "zh_en")
        for part, tail in (("Encoder", "256"), ("Decoder", "1x256"))
    },
}
_MOBILE = {  # MLPerf Mobile, several vendors
    "MobileNetEdgeTPU 1.0 224": "mobilenet_edgetpu_100-224",
    "MobileNetV4-Conv-L": "mobilenetv4_conv_large-384",
    "MobileBERT": "mobilebert_squad-384",
}


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Vendor, device (empty: all), published model, shape (empty: any), graph."""
    for model, graph in _HUB.items():
        yield "Qualcomm", "", model, "", graph
    for model, graph in _MOBILE.items():
        for vendor in ("Qualcomm", "Samsung"):
            yield vendor, "", model, "", graph
