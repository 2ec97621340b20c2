"""Ray Serve: one replica with @serve.batch behind its HTTP proxy."""

import os
import time

import ray
from peer_session import DELAY_S, MAX_ROWS, PORT, Session
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 1})
class Onnx:
    def __init__(self) -> None:
        self.onnx = Session()

    @serve.batch(max_batch_size=max(MAX_ROWS, 1), batch_wait_timeout_s=DELAY_S if MAX_ROWS > 1 else 0.0)
    async def run(self, rows):
        return list(self.onnx.run_rows(rows))

    async def __call__(self, request: Request):
        if request.url.path == "/raw":
            answer = await self.run(self.onnx.row_of_bytes(await request.body()))
            return Response(answer.tobytes(), media_type="application/octet-stream")
        answer = await self.run(self.onnx.row(await request.json()))
        return {"y": answer.ravel().tolist()}


if __name__ == "__main__":
    ray.init(
        include_dashboard=False,
        num_cpus=2,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=os.environ["BENCH_SCRATCH"],
        runtime_env={
            "env_vars": {key: os.environ[key] for key in os.environ if key.startswith(("BENCH_", "PYTHONPATH"))}
        },
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    serve.run(Onnx.bind(), name="onnx", route_prefix="/")
    while True:
        time.sleep(3600)
