"""FastAPI and uvicorn: pydantic and the thread pool, as documented; and both inline, in the event loop; no batching."""

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from peer_session import PORT, Session
from pydantic import BaseModel, create_model

onnx = Session()
Body: type[BaseModel] = create_model("Body", **dict.fromkeys(onnx.inputs, (list, ...)))
app = FastAPI()


def answer_json(body: BaseModel) -> dict[str, list[float]]:
    return {"y": onnx.run_rows([onnx.row(body.model_dump())]).ravel().tolist()}


def answer_bytes(body: bytes) -> Response:
    return Response(onnx.run_rows([onnx.row_of_bytes(body)]).tobytes(), media_type="application/octet-stream")


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/predict")
def predict(body: Body) -> dict[str, list[float]]:
    return answer_json(body)


@app.post("/raw")
async def raw(request: Request) -> Response:
    return await run_in_threadpool(answer_bytes, await request.body())


@app.post("/inline")
async def inline(body: Body) -> dict[str, list[float]]:
    return answer_json(body)


@app.post("/raw-inline")
async def raw_inline(request: Request) -> Response:
    return answer_bytes(await request.body())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
