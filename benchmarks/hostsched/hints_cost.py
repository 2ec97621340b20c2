"""What hints cost: an application's request, the agent's look, and a flood.

CPU time of this process, not wall time. Quiet machine; medians of 9.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_client import HintClient
from npuops.hostsched.hint_line import HintLine, now_us
from npuops.hostsched.hint_socket import HintSocket
from npuops.hostsched.hint_wire import Word

FLOODER = """
import socket, sys
from npuops.hostsched.hint_wire import Word, encode
while True:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.connect(sys.argv[1])
            while True:
                raw.send(encode(Word(tid=1)))
    except OSError:
        pass
"""


def cpu_us(work: Callable[[], object], count: int) -> float:
    """Of one call, of this thread."""
    found = []
    for _ in range(9):
        begun = time.thread_time_ns()
        for _ in range(count):
            work()
        found.append((time.thread_time_ns() - begun) / count / 1000)
    return statistics.median(found)


def request_of(client: HintClient) -> Callable[[], object]:
    return lambda: client.done(client.began())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "h.sock")
        with HintClient(slo_ms=5, path=path) as client:
            print(f"a request, no agent:                 {cpu_us(request_of(client), 20_000):8.2f} µs")
        with HintSocket(path) as listener:
            print(f"a look, nobody connected:            {cpu_us(listener.heard, 2_000):8.2f} µs")
            with HintClient(slo_ms=5, path=path) as client:
                print(f"a request, with an agent:            {cpu_us(request_of(client), 20_000):8.2f} µs")
            listener.heard()
            lines = [HintLine(path) for _ in range(16)]
            for line in lines:
                line.send(Word(kind=Kind.LATENCY))
            listener.heard()
            print(f"a look, 16 connected, nothing new:   {cpu_us(listener.heard, 2_000):8.2f} µs")
            looks = []
            for number in range(200):
                for line in lines:
                    for _ in range(2):
                        line.send(Word(sent_us=now_us(), kind=Kind.LATENCY, queued=number, slack_us=1))
                begun = time.thread_time_ns()
                listener.heard()
                looks.append((time.thread_time_ns() - begun) / 1000)
                time.sleep(0.02)
            print(f"a look, 16 x 2 words (100/s, 50 Hz): {statistics.median(looks):8.2f} µs")
            for line in lines:
                line.close()
            command = [sys.executable, "-c", FLOODER, path]
            flooders = [subprocess.Popen(command) for _ in range(2)]
            begun_us, begun = now_us(), time.thread_time_ns()
            while now_us() - begun_us < 5_000_000:
                listener.heard()
                time.sleep(0.02)
            share = (time.thread_time_ns() - begun) / 5e9
            for flooder in flooders:
                flooder.kill()
                flooder.wait()
            print(f"50 looks/s under 2 floods:           {100 * share:8.2f} % of a core; {listener.counts}")


if __name__ == "__main__":
    main()
