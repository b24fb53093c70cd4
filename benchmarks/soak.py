"""What takes too long for a test: kills at random moments, memory over a long run, scenes of millions of Gaussians.

    python benchmarks/soak.py kill DATA [--kills 50] [--iterations 120]    SIGKILL; resumed: bit for bit the run without a kill
    python benchmarks/soak.py again RUN [--kills 10]                       the same for scene, features, export and share
    python benchmarks/soak.py together [--runs 2]                          trainings with words at once, on one scene and cache
    python benchmarks/soak.py clients DATA [--clients 20]                  viewers that move fast while it trains
    python benchmarks/soak.py memory DATA [--iterations 20000]             resident memory, which must not grow after a warm-up
    python benchmarks/soak.py large [--count 2000000]                      .ply written, read, rendered: seconds and peak memory
    python benchmarks/soak.py lifting [--count 1000000] [--gigabytes 2]    features lifted to a random scene: memory
    python benchmarks/soak.py grown RUN [--count 2000000]                  a run of so many searched, exported, shared: the same
    python benchmarks/soak.py rasterise [--scenes 10000]                   scenes of any size against the float64 twin

Each prints a table in Markdown, and exits with status 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

SMALL = ("--views", "16", "--held-out", "4", "--width", "160", "--height", "120")
"""Options of `vlmgs scene` for a small room."""
ROOT = Path(__file__).resolve().parents[1]


def train(data: Path, out: Path, iterations: int, *more: object) -> subprocess.Popen[bytes]:
    """Start a small run whose guidance is the same each time."""
    command = [
        *("ns-train", "vlm-fastgs-lite", "--data", data, "--output-dir", out, "--experiment-name", "soak", "--timestamp", "now"),
        *("--max-num-iterations", iterations, "--vis", "tensorboard", "--viewer.quit-on-train-completion", "True"),
        *("--pipeline.datamanager.max-image-size", 100, "--pipeline.model.guidance.blocking", "True"),
        *("--pipeline.model.guidance.backend", "residual", "--pipeline.model.semantics.enabled", "False", *more),
    ]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def vlmgs(*command: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["vlmgs", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checkpoints(out: Path) -> Path:
    return out / "soak" / "vlm-fastgs-lite" / "now" / "nerfstudio_models"


def equal(a: Any, b: Any) -> bool:
    """Whether two states of checkpoints are the same to the bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def kill(args: argparse.Namespace) -> bool:
    from vlmgs_ns.method import checkpoint

    save = ("--steps-per-save", max(1, args.iterations // 6))
    chosen, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        whole = Path(folder) / "whole"
        assert train(args.data, whole, args.iterations, *save).wait() == 0, "the run without a kill failed"
        length = time.monotonic() - begin
        expected = checkpoint.load(checkpoint.newest(checkpoints(whole)))["pipeline"]
        for k in range(args.kills):
            out, moment = Path(folder) / str(k), chosen.uniform(0, length)
            process = train(args.data, out, args.iterations, *save)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            steps = checkpoint.steps_in(checkpoints(out))
            for step in steps:
                checkpoint.load(checkpoint.path_of(checkpoints(out), step))  # raises where one is not whole
            done = steps[-1] + 1 if steps else 0
            resume = ("--load-dir", checkpoints(out)) if steps else ()
            if done < args.iterations:
                assert train(args.data, Path(folder) / f"{k}b", args.iterations - done, *save, *resume).wait() == 0
                out = Path(folder) / f"{k}b"
            same = equal(expected, checkpoint.load(checkpoint.newest(checkpoints(out)))["pipeline"])
            rows.append((k, f"{moment:.1f} s of {length:.1f}", done, "equal" if same else "DIFFERENT"))
    return table(("kill", "at", "iterations saved", "in the end"), rows)


def again(args: argparse.Namespace) -> bool:
    def digests(folder: Path) -> dict[Path, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    chosen, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder) / "room"
        assert vlmgs("scene", room, *SMALL).wait() == 0, "no scene could be made"
        commands: dict[str, Callable[[Path], tuple[object, ...]]] = {
            "scene": lambda out: ("scene", out / "room", *SMALL),
            "features": lambda out: ("features", shutil.copytree(room, out / "room", dirs_exist_ok=True)),
            "export": lambda out: ("export", args.data, "--out", out),
            "share": lambda out: ("share", args.data, "--out", out / "page.html"),
        }
        for name, command in commands.items():
            begin = time.monotonic()
            whole = Path(folder) / name
            whole.mkdir()
            assert vlmgs(*command(whole)).wait() == 0, f"vlmgs {name} without a kill failed"
            length, expected, ends = time.monotonic() - begin, digests(whole), []
            for k in range(args.kills):
                out = Path(folder) / f"{name}{k}"
                out.mkdir()
                process = vlmgs(*command(out))
                try:
                    process.wait(chosen.uniform(0, length))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                ends.append(vlmgs(*command(out)).wait() == 0 and digests(out) == expected)
            rows.append(
                (f"vlmgs {name}", f"{length:.0f} s", args.kills, "equal" if all(ends) else f"{ends.count(False)} DIFFERENT")
            )
    return table(("command", "takes", "kills", "files of the same command again"), rows)


def together(args: argparse.Namespace) -> bool:
    from vlmgs_ns.method import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        room, outs = Path(folder) / "room", [Path(folder) / str(k) for k in range(args.runs)]
        assert vlmgs("scene", room, *SMALL).wait() == 0, "no scene could be made"
        runs = [train(room, out, args.iterations, "--pipeline.model.semantics.enabled", "True") for out in outs]
        assert not any([run.wait() for run in runs]), "a run failed"
        first, *others = (checkpoint.load(checkpoint.newest(checkpoints(out)))["pipeline"] for out in outs)
        left = [path.name for path in room.rglob("*.partial*")]
    rows = [(k, "equal" if equal(first, other) else "DIFFERENT", left or "nothing") for k, other in enumerate(others, 1)]
    return table(("run", "in the end, to the first", "left half-written"), rows) and not left


def clients(args: argparse.Namespace) -> bool:
    import msgspec
    import psutil
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    frames = [0] * args.clients

    def watch(client: int) -> None:
        chosen = random.Random(client)
        with suppress(ConnectionClosed), connect(f"ws://127.0.0.1:{port}", max_size=None) as server:
            while True:
                eye = [chosen.gauss(0, 1) for _ in range(3)]
                view = {
                    "wxyz": (1, 0, 0, 0),
                    "position": eye,
                    "look_at": (0, 0, 0),
                    "up_direction": (0, 0, 1),
                    "fov": 0.8,
                    "aspect": 1.3,
                }
                server.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **view}))
                with suppress(TimeoutError):
                    while True:
                        frames[client] += b"BackgroundImageMessage" in server.recv(timeout=0.05)

    with tempfile.TemporaryDirectory() as folder:
        viewer = ("--vis", "viewer", "--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", port)
        process, peak, begun = train(args.data, Path(folder), args.iterations, *viewer), 0.0, False
        while process.poll() is None:
            with suppress(OSError):
                if not begun:
                    socket.create_connection(("127.0.0.1", port)).close()
                    begun = True
                    for client in range(args.clients):
                        threading.Thread(target=watch, args=(client,), daemon=True).start()
            with suppress(psutil.Error):
                peak = max(peak, psutil.Process(process.pid).memory_info().rss / 1e9)
            time.sleep(0.5)
        trained = process.returncode == 0 and min(frames) > 0
    rows = [(args.clients, f"{min(frames)} to {max(frames)}", f"{peak:.1f} GB", "trained" if trained else "FAILED")]
    return table(("clients", "frames each", "peak memory", "the run"), rows)


