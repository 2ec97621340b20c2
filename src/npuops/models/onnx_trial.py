"""Shape inference tried in a forked child first: onnx's C++ kills its process on some contradictory graphs.

Seen with onnx 1.21: a ConvTranspose whose weight is a scalar, DepthToSpace by 2**32, OneHot, GatherND,
MaxRoiPool and Split with impossible ranks. A Python exception is no crash: the parent meets the same one and words it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import resource
import select
import signal
import warnings
from pathlib import Path
from typing import Final, NoReturn

import onnx
import onnx.shape_inference

LIMIT_S: Final = 60.0
MEMORY_BYTES: Final = 4 * 2**30
"""What the child may take beyond what the parent has."""

_proven: set[bytes] = set()
"""Digests of graphs that went through; the weights are not part of them."""


class TrialFailedError(Exception):
    """The child died or did not end; the message says how."""


def prove(skeleton: onnx.ModelProto) -> None:
    """Return when shape inference on `skeleton` ends without killing its process.

    Raises:
        TrialFailedError: it crashed, ran out of memory, or took longer than `LIMIT_S`.
    """
    digest = hashlib.sha256(skeleton.SerializeToString(deterministic=True)).digest()
    if digest in _proven:
        return
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Other threads do not run in the child, which calls nothing but onnx and then exits at once.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _try_and_exit(skeleton)
    os.close(writer)
    try:
        poller = select.poll()
        poller.register(reader)
        ended = bool(poller.poll(LIMIT_S * 1000))  # the pipe closes with the child
    except BaseException:
        ended = False
        raise
    finally:
        os.close(reader)
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not ended:
        raise TrialFailedError(f"it did not end within {LIMIT_S:.0f} s")
    if status < 0:
        raise TrialFailedError(f"it died of {signal.Signals(-status).name}")
    if status > 0:
        raise TrialFailedError("it ran out of memory")
    _proven.add(digest)


def _try_and_exit(skeleton: onnx.ModelProto) -> NoReturn:
    """In the child: infer twice, as the parent will, and leave without any of the parent's clean-up."""
    code = 1
    try:
        faulthandler.disable()  # a crash in here is an answer, not news
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for _ in range(2):
            with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError):
                onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True)
            del skeleton.graph.value_info[:]
        code = 0
    finally:
        os._exit(code)
