from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from npuops.errors import DataError, ModelError
from npuops.events import Event, Warned
from npuops.models.open import open_model
from npuops.models.zoo import zoo
from npuops.vnpu.measured_rows import read_measured
from npuops.vnpu.predict import estimate, host_part_us
from npuops.vnpu.profile import load_profile
from npuops.vnpu.rules import rules_of
from npuops.vnpu.work import workload_of
from small_graphs import save

CNN, TRANSFORMER = (model.model for model in zoo())
CHIP = load_profile("bm1684x")


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "rows.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    "text",
    [
        f"model,latency_ms\n{CNN},0.25\n",
        f"model,latency_ms\r\n{CNN},0.25\r\n",
        f"\ufeffmodel,latency_ms\n{CNN},0.25\n",
        f"latency_ms , model\n 0.25 , {CNN} \n",
        f'"model","latency_ms"\n"{CNN}","2.5e-1"\n',
        f"model,latency_ms,format,group\n{CNN},0.25,,\n",
        f"model,latency_ms,format\n{CNN},0.25\n",
        f"model,latency_ms\n\n{CNN},0.25\n\n",
        f"model,latency_ms\n{CNN},0.25",
    ],
)
def test_a_row_is_the_same_in_whatever_way_a_program_writes_csv(tmp_path: Path, text: str) -> None:
    (row,) = read_measured(written(tmp_path, text), CHIP)
    assert (row.us, row.format) == (250.0, "int8")
    assert row.workload.layers
    assert "rows.csv, line" in row.where


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'model'"),
        (b"\x89PNG\xff\xfe", "no CSV file in UTF-8"),
        ('model,latency_ms\n"x.onnx,1\n', "no CSV file in UTF-8"),
        ("model;latency_ms\nx.onnx;1,5\n", "unknown column 'model;latency_ms'"),
        ("model,model,latency_ms\nx.onnx,y.onnx,1\n", "has the column 'model' twice"),
        ("model,latency_ms\nx.onnx,1,5\n", "line 2: 3 cells for 2 columns"),
        ("model,latency_ms\n,1\n", "line 2 names no model"),
        ("model,latency_ms\nx.onnx\n", "line 2: '' is no latency"),
        *(
            (f"model,latency_ms\n\nx.onnx,{bad}\n", f"line 3: '{bad}' is no latency")
            for bad in ("0", "-1", "nan", "inf")
        ),
        ("model,latency_ms\nx.onnx,1e400\n", "line 2: '1e400' is no latency"),
        ("model,latency_ms\nx.onnx,3 ms\n", "line 2: '3 ms' is no latency"),
        ("model,latency_ms,format\nx.onnx,1,int4\n", "line 2: the chip does not run 'int4'"),
    ],
)
def test_a_line_that_is_no_measurement_is_refused_by_its_number(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_measured(written(tmp_path, text), CHIP)
    assert words in caught.value.message
    assert caught.value.advice


def test_a_decimal_comma_is_explained(tmp_path: Path) -> None:
    for text in ("model;latency_ms\nx.onnx;1,5\n", "model,latency_ms\nx.onnx,1,5\n"):
        with pytest.raises(DataError) as caught:
            read_measured(written(tmp_path, text), CHIP)
        assert "a point in the numbers" in caught.value.advice


def test_a_format_that_the_chip_does_not_run_is_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not run 'w8a16'"):
        read_measured(written(tmp_path, "model,latency_ms,format\nnone.onnx,1,w8a16\n"), CHIP)


@pytest.mark.parametrize(("content", "words"), [(None, "absent.onnx"), (b"no model", "line 3")])
def test_a_model_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "absent.onnx").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_measured(written(tmp_path, f"model,latency_ms\n{CNN},1\nabsent.onnx,1\n"), CHIP)
    assert words in caught.value.message
    assert "line 3" in caught.value.message


def test_no_model_is_opened_while_a_later_line_is_wrong(tmp_path: Path) -> None:
    heard: list[Event] = []
    with pytest.raises(DataError, match="line 3"):
        read_measured(written(tmp_path, f"model,latency_ms\n{CNN},1\n{CNN},x\n"), CHIP, observe=heard.append)
    assert heard == []


def test_models_are_told_apart_by_what_they_hold_and_not_by_their_names(tmp_path: Path) -> None:
    """Exporters call every file model.onnx; and who leaves one copy out must leave out the other, too."""
    for folder, model in (("a", CNN), ("b", TRANSFORMER), ("c", CNN)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.onnx").write_bytes(model.read_bytes())
    rows = read_measured(
        written(tmp_path, "model,latency_ms\na/model.onnx,1\nb/model.onnx,2\nc/model.onnx,1.1\n"), CHIP
    )
    assert rows[0].group == rows[2].group != rows[1].group


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=words):
            read_measured(path, CHIP)


def test_what_falls_back_is_the_hosts_time_and_not_the_npus(tmp_path: Path) -> None:
    """As `npuops check` places it: the transformer's embedding and masks leave an RK3588's NPU."""
    chip, model = load_profile("rk3588"), open_model(TRANSFORMER)
    placed, workload = rules_of("rk3588")(model), workload_of(model)
    found = estimate(workload, chip, placed)
    on_host = [layer for layer in found.layers if layer.runs_on == "cpu" and layer.us]
    assert on_host
    (row,) = read_measured(written(tmp_path, f"model,latency_ms\n{TRANSFORMER},10\n"), chip)
    assert (row.us, row.host_us) == (10_000.0, host_part_us(workload, placed))
    assert row.host_us > sum(layer.us for layer in on_host)
    assert {layer.name for layer in row.workload.layers} == {p.name for p in placed if p.runs_on == "npu"}


def test_a_row_that_tells_of_the_host_only_is_left_out_and_said_so(tmp_path: Path) -> None:
    save(tmp_path / "host.onnx", [helper.make_node("Erf", ["x"], ["y"])], ([1, 1000], [1, 1000]))
    heard: list[Event] = []
    rows = read_measured(
        written(tmp_path, f"model,latency_ms\nhost.onnx,0.06\n{CNN},1\n"), load_profile("rk3588"), observe=heard.append
    )
    assert [row.where.rpartition(" ")[2] for row in rows] == ["3"]
    (warned,) = [event for event in heard if isinstance(event, Warned)]
    assert "line 2: left out" in warned.message


def test_a_model_of_unknown_sizes_tells_nothing(tmp_path: Path) -> None:
    save(tmp_path / "loose.onnx", [helper.make_node("Relu", ["x"], ["y"])], (["n", 8], ["n", 8]))
    with pytest.raises(DataError, match=r"line 2: loose\.onnx has inputs or layers of unknown size"):
        read_measured(written(tmp_path, "model,latency_ms\nloose.onnx,1\n"), CHIP)
