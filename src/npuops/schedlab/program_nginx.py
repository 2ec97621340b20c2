"""nginx asked at a steady rate for a page that it compresses, beside sysbench."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

from npuops.hostsched.hint import Kind
from npuops.schedlab.batch_programs import SYSBENCH_NEEDS, sysbench
from npuops.schedlab.open_loop import asking, poisson_ns
from npuops.schedlab.program_load import (
    Cast,
    Need,
    ProgramLoad,
    Scene,
    await_port,
    free_port,
    http_request,
    path_of,
)
from npuops.schedlab.program_roles import ProgramRole

_RATE_PER_S: Final = 500.0
_WORDS: Final = 4000
_CONFIGURATION: Final = """\
{user}daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type text/html;
    gzip on;
    gzip_comp_level 5;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/pages; }}
}}
"""


def _set_up(scene: Scene) -> Cast:
    port = free_port(scene.stack)
    configuration = _configured(scene, port)
    words = [path_of("nginx"), "-p", scene.folder, "-c", configuration, "-e", "stderr"]
    server = scene.start("nginx", words)
    await_port(port, server)
    batch, meter = sysbench(scene)
    arrivals = poisson_ns(scene.seed, _RATE_PER_S, scene.window_ns)
    request = http_request("GET", "/page", headers=("Accept-Encoding: gzip",))
    client = scene.stack.enter_context(asking(port, "http", request, arrivals, scene.window_ns, scene.folder))
    role = ProgramRole("nginx", Kind.LATENCY, server.pid, ("nginx*",))
    return Cast(scene.cast(role, batch), client, meter, client.ahead)


def _configured(scene: Scene, port: int) -> Path:
    """Its configuration, and the page."""
    rng = random.Random(scene.seed)  # noqa: S311 - a page to compress
    vocabulary = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(800)]
    scene.write("pages/page", " ".join(rng.choices(vocabulary, k=_WORDS)))
    user = "user root;\n" if os.geteuid() == 0 else ""  # its own user may not look into our folder
    text = _CONFIGURATION.format(user=user, workers=scene.cpus, folder=scene.folder, port=port)
    return scene.write("nginx.conf", text)


NGINX: Final = ProgramLoad(
    "nginx-sysbench",
    f"nginx, {_RATE_PER_S:g} compressed pages a second, beside sysbench cpu",
    3000,
    (Need("nginx", "nginx"), *SYSBENCH_NEEDS),
    _set_up,
)
