"""The error tree. Every error says what happened and where, and advises what to do next.

::

    NpuopsError                     exit code
    ├── UsageError                  2   the call is wrong
    │   ├── OptionError                 an unknown or impossible option
    │   └── UnknownTargetError          no such target, or no such variant of it
    ├── ModelError                  2   the model file
    │   ├── MalformedModelError         not a model, truncated, or contradicting itself
    │   ├── UnsafeModelError            reaches outside its folder, or asks for absurd resources
    │   └── UnsupportedModelError       valid, but npuops or the target cannot take it
    ├── DataError                   2   calibration or evaluation data
    ├── ToolchainError              3   the vendor's side
    │   ├── MissingToolchainError       not installed; the advice names the extra
    │   ├── CompileError                the vendor's compiler refused; its words are kept
    │   ├── ToolchainTimeoutError       did not end within the time limit
    │   ├── ToolchainCrashError         the vendor's code killed its process
    │   └── RunError                    a session failed on an input
    ├── DeviceError                 3   an NPU, real or virtual
    │   ├── DeviceLostError             it is off, gone, or does not answer
    │   └── DeviceMemoryError           its memory cannot hold what was asked for
    ├── AccuracyError               1   no precision keeps the accuracy that was asked for
    ├── ArtifactError               1   an artifact that must not be used
    │   ├── IntegrityError              a file differs from its digest
    │   ├── SignatureError              no signature, or not one of a trusted key
    │   └── IncompatibleArtifactError   built for another toolchain, driver or format
    ├── ServingError                1   a request that a server does not answer with tensors
    │   ├── NotServedError              no such model, version, path or region here
    │   ├── UnauthenticatedError        no API key, or an unknown one
    │   ├── ForbiddenError              who asks is known, or needs no key, and may not do this
    │   ├── TooLargeError               more bytes than the server takes
    │   ├── DeadlineError               its time is over, or would be before the answer
    │   ├── CancelledError              the client went away, or took it back
    │   └── BusyError                   not now; has the seconds after which to ask again
    │       ├── OverloadedError             a queue is full
    │       ├── QuotaError                  the tenant's share is used up
    │       └── NotReadyError               the model is loading, draining, or has no healthy device
    └── StorageError                2   the disk is full, or the path cannot be written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class NpuopsError(Exception):
    """Base of all errors that npuops raises on purpose.

    Attributes:
        message: what happened and where, one or two sentences.
        advice: what to do next; empty when there is nothing better than the message.
        exit_code: the command line ends with it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the advice when an error crosses a process border."""
        return (_rebuild, (type(self), self.message, self.advice))


def _rebuild(kind: type[NpuopsError], message: str, advice: str) -> NpuopsError:
    return kind(message, advice=advice)


class UsageError(NpuopsError):
    """The call is wrong."""


class OptionError(UsageError):
    """An unknown or impossible option."""


class UnknownTargetError(UsageError):
    """No such target, or no such variant of it."""


class ModelError(NpuopsError):
    """The model file cannot be used."""


class MalformedModelError(ModelError):
    """Not a model, truncated, or contradicting itself."""


class UnsafeModelError(ModelError):
    """Reaches outside its folder, or asks for absurd resources."""


class UnsupportedModelError(ModelError):
    """A valid model that npuops or the target cannot take."""


class DataError(NpuopsError):
    """Calibration or evaluation data cannot be used."""


class AccuracyError(NpuopsError):
    """No precision keeps the accuracy that was asked for."""

    exit_code: ClassVar[int] = 1


class ToolchainError(NpuopsError):
    """The vendor's side is missing or broken."""

    exit_code: ClassVar[int] = 3


class MissingToolchainError(ToolchainError):
    """The toolchain is not installed; the advice names the extra."""


class CompileError(ToolchainError):
    """The vendor's compiler refused; its words are in the message."""


class ToolchainTimeoutError(ToolchainError):
    """Vendor code did not end within the time limit."""


class ToolchainCrashError(ToolchainError):
    """Vendor code killed its process."""


class RunError(ToolchainError):
    """A session failed on an input."""


class DeviceError(NpuopsError):
    """An NPU, real or virtual, cannot do what was asked."""

    exit_code: ClassVar[int] = 3


class DeviceLostError(DeviceError):
    """It is off, gone, or does not answer."""


class DeviceMemoryError(DeviceError):
    """Its memory cannot hold what was asked for; the message names asked, free and the largest free block."""


class ArtifactError(NpuopsError):
    """An artifact that must not be used."""

    exit_code: ClassVar[int] = 1


class IntegrityError(ArtifactError):
    """A file differs from the digest in the manifest."""


class SignatureError(ArtifactError):
    """No signature, or not one of a trusted key."""


class IncompatibleArtifactError(ArtifactError):
    """Built for another toolchain, driver or format."""


class ServingError(NpuopsError):
    """A request that a server does not answer with tensors."""

    exit_code: ClassVar[int] = 1


class NotServedError(ServingError):
    """No such model, version, path or region here."""


class UnauthenticatedError(ServingError):
    """No API key, or an unknown one."""


class ForbiddenError(ServingError):
    """Who asks is known, or needs no key, and may not do this."""


class TooLargeError(ServingError):
    """More bytes than the server takes."""


class DeadlineError(ServingError):
    """The request's time is over, or would be before the answer."""


class CancelledError(ServingError):
    """The client went away, or took the request back."""


class BusyError(ServingError):
    """Not now.

    Attributes:
        retry_after_s: seconds after which asking again makes sense.
    """

    def __init__(self, message: str, *, advice: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, advice=advice)
        self.retry_after_s = retry_after_s


class OverloadedError(BusyError):
    """A queue is full."""


class QuotaError(BusyError):
    """The tenant's share is used up."""


class NotReadyError(BusyError):
    """The model is loading, draining, or has no healthy device."""


class StorageError(NpuopsError):
    """The disk is full, or the path cannot be written."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a misspelt name, or the list of known ones."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
