"""What guidance costs a training run when its backend is slow: a server in another process takes 2 s for every view.

    python benchmarks/guidance_overhead.py --out overhead [--scenes toy] [--iterations 1500] [--size 300] [--seeds 3]

"in the way": the same with `blocking`. The server names nothing, so that all runs train the same Gaussians and the ratios of
their seconds, taken in one go and in turns, are the price of asking: rendering the views, sending them, and the wait.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from guidance import GUIDANCE, PHASES, guided
from training_runs import Run, arguments, execute, scenes_of

SECONDS_PER_VIEW = 2.0
METHODS = ["alone", "beside", "in the way"]


class SlowServer(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that thinks for a while and sees nothing."""

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "slow", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(SECONDS_PER_VIEW)
        self._send({"choices": [{"message": {"role": "assistant", "content": '{"regions": []}'}, "finish_reason": "stop"}]})

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def _send(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serve(port: Any) -> None:
    """Answer until killed; puts its port into a queue."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    port.put(server.server_address[1])
    server.serve_forever()


def main() -> None:
    args = arguments(__doc__, METHODS, ["dense"], "overhead")
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    server = spawn.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    asked = guided(*PHASES) | {f"{GUIDANCE}backend": "openai", f"{GUIDANCE}base_url": f"http://127.0.0.1:{queue.get()}/v1"}
    asked |= {f"{GUIDANCE}cache_replies": False, f"{GUIDANCE}save_regions": True}
    overrides = {"alone": {}, "beside": asked | {f"{GUIDANCE}blocking": False}, "in the way": asked}
    runs = [
        Run(scene, method, start, seed, args.iterations, args.size, overrides[method])
        for scene in scenes_of(args)
        if scene.name in (args.scenes or ["toy"])
        for seed in range(args.seeds)
        for start in args.starts
        for method in args.methods
    ]
    results = execute(runs, args.out / "runs", jobs=1)
    server.kill()
    print("| run | seconds | against alone | rounds |\n|---|---|---|---|")
    alone = statistics.median([r["seconds"] for r in results if r["method"] == "alone"])
    for method in args.methods:
        seconds = [r["seconds"] for r in results if r["method"] == method]
        rounds = max(r.get("guidance", {}).get("rounds", 0) for r in results if r["method"] == method)
        listed = ", ".join(f"{value:.1f}" for value in seconds)
        print(f"| {method} | {listed} | x {statistics.median(seconds) / alone:.3f} | {rounds} |")


if __name__ == "__main__":
    main()
