"""Classification, segmentation, pose, face and text rows outside Qualcomm and YOLO."""

from __future__ import annotations

from collections.abc import Iterator

Row = tuple[str, str, str, str, str]

_ROBOTICS = {
    **{f"EdgeNeXt_{size}": f"edgenext_{size}-224" for size in ("base", "small", "x_small", "xx_small")},
    **{f"EfficientFormer_{size}": f"efficientformer_{size}-224" for size in ("l1", "l3")},
    **{f"EfficientFormerv2_{size}": f"efficientformerv2_{size}-224" for size in ("s0", "s1", "s2")},
    "EfficientViT_MSRA_m5": "efficientvit_m5-224",
    **{f"FastViT_{size}": f"fastvit_{size.lower()}_train-224" for size in ("SA12", "S12", "T12", "T8")},
    **{f"ConvNeXt_{size}": f"convnext_{size}-224" for size in ("nano", "pico", "femto", "atto")},
    **{f"FasterNet_{size}": f"fasternet_{size.lower()}-224" for size in ("S", "T0", "T1", "T2")},
    "GoogLeNet": "googlenet-224",
    "MobileNetv1": "mobilenet_v1-224",
    "Mobilenetv2": "mobilenet_v2-224",
    "Mobilenetv3_large_100": "mobilenet_v3_large-224",
    "Mobilenetv4_conv_medium": "mobilenetv4_conv_medium-224",
    "Mobilenetv4_conv_small": "mobilenetv4_conv_small-224",
    **{f"MobileOne_S{size}": f"mobileone_s{size}-224" for size in range(5)},
    **{f"RepGhostNet_{size}": f"repghostnet_{size}_train-224" for size in (100, 111, 130, 150, 200)},
    **{f"RepVGG_{size}": f"repvgg_{size.lower()}-224" for size in ("A0", "A1", "A2", "B0", "B1g2", "B1g4")},
    **{f"RepViT_m{size}": f"repvit_m{size}_train-224" for size in ("0_9", "1_0", "1_1")},
    "ResNet18": "resnet18-224",
    "ResNeXt50_32x4d": "resnext50_32x4d-224",
}
_AXERA = {
    "Inceptionv1": "googlenet-224",
    "Inceptionv3": "inception_v3-299",
    "MobileNetv1": "mobilenet_v1-224",
    "MobileNetv2": "mobilenet_v2-224",
    "mobilenetv2": "mobilenet_v2-224",
    "ResNet18": "resnet18-224",
    "ResNet50": "resnet50-224",
    "resnet50": "resnet50-224",
    "VGG16": "vgg16-224",
    "Deit_t": "deit_tiny-224",
    "Swin_t": "swin_t-224",
    "swin_t": "swin_t-224",
    "ViT_b": "vit_b_16-224",
    "vit_b": "vit_b_16-224",
}
_SOPHGO = {
    "resnet50": "resnet50-224",
    "bert4torch_output": "bert_base-256",
    "c3d": "c3d-112",
    "hrnet_w32_256x192": "hrnet_w32_pose-256x192",
    "pose_coco": "openpose_coco-368",
    "real_esrgan": "realesr_general_x4v3-480x640",
    "retinaface_mobilenet0.25": "retinaface_mobile025-640",
}
_ST = {
    **{
        f"mobilenet_v2_{alpha}_224 imagenet": f"mobilenet_v2{tag}-224"
        for alpha, tag in (("0.35", "_0.35"), ("1.0", ""), ("1.4", "_1.4"))
    },
    "mobilenet_v2_0.35_128 imagenet": "mobilenet_v2_0.35-128",
    "mobilenet_v2_0.35_128_fft food-101(101 cls)": "mobilenet_v2_0.35_food101-128",
    "mobilenet_v2_0.35_224_fft food-101": "mobilenet_v2_0.35_food101-224",
    "mobilenet_v2_1.0_224_fft food-101": "mobilenet_v2_1_food101-224",
    "mobilenet_v2_0.35_128_fft person": "mobilenet_v2_0.35_person-128",
    **{
        f"mobilenet_v1_{alpha}_224 imagenet": f"mobilenet_v1{tag}-224"
        for alpha, tag in (("0.25", "_0.25"), ("0.5", "_0.5"), ("1.0", ""))
    },
    **{
        f"mobilenet_v1_{alpha}_224_fft food-101": f"mobilenet_v1_{float(alpha):g}_food101-224"
        for alpha in ("0.25", "0.5", "1.0")
    },
    "efficientnet_v2B0_224 imagenet": "efficientnet_v2_b0-224",
    "efficientnet_v2B1_240 imagenet": "efficientnet_v2_b1-240",
    "efficientnet_v2B2_260 imagenet": "efficientnet_v2_b2-260",
    "efficientnet_v2S_384 imagenet": "efficientnet_v2_s_tf-384",
    "yamnet_256_64x96 esc10": "yamnet_256_esc10-64x96",
    "yamnet_1024_64x96 esc10": "yamnet_1024_esc10-64x96",
}
_ROCKCHIP = {"mobilenetv2-12": "mobilenet_v2-224", "resnet50-v2-7": "resnet50_v2-224"}
_ROCKCHIP |= {
    "wav2vec2_base_960h_20s": "wav2vec2_base_ctc-20s",
    "clip_text": "clip_text_b32-20",
    "clip_images": "clip_image_b32-224",
    "RetinaFace_mobile320": "retinaface_mobile025-320",
    "RetinaFace_resnet50_320": "retinaface_resnet50-320",
}
_VITIS = {
    "cf_resnet18_imagenet_224_224_3.65G": "resnet18-224",
    "cf_resnet50_imagenet_224_224_7.7G": "resnet50_v1-224",
    "tf_resnetv1_50_imagenet_224_224_6.97G": "resnet50_slim-224",
    "tf_resnet50_imagenet_224_224_6.97G": "resnet50_slim-224",
    "tf2_resnet50_imagenet_224_224_7.76G": "resnet50_v1-224",
    "pt_resnet50_imagenet_224_224_4.1G": "resnet50-224",
    "tf_mlperf_resnet50_imagenet_224_224_8.19G": "resnet50-224",
    "cf_inceptionv3_imagenet_299_299_11.4G": "inception_v3-299",
    "tf_inceptionv3_imagenet_299_299_11.45G": "inception_v3-299",
    "tf2_inceptionv3_imagenet_299_299_11.5G": "inception_v3-299",
    "pt_inceptionv3_imagenet_299_299_5.7G": "inception_v3-299",
    "tf_inceptionv1_imagenet_224_224_3G": "googlenet-224",
    "cf_inceptionv4_imagenet_299_299_24.5G": "inception_v4-299",
    "tf_inceptionv4_imagenet_299_299_24.55G": "inception_v4-299",
    "tf_inceptionresnetv2_imagenet_299_299_26.35G": "inception_resnet_v2-299",
    "cf_mobilenetv2_imagenet_224_224_0.59G": "mobilenet_v2-224",
    "tf_mobilenetv2_1.0_imagenet_224_224_0.59G": "mobilenet_v2-224",
    "tf_vgg16_imagenet_224_224_30.96G": "vgg16-224",
    "tf_vgg19_imagenet_224_224_39.28G": "vgg19-224",
    "cf_squeeze_imagenet_227_227_0.76G": "squeezenet1_1-227",
    "tf_efficientnet-edgetpu-S_imagenet_224_224_4.72G": "efficientnet_edgetpu_s-224",
    "tf_efficientnet-edgetpu-M_imagenet_240_240_7.34G": "efficientnet_edgetpu_m-240",
    "tf_efficientnet-edgetpu-L_imagenet_300_300_19.36G": "efficientnet_edgetpu_l-300",
    "tf_mobilenetEdge1.0_imagenet_224_224_990M": "mobilenet_edgetpu_100-224",
}
_VITIS |= {
    "cf_inceptionv1_imagenet_224_224_3.16G": "inception_v1_caffe-224",
    "cf_inceptionv2_imagenet_224_224_4G": "inception_v2_caffe-224",
    "tf_inceptionv2_imagenet_224_224_3.88G": "inception_v2_slim-224",
    "tf_mobilenetv1_0.25_imagenet_128_128_27.15M": "mobilenet_v1_0.25-128",
    "tf_mobilenetv1_0.5_imagenet_160_160_150.07M": "mobilenet_v1_0.5-160",
    "tf_mobilenetv1_1.0_imagenet_224_224_1.14G": "mobilenet_v1-224",
    "tf_mobilenetv1_imagenet_224_224_1.14G": "mobilenet_v1-224",
    "tf2_mobilenetv1_imagenet_224_224_1.15G": "mobilenet_v1-224",
    "tf_mobilenetv2_1.4_imagenet_224_224_1.16G": "mobilenet_v2_1.4-224",
    "tf_mobilenetv2_imagenet_224_224_1.17G": "mobilenet_v2_1.4-224",
    "tf_resnetv1_101_imagenet_224_224_14.4G": "resnet101_slim-224",
    "tf_resnetv1_152_imagenet_224_224_21.83G": "resnet152_slim-224",
    "tf_resnetv2_50_imagenet_299_299_13.1G": "resnet50_v2_slim-299",
    "tf_resnetv2_101_imagenet_299_299_26.78G": "resnet101_v2_slim-299",
    "tf_resnetv2_152_imagenet_299_299_40.47G": "resnet152_v2_slim-299",
    "tf_mobilenetEdge0.75_imagenet_224_224_624M": "mobilenet_edgetpu_075-224",
    "tf_ssdmobilenetv1_coco_300_300_2.47G": "ssd_mobilenet_v1-300",
    "tf_ssdmobilenetv2_coco_300_300_3.75G": "ssd_mobilenet_v2-300",
    "tf_ssdlite_mobilenetv2_coco_300_300_1.5G": "ssdlite_mobilenet_v2-300",
    "cf_facerec-resnet20_112_96_3.5G": "sphereface20-112x96",
    "pt_facerec-resnet20_mixed_112_96_3.5G": "sphereface20-112x96",
}
_CORAL = {
    "inception_v1_224_quant": "googlenet-224",
    "Inception v1": "googlenet-224",
    "Inception V1": "googlenet-224",
    "inception_v4_299_quant": "inception_v4-299",
    "Inception v4": "inception_v4-299",
    "Inception V4": "inception_v4-299",
    "Inception V3": "inception_v3-299",
    "Inception-ResNet V2": "inception_resnet_v2-299",
    "mobilenet_v2_1.0_224_quant": "mobilenet_v2-224",
    "MobileNet v2": "mobilenet_v2-224",
    "VGG16": "vgg16-224",
    "VGG19": "vgg19-224",
    "EfficientNet-EdgeTpu-S": "efficientnet_edgetpu_s-224",
    "EfficientNet-EdgeTpu-M": "efficientnet_edgetpu_m-240",
    "EfficientNet-EdgeTpu (S)": "efficientnet_edgetpu_s-224",
    "EfficientNet-EdgeTpu (M)": "efficientnet_edgetpu_m-240",
    "EfficientNet-EdgeTpu (L)": "efficientnet_edgetpu_l-300",
    "mobilenet_v1_1.0_224_quant": "mobilenet_v1-224",
    "MobileNet v1": "mobilenet_v1-224",
    "MobileNet V1 0.25": "mobilenet_v1_0.25-128",
    "ResNet-50 V1": "resnet50_slim-299",
    "ResNet-50 V2": "resnet50_v2_slim-299",
    "ResNet-152 V2": "resnet152_v2_slim-299",
    "ssd_mobilenet_v1_coco_quant_postprocess": "ssd_mobilenet_v1-300",
    "ssd_mobilenet_v1_300x300_quant_coco_edgetpu": "ssd_mobilenet_v1-300",
    "SSD MobileNet V1 (COCO, TF1)": "ssd_mobilenet_v1-300",
    "ssd_mobilenet_v2_300x300_quant_coco_edgetpu": "ssd_mobilenet_v2-300",
    "SSD MobileNet V2 (COCO, TF1)": "ssd_mobilenet_v2-300",
    "ssd_mobilenet_v2_face_quant_postprocess": "ssd_mobilenet_v2_face-320",
    "SSD MobileNet V2 (Faces)": "ssd_mobilenet_v2_face-320",
    "efficientdet-lite0_int8_edgetpu": "efficientdet_lite0-320",
    "EfficientDet-Lite0": "efficientdet_lite0-320",
    "efficientdet-lite1_int8_edgetpu": "efficientdet_lite1-384",
    "EfficientDet-Lite1": "efficientdet_lite1-384",
    "efficientdet-lite2_int8_edgetpu": "efficientdet_lite2-448",
    "efficientnet-lite0": "efficientnet_lite0-224",
    "efficientnet-lite1": "efficientnet_lite1-240",
    "efficientnet-lite2": "efficientnet_lite2-260",
    "efficientnet-lite3": "efficientnet_lite3-280",
}
_OTHERS: tuple[Row, ...] = (
    *(
        ("Sophgo", "", f"{stem}_{dtype}{batch}{cores}", "", graph)
        for stem, graph in _SOPHGO.items()
        for dtype in (("f32", "f16", "int8") if stem.startswith("hrnet") else ("fp32", "fp16", "int8"))
        for batch in ("" if stem.startswith("hrnet") else "_1b",)
        for cores in ("", "_2core")
    ),
    *(
        ("Sophgo", "", f"clip_{part}_vitb32_{chip}_f16_1b{cores}", "", graph)
        for part, graph in (("image", "clip_image_b32-224"), ("text", "clip_text_b32-77"))
        for chip, cores in (("bm1684x", ""), ("bm1688", "_2core"), ("cv186x", ""))
    ),
    ("Intel", "", "bert-base-cased", "", "bert_base_cased-124"),
    ("Intel", "", "bert-large-uncased-whole-word-masking-squad-0001", "", "bert_large_squad-384"),
    ("Apple", "", "distilbert-base-uncased-finetuned-sst-2 (ane_transformers)", "", "distilbert_sst2-128"),
    *(
        ("STMicroelectronics", "STM32MP257F", f"{model} per-{scheme}", "", graph)
        for model, graph in (
            ("mobilenet_v2_1.0_224", "mobilenet_v2-224"),
            ("mobilenet_v2_0.35_224_fft", "mobilenet_v2_0.35_food101-224"),
            ("mobilenet_v2_0.35_128_fft", "mobilenet_v2_0.35_food101-128"),
            ("mobilenet_v1_0.25_224_fft", "mobilenet_v1_0.25_food101-224"),
            ("mobilenet_v1_0.5_224_fft", "mobilenet_v1_0.5_food101-224"),
        )
        for scheme in ("tensor", "channel")
    ),
    ("STMicroelectronics", "STM32MP2 (GCNanoUltra31", "MobilenetV2_1.0", "", "mobilenet_v2-224"),
    ("STMicroelectronics", "STM32MP2 (GCNanoUltra31", "YoloV8n", "", "yolov8n_person-256"),
    ("NVIDIA", "single DLA", "resnet18", "", "resnet18-224"),
    ("NVIDIA", "single DLA", "mobilenet_v2", "", "mobilenet_v2-224"),
    ("Intel", "", "resnet-50", "", "resnet50-224"),
    ("Intel", "", "mobilenet-v2", "", "mobilenet_v2-224"),
    ("Canaan", "", "resnet50", "", "resnet50-224"),
    ("Canaan", "", "mobilenet_v2", "", "mobilenet_v2-224"),
    ("NXP", "i.MX95", "MobileNetV2 keras 1.0", "1x224x224x3", "mobilenet_v2-224"),
    ("NXP", "i.MX95", "MobileNetV2 keras 1.0", "1x320x320x3", "mobilenet_v2-320"),
    *(
        (vendor, device, model, "", graph)
        for vendor, device in (("NXP", "i.MX 8M Plus"), ("Amlogic", "A311D (VIP"))
        for model, graph in (
            ("MobileNet v1", "mobilenet_v1-224"),
            ("MobileNet v2", "mobilenet_v2-224"),
            ("ResNet18", "resnet18-224"),
            ("ResNet50", "resnet50-224"),
            ("VGG16", "vgg16-224"),
        )
    ),
)


def rows() -> Iterator[Row]:
    """Vendor, device (empty: all), published model, shape (empty: any), graph."""
    tables = (
        ("D-Robotics", _ROBOTICS),
        ("Axera", _AXERA),
        ("Rockchip", _ROCKCHIP),
        ("AMD/Xilinx", _VITIS),
        ("Google", _CORAL),
        ("Google Coral", _CORAL),
        ("STMicroelectronics", _ST),
    )
    for vendor, table in tables:
        for model, graph in table.items():
            yield vendor, "", model, "", graph
    yield from _OTHERS
