"""What guidance costs a training run when its backend is slow: a server in another process takes 2 s for every view.

    python benchmarks/guidance_overhead.py [--out outputs/bench/guidance-overhead] [--only method=alone,method=beside]

The runs are those of configs/guidance-overhead.yaml, where "beside" trains on while the server answers, "without pictures" is the
same without `save_regions`, and "blocking" waits for each reply. The server names nothing, so that all runs train the same
Gaussians and the ratios of their seconds, pair by pair and seed after seed, are the price of asking: rendering the views, drawing
and sending them, and the wait. Processor seconds are those of the training process, all threads together; they say more than the
clock's where other work shares the cores. Least disturbed is what guidance itself spent: the processor seconds of its steps on
the training thread and of its own threads, as a part of all the others of the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.executor import Function, Outcome, Progress
from vlmgs_ns.bench.local import LocalExecutor
from vlmgs_ns.bench.run_one import Order
from vlmgs_ns.bench.session import run_bench
from vlmgs_ns.bench.spec import read_spec

SPEC = Path(__file__).resolve().parents[1] / "configs" / "guidance-overhead.yaml"

SECONDS_PER_VIEW = 2.0


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


def counted(function: Function, item: Any, tell: Callable[[int], None]) -> Any:
    """Carry out a task in its process, and add the processor seconds that guidance spent to its result."""
    from vlmgs_ns.guidance.steering import Steering

    lock, spent = threading.Lock(), 0.0

    def timed(method: Any, clock: Callable[[], float]) -> Any:
        def call(*args: Any) -> Any:
            nonlocal spent
            began = clock()
            try:
                return method(*args)
            finally:
                with lock:
                    spent += clock() - began

        return call

    def started(steering: Any, *args: Any) -> None:
        start(steering, *args)
        # with the rasteriser's threads, and with guidance's own where training waits for them
        clocks = [(steering, "step", time.process_time), (steering, "densified", time.process_time)]
        if not steering.config.blocking:
            clocks += [(steering.worker, "_run", time.thread_time), (steering.worker.backend, "_answer", time.thread_time)]
        for owner, name, clock in clocks:
            setattr(owner, name, timed(getattr(owner, name), clock))

    start: Any = Steering.__init__
    Steering.__init__ = started  # type: ignore[method-assign]
    result = function(item, tell)
    return {**result, "guidance_cpu_seconds": spent} if isinstance(item, Order) else result


class CountingExecutor(LocalExecutor):
    """Processes of this machine, one at a time, in which guidance's own seconds are counted."""

    def execute(
        self, function: Function, items: Sequence[Any], progress: Progress, *, alone: bool = True
    ) -> Iterator[tuple[int, Outcome]]:
        return super().execute(partial(counted, function), items, progress, alone=alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, default=SPEC, help="a specification with these methods")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "bench" / "guidance-overhead")
    parser.add_argument("--only", nargs="*", default=[], help="as that of vlmgs bench")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    server = spawn.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{queue.get()}/v1"
    rows = []
    for seed in read_spec(args.spec).seeds:  # the methods of one seed after each other: a machine's pace changes with time
        rows += run_bench(args.spec, args.out, CountingExecutor(), only=[f"seed={seed}", *args.only], vlm_url=url)
    server.kill()
    print(table([row for row in rows if row["status"] == "done"]))


def table(rows: list[dict[str, Any]]) -> str:
    """A markdown row for each method: rounds, guidance's own share, and seconds against those of "alone"."""
    alone = {(row["scene"], row["start"], row["seed"]): row for row in rows if row["method"] == "alone"}
    lines = ["| run | rounds | guidance's own | processor seconds | against alone, each | median | seconds | each | median |"]
    lines.append("|---" * 9 + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        some = [row for row in rows if row["method"] == method]
        cells = [method, str(max(row.get("guidance", {}).get("rounds", 0) for row in some))]
        own = [row["guidance_cpu_seconds"] / (row["cpu_seconds"] - row["guidance_cpu_seconds"]) for row in some]
        cells.append(", ".join(f"{share:.2%}" for share in own))
        for key in ("cpu_seconds", "seconds"):
            ratios = [row[key] / alone[row["scene"], row["start"], row["seed"]][key] for row in some]
            cells.append(", ".join(f"{row[key]:.1f}" for row in some))
            cells.append(", ".join(f"{ratio:.3f}" for ratio in ratios))
            cells.append(f"x {statistics.median(ratios):.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
