"""The batch sides: programs that take all the CPU time they get, and how far each gets."""

from __future__ import annotations

import random
from typing import Final

from npuops.hostsched.hint import Kind
from npuops.schedlab.attendant import STAGE
from npuops.schedlab.meters import CountMeter, RateMeter, kernel_count, lines_of, words_of
from npuops.schedlab.open_loop import memory_file
from npuops.schedlab.program_load import Need, Scene
from npuops.schedlab.program_roles import ProgramRole

BUILD_NEEDS: Final = (Need("gcc", "gcc"), Need("make", "make"))
HACKBENCH_NEEDS: Final = (Need("hackbench", "rt-tests"),)
SYSBENCH_NEEDS: Final = (Need("sysbench", "sysbench"),)
XZ_NEEDS: Final = (Need("xz", "xz-utils"),)

_SOURCES: Final = 12
_TARGETS: Final = 4000
_FUNCTIONS: Final = 4
_STATEMENTS: Final = 8
_CORPUS_WORDS: Final = 400_000
_FAR_OFF: Final = 1_000_000_000


def build(scene: Scene, jobs_per_cpu: int = 2) -> tuple[ProgramRole, CountMeter]:
    """`make -j` of C files, over and over: short-lived compilers that come and go."""
    rng = random.Random(scene.seed)  # noqa: S311 - source text
    for number in range(_SOURCES):
        scene.write(f"source{number}.c", _source(rng, number))
    done = scene.write("built", "")
    rules = [
        f"t{number}:\n\t@gcc -O2 -c -o o{number % (_SOURCES * 16)}.o source{number % _SOURCES}.c && echo >> built\n"
        for number in range(_TARGETS)
    ]
    names = " ".join(f"t{number}" for number in range(_TARGETS))
    scene.write("Makefile", f"all: {names}\n.PHONY: all {names}\n{''.join(rules)}")
    words = f"while make -s -j{jobs_per_cpu * scene.cpus} all; do :; done"
    program = scene.start("build", ["/bin/sh", "-c", words])
    role = ProgramRole("build", Kind.BATCH, program.pid, ("make*", "cc1*", "*gcc*", "as"))
    return role, CountMeter("objects", lines_of(done))


def hackbench(scene: Scene, groups: int = 1, descriptors: int = 6) -> tuple[ProgramRole, CountMeter]:
    """`hackbench`: senders and receivers, each `descriptors` to a group, that talk in pipes without a pause."""
    words = ["hackbench", "-p", "-g", str(groups), "-f", str(descriptors), "-s", "100", "-l", str(_FAR_OFF)]
    program = scene.start("hackbench", words)
    role = ProgramRole("hackbench", Kind.BATCH, program.pid, ("hackbench*",))
    return role, CountMeter("messages", kernel_count(program.pid, "syscw"))


def sysbench(scene: Scene, threads_per_cpu: int = 2) -> tuple[ProgramRole, RateMeter]:
    """`sysbench cpu`: threads that look for primes."""
    threads = str(threads_per_cpu * scene.cpus)
    words = ["sysbench", "cpu", f"--threads={threads}", "--time=0", "--events=0", "--report-interval=1"]
    program = scene.start("sysbench", [*words, "--cpu-max-prime=5000", "run"])
    role = ProgramRole("sysbench", Kind.BATCH, program.pid, ("sysbench*",))
    return role, RateMeter("events", program.log, r"eps: ([0-9.]+)")


def xz(scene: Scene, jobs_per_cpu: int = 2) -> tuple[ProgramRole, CountMeter]:
    """`xz` of the same text, over and over, so many at a time."""
    rng = random.Random(scene.seed)  # noqa: S311 - a text to compress
    vocabulary = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(5000)]
    text = " ".join(rng.choices(vocabulary, k=_CORPUS_WORDS))
    scene.write("corpus", text)
    one = "(while xz -3 -c corpus > /dev/null; do :; done) &"
    program = scene.start("xz", ["/bin/sh", "-c", f"{one * (jobs_per_cpu * scene.cpus)} wait"])
    role = ProgramRole("xz", Kind.BATCH, program.pid, ("xz*",))
    return role, CountMeter("bytes", kernel_count(program.pid, "rchar"))


def hogs(scene: Scene, per_cpu: int = 2) -> tuple[ProgramRole, CountMeter]:
    """Our own: processes that read and write a mebibyte each, at random."""
    count = per_cpu * scene.cpus
    fd, shared = memory_file(scene.stack, "crew", bytes(8 * count))
    program = scene.start("hogs", [STAGE.compiled(), "crew", str(count), str(fd)], pass_fds=(fd,))
    role = ProgramRole("hogs", Kind.BATCH, program.pid, ("hog*",))
    return role, CountMeter("turns", words_of(shared))


def _source(rng: random.Random, number: int) -> str:
    """A C file of loops and branches: some hundredths of a second of a compiler."""
    functions = []
    for function in range(_FUNCTIONS):
        body = "".join(_statement(rng) for _ in range(_STATEMENTS))
        head = f"uint32_t f{number}_{function}(uint32_t x, uint32_t *a)"
        functions.append(f"{head}\n{{\n{body}    return x + a[x & 15];\n}}\n")
    return "#include <stdint.h>\n" + "".join(functions)


def _statement(rng: random.Random) -> str:
    bit, factor, shift = rng.randrange(20), rng.randrange(3, 9999, 2), rng.randrange(1, 31)
    return (
        f"    if (x & {1 << bit}) x = (x * {factor}u) ^ (x >> {shift});\n"
        f"    else for (int i = 0; i < {shift + 2}; i++) a[i & 15] += x + (uint32_t)i * {factor}u;\n"
    )
