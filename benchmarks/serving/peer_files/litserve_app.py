"""LitServe: decode, batch, predict, unbatch, encode; its own fast queue, one worker."""

import litserve as ls
from peer_session import DELAY_S, MAX_ROWS, PORT, Session


class Api(ls.LitAPI):
    def setup(self, device):  # noqa: ARG002 - LitServe calls it so
        self.onnx = Session()

    def decode_request(self, request):
        return self.onnx.row(request)

    def batch(self, inputs):
        return inputs

    def predict(self, rows):
        return self.onnx.run_rows(rows if isinstance(rows, list) else [rows])

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"y": output.ravel().tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_ROWS, batch_timeout=DELAY_S if MAX_ROWS > 1 else 0.0)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="warning")
