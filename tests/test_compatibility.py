from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_artifact import manifest
from npuops.artifacts.compatibility import (
    DEFAULT_SPAN,
    POLICIES,
    Chip,
    QnnCompatibility,
    Span,
    compatible,
    parse_qnn,
)
from npuops.artifacts.evidence import Verdict

HERE = {"onnxruntime": "1.31.1", "onnxruntime-qnn": "2.7.0"}


def test_the_same_toolchain_can_run_it_and_there_is_nothing_to_say():
    answer = compatible(manifest(), HERE)
    assert (answer.verdict, answer.reasons, answer.advice) == (Verdict.PASS, (), ())


@pytest.mark.parametrize(
    ("package", "built", "here", "verdict"),
    [
        ("onnxruntime-qnn", "2.7.0", "2.7.3", Verdict.PASS),
        ("onnxruntime-qnn", "2.7.0", "2.9.0", Verdict.PASS),
        ("onnxruntime-qnn", "2.7.0", "3.0.0", Verdict.FAIL),
        ("onnxruntime-qnn", "2.7.0", "2.6.9", Verdict.FAIL),
        ("onnxruntime-qnn", "2.10.0", "2.9.0", Verdict.FAIL),
        ("openvino", "2026.4.0", "2026.4.0", Verdict.PASS),
        ("openvino", "2026.4.0", "2026.4.1", Verdict.FAIL),
        ("openvino", "2026.4.0", "2026.5.0", Verdict.FAIL),
        ("some-driver", "1.2", "1.2.0", Verdict.PASS),
        ("some-driver", "1.2", "1.2.0.1", Verdict.PASS),
        ("some-driver", "1.2", "1.3", Verdict.FAIL),
        ("some-driver", "1.2.0.5", "1.2.0.4", Verdict.FAIL),
        ("some-driver", "1.2-rc1", "1.2-rc1", Verdict.PASS),
        ("some-driver", "1.2-rc1", "1.2", Verdict.INCONCLUSIVE),
        ("some-driver", "1.2", "", Verdict.INCONCLUSIVE),
        ("some-driver", "1" * 5000, "1.2", Verdict.INCONCLUSIVE),
    ],
)
def test_how_far_a_package_may_be_ahead(package: str, built: str, here: str, verdict: Verdict):
    assert compatible(manifest(toolchain={package: built}, compatibility=""), {package: here}).verdict is verdict


def test_an_older_toolchain_gets_both_ways_out():
    answer = compatible(manifest(), {**HERE, "onnxruntime-qnn": "2.6.0"})
    assert answer.verdict is Verdict.FAIL
    assert answer.reasons == ("onnxruntime-qnn 2.6.0 is here; it was built with 2.7.0: older",)
    (advice,) = answer.advice
    assert "upgrade onnxruntime-qnn here to 2.7.0" in advice
    assert "npuops build MODEL --target qnn-htp:sm8650" in advice


def test_a_package_that_is_not_here_is_named_with_its_version():
    answer = compatible(manifest(), {"onnxruntime": "1.31.1"})
    assert answer.verdict is Verdict.FAIL
    assert answer.advice == ("install onnxruntime-qnn 2.7.0 here",)


def test_all_reasons_are_given_and_not_only_the_first():
    answer = compatible(manifest(), {"onnxruntime": "1.30.0"}, target_here="toy", chip=Chip(soc=60))
    assert len(answer.reasons) == 4


def test_packages_that_only_build_are_not_needed():
    built = manifest(toolchain={"onnxruntime": "1.31.1", "ethos-u-vela": "5.2.0"}, target="ethos-u:ethos-u85-256")
    assert compatible(built, {"onnxruntime": "1.31.1"}).verdict is Verdict.PASS


def test_what_does_not_say_how_it_was_built_is_inconclusive():
    answer = compatible(manifest(toolchain={}, compatibility=""), HERE)
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "build it again" in answer.advice[0]


def test_another_target_is_refused_with_the_command_that_builds_for_it():
    answer = compatible(manifest(), HERE, target_here="qnn-htp:sm8750")
    assert answer.verdict is Verdict.FAIL
    assert answer.advice == ("build it for this target: npuops build MODEL --target qnn-htp:sm8750",)


@pytest.mark.parametrize(
    ("text", "chip", "verdict"),
    [
        ("v2:6:2.51.0:5.51.0:0:57:0:0", Chip(), Verdict.PASS),
        ("v2:6:2.51.0:5.51.0:0:57:0:0", Chip(soc=57, arch=75), Verdict.PASS),
        ("v2:6:2.51.0:5.51.0:0:57:0:0", Chip(soc=60), Verdict.FAIL),
        ("v2:6:2.51.0:5.51.0:75:0:0:0", Chip(soc=57, arch=75), Verdict.PASS),
        ("v2:6:2.51.0:5.51.0:75:0:0:0", Chip(soc=60, arch=73), Verdict.FAIL),
        ("v2:3:2.51.0:5.51.0:0:57:0:0", Chip(soc=57), Verdict.FAIL),
        ("v3:6:2.51.0", Chip(soc=57), Verdict.INCONCLUSIVE),
        (f"v2:6:2.51.0:5.51.0:{'1' * 5000}:57:0:0", Chip(soc=57), Verdict.INCONCLUSIVE),
        ("", Chip(soc=57), Verdict.PASS),
    ],
)
def test_a_binary_for_another_chip_is_refused(text: str, chip: Chip, verdict: Verdict):
    assert compatible(manifest(compatibility=text), HERE, chip=chip).verdict is verdict


