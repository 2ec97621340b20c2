"""What goes wrong on purpose, on any server of the comparison: kill, overload, malformed input, hot swap, noisy tenant.

    python benchmarks/serving/faults.py kill|overload|malformed|swap|tenants|all [SERVER…] [--json OUT.json]

Servers: names of peers.py and ours.py. Each scenario starts its own server and prints one table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from fault_kill import kill
from fault_malformed import malformed
from fault_overload import overload
from fault_swap import SWAPS, swap
from fault_tenants import tenants
from ours import OURS, BuildFailedError
from peers import PEERS, Peer
from served_models import make
from server_process import ServerDiedError, end_with_servers
from subject import Result, Subject, many_files, running

Scenario = Callable[[Subject], Awaitable[Result]]
SCENARIOS: dict[str, tuple[Scenario, str]] = {
    "kill": (kill, "tiny"),
    "overload": (overload, "steady"),
    "malformed": (malformed, "tiny"),
    "swap": (swap, "tiny"),
    "tenants": (tenants, "steady"),
}
"""Name → what happens, and the model it happens to."""


def suffer(name: str, peer: Peer, models: Path) -> Result:
    """One scenario on one server."""
    scenario, model_name = SCENARIOS[name]
    model = make(model_name, models)
    if name == "swap" and peer.name not in SWAPS:
        return {"not possible": "no way to load a version beside the other without a restart"}
    if name == "swap":
        peer = SWAPS[peer.name].peer
    plain_malformed = name == "malformed" and "grpc" not in peer.exchanges
    protocol = "binary" if "binary" in peer.exchanges and not plain_malformed else "json"
    try:
        with running(peer, model) as (server, scratch):
            exchange = peer.exchanges[protocol](model)
            subject = Subject(peer=peer, model=model, server=server, scratch=scratch, exchange=exchange)
            return uvloop.run(awaited(scenario(subject)))
    except (ServerDiedError, BuildFailedError) as error:
        return {"error": str(error)[-300:]}


async def awaited(result: Awaitable[Result]) -> Result:
    return await result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("servers", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "npuops-bench-serving")
    options = parser.parse_args()
    known = OURS | PEERS
    names = options.servers or [name for name in known if not name.startswith("npuops-")]
    many_files()
    end_with_servers()
    found: dict[str, dict[str, Result]] = {}
    for scenario in SCENARIOS if options.scenario == "all" else [options.scenario]:
        found[scenario] = {}
        for name in names:
            found[scenario][name] = suffer(scenario, known[name], options.scratch / "models")
            print(f"{scenario} {name}: {json.dumps(found[scenario][name])}", file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))
        print_table(scenario, found[scenario])


def print_table(scenario: str, results: dict[str, Result]) -> None:
    """Markdown: a server each line."""
    keys = list(dict.fromkeys(key for result in results.values() for key in result))
    print(f"\n#### {scenario}\n\n| server | {' | '.join(keys)} |\n|---|{'---|' * len(keys)}")
    for name, result in results.items():
        cells = [json.dumps(value) if isinstance(value := result.get(key, "–"), dict) else str(value) for key in keys]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
