from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_artifact import manifest
from npuops.artifacts.encoding import MANIFEST_LIMIT_BYTES, canonical_json, decode_manifest, manifest_digest
from npuops.artifacts.evidence import Accuracy
from npuops.artifacts.manifest import FileRecord, Manifest, Role
from npuops.errors import ArtifactError, IncompatibleArtifactError, IntegrityError
from npuops.models.steps import CenterCrop, DecodeImage, Normalize, Pipeline, Resize, Softmax, TopK, ToTensor


def sealed(**changes: object) -> Manifest:
    files = tuple(
        replace(record, sha256="0" * 64) if not record.sha256 else record
        for record in changes.pop("files", manifest().files)  # type: ignore[attr-defined]
    )
    plain = manifest(files=files, **changes)
    return replace(plain, digest=manifest_digest(plain))


def edited(change: dict[str, object]) -> bytes:
    values = json.loads(canonical_json(sealed()))
    return json.dumps({**values, **change}, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def test_what_is_written_is_read_back_equal_and_with_one_newline_at_the_end():
    data = canonical_json(sealed())
    again = decode_manifest(data, where="here")
    assert canonical_json(again) == data
    assert data.endswith(b"}\n")
    assert "mödel".encode() in data


def test_whole_numbers_in_float_fields_are_written_as_floats_so_that_the_form_is_unique():
    assert b'"seconds": 2.0' in canonical_json(manifest())


def test_keys_are_sorted_at_every_depth():
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert list(value) == sorted(value)
            list(map(check, value.values()))
        if isinstance(value, list):
            list(map(check, value))

    check(json.loads(canonical_json(manifest(toolchain={"z": "1", "a": "2"}))))


def test_anybody_can_check_the_digest_by_cutting_it_out_of_the_file():
    data = canonical_json(sealed())
    found = re.search(rb'"digest": "sha256:([0-9a-f]{64})",\n  "entry"', data)
    assert found is not None
    rest = data.replace(b"sha256:" + found[1], b"")
    assert hashlib.sha256(rest).hexdigest().encode() == found[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_hold_is_refused_by_name_instead_of_becoming_null(value: float):
    with pytest.raises(ArtifactError, match=r"accuracy\.fp32 is"):
        canonical_json(manifest(accuracy=Accuracy(metric="m", fp32=value, artifact=0.0, samples=1)))


def test_a_value_of_the_wrong_type_is_refused_when_it_is_written():
    with pytest.raises(ArtifactError, match="precision"):
        canonical_json(manifest(precision=8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"compile": {"cache_key": "k", "seconds": 1.0, "notes": {}, "vendor_options": {}, "x": 1}}, "compile.x"),
        ({"precision": 8}, "precision"),
        ({"target": None}, "target"),
        ({"target": "other"}, "its own digest"),
        ({"digest": ""}, "its own digest"),
    ],
)
def test_an_edited_manifest_is_refused_with_the_place(change: dict[str, object], words: str):
    with pytest.raises(IntegrityError, match=re.escape(words)):
        decode_manifest(edited(change), where="here")


def test_another_version_of_the_format_is_incompatible_and_the_advice_says_what_to_do():
    with pytest.raises(IncompatibleArtifactError, match=r"npuops\.artifact/2") as caught:
        decode_manifest(edited({"schema": "npuops.artifact/2", "new_field": 1}), where="here")
    assert "build the artifact again" in caught.value.advice


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"schema": "npuops.artifact/1", "x": ' + b"[" * 1_000_000,
        b'{"schema": "something else"}',
        b" " * (MANIFEST_LIMIT_BYTES + 1),
    ],
    ids=["empty", "no-keys", "list", "null", "not-utf8", "deep", "deep-unknown", "foreign", "huge"],
)
def test_what_is_no_manifest_is_refused_as_an_artifact_error(data: bytes):
    with pytest.raises(IntegrityError):
        decode_manifest(data, where="here")


def test_the_same_content_in_another_form_is_refused():
    data = canonical_json(sealed())
    for other in (data.rstrip(), data + b"\n", msgspec.json.format(data, indent=0), data.replace(b"1e-17", b"1E-17")):
        assert other != data
        with pytest.raises(IntegrityError, match="canonical"):
            decode_manifest(other, where="here")


