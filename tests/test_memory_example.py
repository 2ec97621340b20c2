"""The command that compares memory plans with published allocations: nothing is said to stay on a chip that left it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "predictor" / "memory.py"


def run(table: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, table], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_no_published_spill_is_missed(shared_data: Path) -> None:
    done = run(shared_data / "npu_latency_published.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is said not to fit" not in done.stdout, "all of these run on their board"
    verdicts = [line.split("|")[2:7] for line in done.stdout.splitlines()[-3:]]
    rows, leave, right, false_stays, false_leaves = (sum(int(line[at]) for line in verdicts) for at in range(5))
    assert rows >= 30
    assert leave >= 6
    assert false_stays == 0
    assert right == rows - false_leaves
    assert false_leaves <= 2


def test_without_the_table_it_says_so() -> None:
    done = run(Path("nowhere.csv"))
    assert done.returncode == 1
    assert "SKIPPED" in done.stderr


def test_a_missed_spill_fails_it(tmp_path: Path) -> None:
    header = "vendor,device,model,input_shape,dtype,batch,latency_ms,fps,power_w,runtime,source"
    board = "STM32N6570-DK (Neural-ART 14 @1GHz + Cortex-M55 @800MHz)"
    memory = "internal_RAM_KiB=100; external_RAM_KiB=140; weights_flash_KiB=1840"
    row = f"STMicroelectronics,{board},mobilenet_v2_0.35_128 imagenet,1x128x128x3,int8,1,6,,,{memory},made up"
    usb = [
        f"Google Coral,{device},mobilenet_v2_1.0_224_quant,1x224x224x3,uint8,1,{ms},,,,made up"
        for device, ms in (
            ('"Coral USB Accelerator (USB2, RPi 3B+ host)"', 10.6),
            ("Coral USB Accelerator (RPi 4B host)", 4.5),
        )
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join([header, row, *usb]), encoding="utf-8")
    done = run(table)
    assert done.returncode == 1
    assert "FALSE: STAYS" in done.stdout
