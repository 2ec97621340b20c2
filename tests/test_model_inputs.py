"""Tensors to send, against the protocol's own client library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import serialize_byte_tensor

from npuops.errors import DataError, OptionError
from npuops.loadgen.model_inputs import DTYPES, Port, npz_tensors, random_tensors, settled_ports, tensor_of


def port(datatype: str = "FP32", *shape: int, name: str = "x") -> Port:
    return Port(name=name, datatype=datatype, shape=shape)


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_has_random_tensors_of_the_right_size_from_a_seed(datatype: str) -> None:
    (one,) = random_tensors([port(datatype, 3, 5)], 1)
    (again,) = random_tensors([port(datatype, 3, 5)], 1)
    (other,) = random_tensors([port(datatype, 3, 5)], 2)
    assert one.raw == again.raw != other.raw
    size = {"BF16": 2, "BYTES": 20}.get(datatype) or np.dtype(DTYPES[datatype]).itemsize
    assert len(one.raw) == 15 * size
    assert (one.values() is None) == (datatype in {"FP16", "BF16"})


def test_text_is_written_as_the_reference_client_writes_it_and_bf16_is_the_upper_half_of_a_float() -> None:
    words = np.array([b"", "grüße", b"\x00\xff"], object)
    assert tensor_of("x", "BYTES", words).raw == serialize_byte_tensor(words).item()
    values = np.array([0.0, 1.5, -2.25], np.float32)
    assert tensor_of("x", "BF16", values).raw == bytes.fromhex("0000 c03f 10c0")


def test_a_float_is_as_short_in_json_as_its_precision_allows() -> None:
    assert tensor_of("x", "FP32", np.array([0.1, 3], np.float32)).values() == [0.1, 3.0]


def test_a_free_batch_takes_the_wanted_rows_and_a_fixed_one_refuses_others() -> None:
    assert settled_ports([port("FP32", -1, 4)])[0].shape == (1, 4)
    assert settled_ports([port("FP32", -1, 4)], batch=3)[0].shape == (3, 4)
    assert settled_ports([port("FP32", 2, 4)], batch=2)[0].shape == (2, 4)
    with pytest.raises(OptionError, match="its first size is fixed"):
        settled_ports([port("FP32", 1, 4)], batch=3)


def test_another_free_size_must_be_said() -> None:
    with pytest.raises(OptionError, match="-1 can be any size") as caught:
        settled_ports([port("INT64", -1, -1)])
    assert "--shape x=1x16" in caught.value.advice
    assert settled_ports([port("INT64", -1, -1)], shapes={"x": (2, 7)})[0].shape == (2, 7)


def test_absurd_or_unknown_metadata_is_refused() -> None:
    with pytest.raises(DataError, match="bytes"):
        settled_ports([port("FP32", 10**6, 10**6)])
    with pytest.raises(DataError, match="datatype"):
        settled_ports([port("FP8", 1)])


def test_an_npz_is_checked_against_the_model(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.ones((2, 4), np.float32))
    (found,) = npz_tensors(path, [port("FP32", -1, 4)])
    assert (found.shape, found.raw) == ((2, 4), np.ones(8, "<f4").tobytes())
    with pytest.raises(DataError):
        npz_tensors(path, [port("FP32", -1, 5)])
    with pytest.raises(DataError):
        npz_tensors(path, [port("FP32", -1, 4, name="y")])


def test_an_npz_stands_for_itself_where_the_server_describes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones((2,), np.int8), b=np.array(["x", "yz"]))
    assert [(t.name, t.datatype) for t in npz_tensors(path, [])] == [("a", "INT8"), ("b", "BYTES")]
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable"):
        npz_tensors(path, [])


def test_any_other_file_is_the_one_element_of_a_model_that_takes_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"\xff\xd8picture\0\0")
    (found,) = npz_tensors(path, [port("BYTES", -1)])
    assert (found.shape, found.raw) == ((1,), b"\x0b\0\0\0\xff\xd8picture\0\0")
    with pytest.raises(DataError, match="not a readable"):
        npz_tensors(path, [port("FP32", 1)])


def test_a_file_that_is_no_npz_is_told_as_such_where_the_server_describes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="one array without a name"):
        npz_tensors(tmp_path / "one.npy", ())
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        npz_tensors(tmp_path / "broken.npz", ())


def test_one_file_does_not_fill_an_input_of_several_elements(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(DataError, match="is one element"):
        npz_tensors(tmp_path / "cat.jpg", (Port(name="x", datatype="BYTES", shape=(3,)),))