def test_a_key_given_twice_is_refused():
    data = canonical_json(sealed()).replace(b'  "target"', b'  "target": "qnn-htp:sm8650",\n  "target"', 1)
    with pytest.raises(IntegrityError, match="canonical"):
        decode_manifest(data, where="here")


BAD_NAMES = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "./a",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    "e\u0301",
    "x" * 256,
    "0" + "/abc" * 20_000,
    "0" + "/0" * 100_000,
    "manifest.json",
    "Signature.dsse.json",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[repr(name[:20]) for name in BAD_NAMES])
def test_a_name_that_could_reach_outside_or_mean_two_things_is_refused(name: str):
    record = FileRecord(name=name, role=Role.COMPILED, sha256="0" * 64, bytes=1)
    data = canonical_json(sealed(files=(*manifest().files, record)))
    with pytest.raises(IntegrityError, match="file name"):
        decode_manifest(data, where="here")


@pytest.mark.parametrize(
    ("files", "entry", "words"),
    [
        (("a", "A"), "a", "twice"),
        (("a", "a"), "a", "twice"),
        (("a", "a/b"), "a", "lies in another file"),
        (("a",), "b", "entry"),
    ],
)
def test_names_that_contradict_each_other_are_refused(files: tuple[str, ...], entry: str, words: str):
    records = tuple(FileRecord(name=name, role=Role.COMPILED, sha256="0" * 64, bytes=1) for name in files)
    with pytest.raises(IntegrityError, match=words):
        decode_manifest(canonical_json(sealed(files=records, entry=entry)), where="here")


@pytest.mark.parametrize("record", [{"sha256": "0" * 63}, {"sha256": "A" * 64}, {"bytes": -1}])
def test_an_impossible_digest_or_size_is_refused(record: dict[str, object]):
    first, *rest = (replace(one, sha256="0" * 64) for one in manifest().files)
    data = canonical_json(sealed(files=(replace(first, **record), *rest)))
    with pytest.raises(IntegrityError, match="digest and size"):
        decode_manifest(data, where="here")


@given(
    labels=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4),
    drop=st.floats(allow_nan=False, allow_infinity=False),
    notes=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=5), st.text('ab"\\\n', max_size=5), max_size=4
    ),
)
def test_any_text_and_any_finite_number_survives(labels: list[str], drop: float, notes: dict[str, str]):
    accuracy = Accuracy(metric="m", fp32=drop, artifact=0.0, samples=1)
    wanted = sealed(labels=tuple(labels), accuracy=accuracy, compile=replace(manifest().compile, notes=notes))
    again = decode_manifest(canonical_json(wanted), where="here")
    assert (again.labels, again.accuracy, again.compile) == (wanted.labels, wanted.accuracy, wanted.compile)


PIPELINE = Pipeline(
    input="x",
    preprocess=(
        DecodeImage(),
        Resize(height=8, width=8),
        CenterCrop(height=8, width=8),
        Normalize(mean=(0.5,), std=(1.0, 2.0, 3.0)),
        ToTensor(),
    ),
    postprocess=(Softmax(tensor="y"), TopK(tensor="y", k=3)),
)


def test_a_pipeline_is_read_back_equal_and_is_part_of_the_digest():
    with_it, without = sealed(pipeline=PIPELINE), sealed()
    assert decode_manifest(canonical_json(with_it), where="here") == with_it
    assert with_it.digest != without.digest
    steps = (*PIPELINE.postprocess[:-1], TopK(tensor="y", k=2))
    assert sealed(pipeline=replace(PIPELINE, postprocess=steps)).digest != with_it.digest


def test_a_manifest_from_before_pipelines_keeps_its_bytes():
    data = canonical_json(sealed())
    assert b"pipeline" not in data
    assert decode_manifest(data, where="here").pipeline is None
    with pytest.raises(IntegrityError):
        decode_manifest(edited({"pipeline": None}), where="here")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "resize", "height": 8, "width": 8, "mode": "cubic"},
        {"step": "rotate", "degrees": 90},
        {"step": "resize", "height": 0, "width": 8},
    ],
)
def test_a_step_that_this_version_does_not_know_is_refused(change):
    values = json.loads(canonical_json(sealed(pipeline=PIPELINE)))
    values["pipeline"]["preprocess"][1] = change
    data = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    with pytest.raises(IntegrityError):
        decode_manifest(data, where="here")
