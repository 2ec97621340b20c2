"""What the faults that are active together change about a device. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from npuops.vnpu.chance import chance, draw
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.program import Program
from npuops.vnpu.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """What a firmware bug does to the outputs of one job: whoever computes them must apply it.

    Attributes:
        op: outputs of operators of this class are hit.
        bit: this bit of a byte flips, 0 the lowest.
        seed: decides which elements.
    """

    op: str
    bit: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The sum of active faults.

    Attributes:
        memory_factor: transfers take so many times as long.
        unsupported: operator classes that no program may have.
        versions: part → version, where a fault has changed one.
        wrong: faults that corrupt outputs, the first first.
    """

    memory_factor: float = 1.0
    unsupported: frozenset[str] = frozenset()
    versions: Mapping[str, str]
    wrong: tuple[Fault, ...] = ()

    def changed(self, installed: Versions) -> Versions:
        """The versions that are in force."""
        return replace(installed, **self.versions)

    def corruption(self, program: Program, seed: int, job: int) -> Corruption | None:
        """What happens to the outputs of a job; None for most, and for programs without such an operator.

        Of two faults each hits its own jobs; a job that both would hit gets the first.
        """
        for fault in self.wrong:
            bug = (fault.op or "", fault.bit or 0, job)
            if fault.op in program.ops and chance(seed, "hit", *bug) < (fault.rate or 0.0):
                return Corruption(op=fault.op or "", bit=fault.bit or 0, seed=draw(seed, "elements", *bug))
        return None


def conditions(active: Sequence[Fault]) -> Conditions:
    """Of lasting faults: factors multiply, the later of two versions holds."""
    memory_factor = 1.0
    for fault in active:
        memory_factor *= fault.factor or 1.0
    return Conditions(
        memory_factor=memory_factor,
        unsupported=frozenset(fault.op for fault in active if fault.kind is Kind.UNSUPPORTED_OP and fault.op),
        versions={str(fault.part): fault.version for fault in active if fault.part and fault.version},
        wrong=tuple(fault for fault in active if fault.kind is Kind.WRONG_OUTPUT),
    )
