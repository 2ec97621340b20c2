"""The whole surface of KServe's client against a server: `python kserve_client.py HTTP_PORT GRPC_PORT`.

Runs in an environment of its own (tests/requirements-kserve.txt); test_dataplane.py starts it. It prints what it did.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient
from kserve.protocol.infer_type import RequestedOutput

A = np.arange(32, dtype=np.int32).reshape(2, 16)
B = np.full((2, 16), 5, np.int32)


def request(*, binary: bool, version: str | None = None, outputs: bool = False) -> InferRequest:
    inputs = []
    for name, array in (("INPUT0", A), ("INPUT1", B)):
        tensor = InferInput(name, list(array.shape), "INT32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    wanted = [RequestedOutput(name, {"binary_data": binary}) for name in ("OUTPUT0", "OUTPUT1")] if outputs else None
    return InferRequest("simple", inputs, "an id", model_version=version, request_outputs=wanted)


def check(response: object) -> None:
    outputs = {output.name: output.as_numpy() for output in response.outputs}  # type: ignore[attr-defined]
    assert np.array_equal(outputs["OUTPUT0"], A + B), outputs
    assert np.array_equal(outputs["OUTPUT1"], A - B), outputs
    assert response.id == "an id"  # type: ignore[attr-defined]


async def rest(port: int) -> list[str]:
    base, done = f"http://127.0.0.1:{port}", []
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    for call in (client.is_server_live, client.is_server_ready):
        assert await call(base) is True
        done.append(call.__name__)
    assert await client.is_model_ready(base, "simple") is True
    done.append("is_model_ready")
    for binary in (False, True):
        for outputs in (False, True):
            check(await client.infer(base, request(binary=binary, outputs=outputs), model_name="simple"))
            done.append(f"infer binary={binary} outputs={outputs}")
    try:
        await client.infer(base, request(binary=True), model_name="absent")
    except httpx.HTTPStatusError as error:
        done.append(str(error.response.status_code))
    await client.close()
    return done


async def rpc(port: int) -> list[str]:
    done = []
    client = InferenceGRPCClient(f"127.0.0.1:{port}")
    for call in (client.is_server_live, client.is_server_ready):
        assert await call() is True
        done.append(call.__name__)
    assert await client.is_model_ready("simple") is True
    assert await client.is_model_ready("absent") is False
    done.append("is_model_ready")
    for binary in (False, True):
        check(await client.infer(request(binary=binary)))
        done.append(f"infer raw={binary}")
    wrong = request(binary=True)
    wrong.model_name = "absent"
    try:
        await client.infer(wrong)
    except grpc.RpcError as error:
        done.append(error.code().name)
    await client.close()
    return done


async def main() -> None:
    http, grpc_port = map(int, sys.argv[1:])
    sys.stdout.write(
        "\n".join(["rest: " + ", ".join(await rest(http)), "grpc: " + ", ".join(await rpc(grpc_port)), ""])
    )


asyncio.run(main())