def test_the_sdk_in_the_string_is_compared_with_the_one_that_is_here():
    assert compatible(manifest(), {**HERE, "qairt": "2.52.0"}).verdict is Verdict.PASS
    answer = compatible(manifest(), {**HERE, "qairt": "2.50.0"})
    assert answer.verdict is Verdict.FAIL
    assert "upgrade qairt here to 2.51.0" in answer.advice[0]


def test_an_openvino_blob_says_that_opening_it_checks_the_processor():
    answer = compatible(manifest(target="openvino", compatibility="ov=2026.4.1;isa=avx2"), HERE)
    assert answer.verdict is Verdict.PASS
    assert any("opening it checks" in reason for reason in answer.reasons)


def test_what_qualcomms_compiler_really_writes_is_understood():
    """Strings of onnxruntime-qnn 2.7.0 for soc_model=57, htp_arch=75, and neither."""
    assert parse_qnn("v2:6:2.51.0:5.51.0:0:57:0:0") == QnnCompatibility(
        backend=6, sdk="2.51.0", backend_api="5.51.0", arch=None, soc=57
    )
    by_arch = parse_qnn("v2:6:2.51.0:5.51.0:75:0:0:0")
    neither = parse_qnn("v2:6:2.51.0:5.51.0:0:0:0:0")
    assert by_arch is not None
    assert neither is not None
    assert (by_arch.arch, by_arch.soc, neither.arch, neither.soc) == (75, None, None, None)


@given(st.text(max_size=40))
def test_any_other_text_is_no_compatibility_string(text: str):
    assert parse_qnn(text) is None
    compatible(manifest(compatibility=text), HERE)


versions = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@given(package=st.sampled_from([*POLICIES, "unknown"]), built=versions, here=versions)
def test_a_difference_is_never_passed_over_and_never_fails_without_advice(package: str, built: str, here: str):
    answer = compatible(manifest(toolchain={package: built}, compatibility=""), {package: here})
    if POLICIES.get(package, DEFAULT_SPAN) is Span.BUILD_ONLY:
        assert answer.verdict is Verdict.INCONCLUSIVE
    elif built != here:
        assert answer.reasons
    assert (answer.verdict is Verdict.PASS) or answer.advice


@given(package=st.sampled_from(["onnxruntime-qnn", "openvino", "unknown"]), built=versions, here=versions)
def test_two_versions_never_refuse_each_other_for_being_older(package: str, built: str, here: str):
    def is_older(built: str, here: str) -> bool:
        answer = compatible(manifest(toolchain={package: built}, compatibility=""), {package: here})
        return any("older" in reason for reason in answer.reasons)

    assert not (is_older(built, here) and is_older(here, built))


@pytest.mark.parametrize(
    ("text", "here", "verdict"),
    [
        ("ort:1.31.1:basic:any", {"onnxruntime": "1.32.0", "processor": "aarch64"}, Verdict.PASS),
        ("ort:1.31.1:extended:x86_64", {"onnxruntime": "1.31.1", "processor": "x86_64+avx2"}, Verdict.PASS),
        ("ort:1.31.1:extended:x86_64", {"onnxruntime": "1.31.2", "processor": "x86_64+avx2"}, Verdict.FAIL),
        ("ort:1.31.1:extended:x86_64", {"onnxruntime": "1.31.1", "processor": "aarch64"}, Verdict.FAIL),
        ("ort:1.31.1:all:x86_64+avx2", {"onnxruntime": "1.31.1", "processor": "x86_64+avx2"}, Verdict.PASS),
        ("ort:1.31.1:all:x86_64+avx2", {"onnxruntime": "1.31.1", "processor": "x86_64"}, Verdict.FAIL),
    ],
)
def test_a_graph_that_ort_optimized_for_itself_stays_with_that_ort_and_processor(
    text: str, here: dict[str, str], verdict: Verdict
):
    built = manifest(
        target="ort-cpu", toolchain={"onnxruntime": "1.31.1", "processor": "x86_64+avx2"}, compatibility=text
    )
    assert compatible(built, here).verdict is verdict


def test_what_only_a_device_can_run_is_left_to_its_driver_in_words():
    answer = compatible(manifest(target="ethos-u:ethos-u85-256", toolchain={"ethos-u-vela": "5.2.0"}), {})
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "driver" in answer.reasons[0]
    assert "ethos-u-vela 5.2.0" in answer.advice[0]