def memory(args: argparse.Namespace) -> bool:
    import psutil

    samples: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        process = train(args.data, Path(folder), args.iterations)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append(watched.memory_info().rss / 1e6)
            time.sleep(args.every)
    # The first two fifths: imports, compiled kernels, Gaussians that are still being born.
    later = samples[2 * len(samples) // 5 : -1]
    rows = [(f"{k * 20} %", f"{samples[min(len(samples) - 1, k * len(samples) // 5)]:,.0f} MB") for k in range(6)]
    growth = later[-1] / later[0] - 1
    rows.append(("growth after 40 %", f"{100 * growth:+.1f} %" + ("" if abs(growth) <= 0.05 else " TOO MUCH")))
    return table(("of the run", "resident memory"), rows) and process.returncode == 0


def large(args: argparse.Namespace) -> bool:
    import torch

    from vlmgs_ns.rasterize import rasterization
    from vlmgs_ns.splats.ply import Gaussians, read_ply, write_ply

    g, n, rows = torch.Generator().manual_seed(0), args.count, []
    scene = Gaussians(
        means=torch.rand(n, 3, generator=g) * 4 - torch.tensor([2.0, 2.0, -1.0]),
        scales=torch.full((n, 3), -5.0),
        quats=torch.randn(n, 4, generator=g),
        features_dc=torch.rand(n, 3, generator=g),
        features_rest=torch.zeros(n, 15, 3),
        opacities=torch.zeros(n, 1),
    )

    def measure(name: str, work: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append((name, f"{time.monotonic() - begin:.1f} s", f"{peak:.2f} GB so far"))
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.ply"
        measure("written", lambda: write_ply(path, scene))
        found = measure("read", lambda: read_ply(path))
    view, focal = torch.eye(4)[None], torch.tensor([[[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]])
    activated = (found.means, found.quats, found.scales.exp(), found.opacities[:, 0].sigmoid(), found.features_dc)
    with torch.no_grad():
        rasterization(*(values[:10] for values in activated), view, focal, 640, 480)  # compiled before it is timed
        image, *_ = measure("rendered at 640 x 480", lambda: rasterization(*activated, view, focal, 640, 480))
    return table((f"{n:,} Gaussians", "took", "peak memory"), rows) and bool(image.isfinite().all())


def lifting(args: argparse.Namespace) -> bool:
    import torch
    import torch.nn.functional as F
    from semantic_oracle import Eyes, Oracle

    from vlmgs_ns.semantics.cache import FeatureCache
    from vlmgs_ns.semantics.config import LITE_SEMANTICS
    from vlmgs_ns.semantics.stage import Encoders, Stage
    from vlmgs_ns.splats.camera import Pinhole
    from vlmgs_ns.splats.gaussians import Splats

    g, n = torch.Generator().manual_seed(0), args.count
    means = F.normalize(torch.randn(n, 3, generator=g), dim=1) + 0.01 * torch.randn(n, 3, generator=g)
    size = (4 / n) ** 0.5 * torch.rand(n, 3, generator=g)
    splats = Splats(means, torch.randn(n, 4, generator=g), size, torch.rand(n, generator=g))
    photos = (255 * torch.rand(args.views, 480, 640, 3, generator=g)).byte()

    class Views:
        def __len__(self) -> int:
            return len(photos)

        def photo(self, index: int) -> torch.Tensor:
            return photos[index]

        def camera(self, index: int) -> Pinhole:
            turn = torch.tensor(2 * math.pi * index / len(photos))
            pose = torch.eye(4)
            pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2], pose[2, 3] = turn.cos(), turn.sin(), -turn.sin(), turn.cos(), 3.0
            return Pinhole(pose, torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), 640, 480)

        def mask(self, index: int) -> None:
            return None

    clip, dino = (Oracle(name, dims, ["thing"], []) for name, dims in (("random CLIP", args.dims), ("random DINO", 384)))
    looking = Eyes(
        Encoders(clip, dino, "random", "random"),  # type: ignore[arg-type]
        lambda index: torch.randn(20, 27, args.dims, generator=torch.Generator().manual_seed(index)),
        lambda index: torch.randn(60, 80, 384, generator=torch.Generator().manual_seed(index)),
    )
    status, rows = Path("/proc/self/status"), []
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        looking.look(photos, cache, wrong=False)
        for mode in args.modes.split(","):
            config = replace(LITE_SEMANTICS, mode=mode, lift_memory=args.gigabytes, warm_steps=3)
            stage = Stage(config, looking.encoders, splats, Views(), cache, torch.zeros(3), 1.0)
            scene = stage.begin()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
            before = int(status.read_text().split("VmRSS:")[1].split()[0]) / 1e6
            begin, processor = time.monotonic(), time.process_time()
            assert stage.run(scene)
            took = f"{time.monotonic() - begin:.0f} s, {time.process_time() - processor:.0f} of the processor"
            held = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e6 - before
            rows.append(
                (mode, scene.size(), took, f"{held:.2f} GB" + (" TOO MUCH" if held > args.gigabytes else ""), stage.seconds)
            )
    return table((f"{n:,} Gaussians, {args.gigabytes:g} GB", "kept", "took", "held at most", "parts, s"), rows)


def grown(args: argparse.Namespace) -> bool:
    import torch
    from torch.utils._pytree import tree_map_only

    from vlmgs_ns.method import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(args.data, Path(folder) / "run", ignore=shutil.ignore_patterns("*.ckpt", "exports", "query")))
        source = checkpoint.newest(args.data / "nerfstudio_models")
        state = checkpoint.load(source)
        before, n = len(state["pipeline"]["_model.gauss_params.means"]), args.count
        times = -(-n // before)

        def repeated(value: torch.Tensor) -> torch.Tensor:
            of_gaussians = value.dim() > 0 and len(value) == before
            return value.repeat(times, *[1] * (value.dim() - 1))[:n] if of_gaussians else value

        state = tree_map_only(torch.Tensor, repeated, state)
        means, scales = (state["pipeline"][f"_model.gauss_params.{name}"] for name in ("means", "scales"))
        means += scales.exp() * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
        scales -= math.log(times) / 2
        checkpoint.save(state, run / "nerfstudio_models" / source.name)
        rows = []
        for command in (
            ("query", run, args.phrase),
            ("export", run),
            ("export", run, "--select", args.phrase),
            ("share", run, "--prompt", args.phrase, "--max-mb", "50"),
        ):
            begin = time.monotonic()
            process = subprocess.Popen(["vlmgs", *map(str, command)], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            shown = " ".join(str(part) for part in command if part is not run)
            end = "" if status == 0 else f" FAILED {os.waitstatus_to_exitcode(status)}"
            took = f"{time.monotonic() - begin:.0f} s, {used.ru_utime + used.ru_stime:.0f} of the processor{end}"
            rows.append((f"vlmgs {shown}", took, f"{used.ru_maxrss / 1e6:.1f} GB"))
    return table((f"{n:,} Gaussians", "took", "peak memory"), rows)


def rasterise(args: argparse.Namespace) -> bool:
    sys.path.insert(0, str(ROOT))
    from tests.rasterize.extremes import difference

    worst = max((difference(seed), seed) for seed in range(args.scenes))
    table(("scenes", "largest difference from the twin", "seed"), [(args.scenes, f"{worst[0]:.1e}", worst[1])])
    return worst[0] < 1e-5


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bool:
    """Print rows as Markdown; return whether none of them has a word in capitals, which says that something did not hold."""
    for cells in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return not any(word in str(cell) for row in rows for cell in row for word in ("DIFFERENT", "FAILED", "TOO MUCH"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    for work, data, options in (
        (kill, True, {"kills": 50, "iterations": 120, "seed": 0}),
        (again, True, {"kills": 10, "seed": 0}),
        (together, False, {"runs": 2, "iterations": 120}),
        (clients, True, {"clients": 20, "iterations": 300}),
        (memory, True, {"iterations": 20_000, "every": 5}),
        (large, False, {"count": 2_000_000}),
        (lifting, False, {"count": 1_000_000, "dims": 512, "views": 2, "modes": "lift,warm", "gigabytes": 2.0}),
        (grown, True, {"count": 2_000_000, "phrase": "red marble ball"}),
        (rasterise, False, {"scenes": 10_000}),
    ):
        kind = kinds.add_parser(work.__name__)
        kind.set_defaults(work=work)
        if data:
            kind.add_argument("data", type=Path)
        for name, default in options.items():
            kind.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    sys.exit(0 if args.work(args) else 1)


if __name__ == "__main__":
    main()
