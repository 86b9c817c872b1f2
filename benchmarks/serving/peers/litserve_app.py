"""LitServe: ``python litserve_app.py --port 8000 --workers 2 [--batch 16]``.

After LitServe's documentation: one setup a worker, the picture decoded in ``decode_request``, several workers a device
(Features, Autoscaling), and with ``--batch`` its dynamic batching (Features, Batching), which stacks tensors by itself.
Its production settings are on: ``fast_queue``, log level warning, one API server for each worker (its default).
"""

import argparse

import litserve
import torch


class Classifier(litserve.LitAPI):
    def setup(self, device):
        torch.set_num_threads(1)  # a worker for each core
        import network

        self.network = network

    def decode_request(self, request):
        return self.network.to_tensor(self.network.Image.open(request["file"].file))

    def predict(self, x):
        return self.network.probabilities(x if x.ndim == 4 else x[None])

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return self.network.answer(output.reshape(-1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=0.005, help="seconds that a batch waits for more")
    args = parser.parse_args()
    more = {"max_batch_size": args.batch, "batch_timeout": args.timeout} if args.batch > 1 else {}
    server = litserve.LitServer(
        Classifier(**more), accelerator="cpu", devices=1, workers_per_device=args.workers, fast_queue=True
    )
    server.run(host="127.0.0.1", port=args.port, log_level="warning", generate_client_file=False)
