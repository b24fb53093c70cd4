"""What guidance costs a training run when its backend is slow: a server in another process takes 2 s for every view.

    python benchmarks/guidance_overhead.py --out overhead [--scenes toy] [--iterations 1500] [--size 300] [--seeds 3]

"without pictures": the same without `save_regions`; "in the way": with `blocking`. The server names nothing, so that all runs
train the same Gaussians and the ratios of their seconds, pair by pair and taken in turns, are the price of asking: rendering the
views, drawing and sending them, and the wait. Processor seconds are those of the training process, all threads together; they
tell more than the clock's where other work shares the cores. Least disturbed is what guidance itself spent: the processor seconds
of its steps on the training thread and of its own threads, as a part of all the others of the same run.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from guidance import GUIDANCE, PHASES, guided
from training_runs import Run, arguments, execute, scenes_of

SECONDS_PER_VIEW = 2.0
METHODS = ["alone", "beside", "without pictures", "in the way"]


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


def count_own_seconds(trainer: Any) -> Callable[[], dict[str, float]]:
    """Count the processor seconds that guidance spends: in its steps, and on its worker's threads."""
    steering = trainer.pipeline.model.steering
    lock, spent = threading.Lock(), 0.0

    def counted(function: Any, clock: Callable[[], float]) -> Any:
        def call(*args: Any) -> Any:
            nonlocal spent
            began = clock()
            try:
                return function(*args)
            finally:
                with lock:
                    spent += clock() - began

        return call

    # with the rasteriser's threads, and with guidance's own where training waits for them
    clocks = [(steering, "step", time.process_time), (steering, "densified", time.process_time)]
    if not steering.config.blocking:
        clocks += [(steering.worker, "_run", time.thread_time), (steering.worker.backend, "_answer", time.thread_time)]
    for owner, name, clock in clocks:
        setattr(owner, name, counted(getattr(owner, name), clock))
    return lambda: {"guidance_cpu_seconds": spent}


def main() -> None:
    args = arguments(__doc__, METHODS, ["dense"], "overhead")
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    server = spawn.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    asked = guided(*PHASES) | {f"{GUIDANCE}backend": "openai", f"{GUIDANCE}base_url": f"http://127.0.0.1:{queue.get()}/v1"}
    asked |= {f"{GUIDANCE}cache_replies": False, f"{GUIDANCE}save_regions": True}
    beside = asked | {f"{GUIDANCE}blocking": False}
    overrides = {
        "alone": {},
        "beside": beside,
        "without pictures": beside | {f"{GUIDANCE}save_regions": False},
        "in the way": asked,
    }
    runs = [
        Run(
            *(scene, method, start, seed, args.iterations, args.size, overrides[method]),
            prepare=None if method == "alone" else count_own_seconds,
        )
        for scene in scenes_of(args)
        if scene.name in (args.scenes or ["toy"])
        for seed in range(args.seeds)
        for start in args.starts
        for method in args.methods
    ]
    results = execute(runs, args.out / "runs", jobs=1)
    server.kill()
    alone = {(r["scene"], r["start"], r["seed"]): r for r in results if r["method"] == "alone"}
    print("| run | rounds | guidance's own | processor seconds | against alone, each | median | seconds | each | median |")
    print("|---" * 9 + "|")
    for method in args.methods:
        of_method = [r for r in results if r["method"] == method]
        cells = [method, str(max(r.get("guidance", {}).get("rounds", 0) for r in of_method))]
        own = [r["guidance_cpu_seconds"] / (r["cpu_seconds"] - r["guidance_cpu_seconds"]) for r in of_method if method != "alone"]
        cells.append(", ".join(f"{share:.2%}" for share in own))
        for key in ("cpu_seconds", "seconds"):
            ratios = [r[key] / alone[r["scene"], r["start"], r["seed"]][key] for r in of_method]
            cells.append(", ".join(f"{r[key]:.1f}" for r in of_method))
            cells.append(", ".join(f"{ratio:.3f}" for ratio in ratios))
            cells.append(f"x {statistics.median(ratios):.3f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
