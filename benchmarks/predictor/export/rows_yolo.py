"""YOLO rows outside Qualcomm: Rockchip, D-Robotics, Axera, Sophgo, ST, Vitis-AI, Intel, Canaan, Amlogic, NXP."""

from __future__ import annotations

from collections.abc import Iterator

Row = tuple[str, str, str, str, str]
_SOPHGO_DTYPES = ("fp32_1b", "fp16_1b", "int8_1b", "int8_4b", "fp32_4b", "fp16_4b")

_ROCKCHIP = {
    "yolov5s_relu": "yolov5s_relu-640-raw",
    "yolov5n": "yolov5n-640-raw",
    "yolov5s": "yolov5s-640-raw",
    "yolov5m": "yolov5m-640-raw",
    "yolov6n": "yolov6n-640-raw",
    "yolov6s": "yolov6s-640-raw",
    "yolov6m": "yolov6m-640-raw",
    "yolov7-tiny": "yolov7_tiny-640-raw",
    "yolov7": "yolov7-640-raw",
    "yolov8n": "yolov8n-640-raw",
    "yolov8s": "yolov8s-640-raw",
    "yolov8m": "yolov8m-640-raw",
    "yolov8n-obb": "yolov8n_obb-640-raw",
    "yolov8n-pose": "yolov8n_pose-640-raw",
    "yolov8n-seg": "yolov8n_seg-640-raw",
    "yolov8s-seg": "yolov8s_seg-640-raw",
    "yolov8m-seg": "yolov8m_seg-640-raw",
    "yolov5n-seg": "yolov5n_seg-640-raw",
    "yolov5s-seg": "yolov5s_seg-640-raw",
    "yolov5m-seg": "yolov5m_seg-640-raw",
    "yolov10n": "yolov10n-640-raw",
    "yolov10s": "yolov10s-640-raw",
    "yolo11n": "yolo11n-640-raw",
    "yolo11s": "yolo11s-640-raw",
    "yolo11m": "yolo11m-640-raw",
    "yolox_s": "yolox_s-640-raw",
    "yolox_m": "yolox_m-640-raw",
    "ppyoloe_s": "ppyoloe_s-640-raw",
    "ppyoloe_m": "ppyoloe_m-640-raw",
}
_AXERA = {
    "YOLOv3": "yolov3-608-raw",
    "YOLOv5s": "yolov5s-640-raw",
    "YOLOv6s": "yolov6s-640-raw",
    "YOLOv7-Tiny": "yolov7_tiny-640-raw",
    "YOLOv7": "yolov7-640-raw",
    "YOLOv8n": "yolov8n-640-raw",
    "YOLOv8s": "yolov8s-640-raw",
    "YOLOv9s": "yolov9s-640-raw",
    "YOLOv10s": "yolov10s-640-raw",
    "YOLO11s": "yolo11s-640-raw",
    "YOLOX_s": "yolox_s-640-raw",
    "PPYOLOE+_s": "ppyoloe_s-640-raw",
    "yolov5s": "yolov5s-640-raw",
    "yolov6s": "yolov6s-640-raw",
    "yolov8n": "yolov8n-640-raw",
    "yolov8s": "yolov8s-640-raw",
    "yolov8l": "yolov8l-640-raw",
    "yolov8x": "yolov8x-640-raw",
    "yolov9s": "yolov9s-640-raw",
    "yolov10s": "yolov10s-640-raw",
    "yolo11s": "yolo11s-640-raw",
}
_SOPHGO = {  # the stem of the published name; batch 4 files have no latency and are left to the reader
    "yolov3": "yolov3-608-raw",
    "yolov4": "yolov4-416-raw",
    "yolov5s_v6.1_3output": "yolov5s-640-raw",
    "yolov7_v0.1_3output": "yolov7-640-raw",
    "yolov8s": "yolov8s-640",
    "yolov8s-pose": "yolov8s_pose-640",
    "yolov9s": "yolov9s-640",
    "yolov9c": "yolov9c-640",
    "yolov10s": "yolov10s-640",
    "yolov11s": "yolo11s-640",
    "yolox_s": "yolox_s-640",
}
_OTHERS: tuple[Row, ...] = (
    *(
        ("STMicroelectronics", "STM32N6", f"yolov8n_{side} coco-person", "", f"yolov8n_person-{side}")
        for side in (192, 256, 320, 416)
    ),
    ("STMicroelectronics", "STM32N6", "yolo11n_256 coco-person", "", "yolo11n_person-256"),
    ("STMicroelectronics", "STM32MP257F", "yolov8n_256 per-channel", "", "yolov8n_person-256"),
    ("STMicroelectronics", "STM32MP257F", "yolov8n_256 per-tensor", "", "yolov8n_person-256"),
    ("AMD/Xilinx", "", "dk_yolov3_voc_416_416_65.42G", "", "yolov3_voc-416-raw"),
    ("AMD/Xilinx", "", "tf_yolov3_voc_416_416_65.63G", "", "yolov3_voc-416-raw"),
    ("AMD/Xilinx", "", "dk_yolov3_bdd_288_512_53.7G", "", "yolov3_bdd-288x512-raw"),
    ("AMD/Xilinx", "", "dk_tiny-yolov3_416_416_5.46G", "", "yolov3_tiny-416-raw"),
    ("AMD/Xilinx", "", "dk_yolov4_coco_416_416_60.1G", "", "yolov4_leaky-416-raw"),
    ("AMD/Xilinx", "", "dk_yolov2_voc_448_448_34G", "", "yolov2_voc-448-raw"),
    ("Intel", "", "yolo_v3_tiny", "", "yolov3_tiny-416-raw"),
    ("Canaan", "", "yolov5s", "", "yolov5s-640-raw"),
    ("Amlogic", "A311D (VIP", "YOLOv5s", "", "yolov5s-640-raw"),
)
_DETECTORS = [f"YOLOv8{size}" for size in "nsmlx"] + [f"YOLO11{size}" for size in "nsmlx"]


def _robotics() -> Iterator[tuple[str, str]]:
    for model in _DETECTORS:
        low = model.lower()
        yield model, f"{low}-640-raw"
        yield f"{model}-Seg", f"{low}_seg-640-raw"
        yield f"{model}-Pose", f"{low}_pose-640-raw"
        yield f"{model}-CLS", f"{low}_cls-224"
    for size in "nsmlx":
        yield f"YOLOv5{size}u", f"yolov5{size}u-640-raw"
        yield f"YOLO12{size}", f"yolo12{size}-640-raw"
    for size in "nsmblx":
        yield f"YOLOv10{size}", f"yolov10{size}-640-raw"
    for size in "tsmce":
        yield f"YOLOv9{size}", f"yolov9{size}-640-raw"
    for size in "ce":
        yield f"YOLOv9{size}-Seg", f"yolov9{size}_seg-640-raw"


def rows() -> Iterator[Row]:
    """Vendor, device (empty: all), published model, shape (empty: any), graph."""
    for model, graph in _ROCKCHIP.items():
        yield "Rockchip", "", model, "", graph
    for model, graph in _AXERA.items():
        yield "Axera", "", model, "", graph
    for model, graph in _robotics():
        yield "D-Robotics", "", model, "", graph
    for stem, graph in _SOPHGO.items():
        for dtype in _SOPHGO_DTYPES:
            for cores in ("", "_2core"):
                if dtype.endswith("1b"):
                    yield "Sophgo", "", f"{stem}_{dtype}{cores}", "", graph
    yield from _OTHERS
