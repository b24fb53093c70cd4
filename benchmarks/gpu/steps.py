"""The steps of `run.sh`, one process each: `python benchmarks/gpu/steps.py STEP OUT [DATA] [--stand-ins]`.

A step returns figures by name and ends with a file OUT/STEP.json. The first five need torch and gsplat alone, the others
nerfstudio too. With --stand-ins it runs small on a CUDA device that is not there (`tests.cuda`), which proves the script, no
figure.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

Figures = dict[str, Any]
QUESTIONS = 4


def sizes(args: argparse.Namespace) -> list[int]:
    """Counts of Gaussians at which times are taken."""
    return [200, 400] if args.stand_ins else [100_000, 1_000_000, 3_000_000]


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Return the least time of a few repeats, once the device has done what it was given."""
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def peak_memory() -> float:
    """Return the most gigabytes that torch has held on the device."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def room(args: argparse.Namespace) -> Path:
    """Return the data to train on: the capture that was given, else the embedded room."""
    if args.data is not None:
        return Path(args.data)
    folder = args.out / "room"
    if not folder.exists():
        from vlmgs_ns.toy.scene import write_scene

        small = {"views": 6, "width": 48, "height": 36, "held_out": 2, "points": 100, "supersample": 1}
        write_scene(folder, **(small if args.stand_ins else {"views": 60, "width": 960, "height": 720, "held_out": 8}))
    return folder


# torch and gsplat alone


def parity(args: argparse.Namespace) -> Figures:
    """Pictures and gradients of the CUDA path against the CPU's kernels; without numba against float64 in plain torch."""
    from tests.rasterize.scenes import random_scene
    from tests.rasterize.twin import twin_rasterization
    from vlmgs_ns.rasterize import rasterization

    cases: list[dict[str, Any]] = [
        {"sh_degree": 3}, {"sh_degree": 2, "rasterize_mode": "antialiased"}, {"sh_degree": 1, "render_mode": "RGB+ED"},
        {"sh_degree": 0, "compact_box": 1.0}, {"sh_degree": 2, "rasterize_mode": "antialiased", "compact_box": 1.0},
    ]  # fmt: skip
    worst = {"picture": 0.0, "gradient": 0.0, "pixels apart": 0.0}
    for case in cases:
        scene, found = random_scene(20, 150, 60, 44), []
        for device in ("cpu", "cuda"):
            if device == "cpu" and find_spec("numba") is None:
                leaves = scene.tensors(torch.float64)
                image = twin_rasterization(*leaves, 60, 44, **{k: v for k, v in case.items() if k != "compact_box"}).image
            else:
                leaves = [values.detach().to(device).requires_grad_() for values in scene.tensors()]
                image = rasterization(*leaves, 60, 44, **case)[0]
            image.square().mean().backward()
            found.append([image.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves[:5])])
        apart = [(a - b).abs() / a.abs().max() for a, b in zip(*found, strict=True)]
        # a pixel may fall on the other side of a threshold: the median is of all, the share says how many do
        worst["picture"] = max(worst["picture"], float(apart[0].quantile(0.99)))
        worst["gradient"] = max(worst["gradient"], *(float(values.quantile(0.99)) for values in apart[1:]))
        worst["pixels apart"] = max(worst["pixels apart"], float((apart[0] > 1e-3).float().mean()))
    if worst["picture"] > 1e-4 or worst["gradient"] > 1e-3 or worst["pixels apart"] > 2e-3:
        raise AssertionError(f"CUDA and CPU part: {worst}")
    return {**worst, "against": "numba kernels" if find_spec("numba") else "float64"}


def lift(args: argparse.Namespace) -> Figures:
    """Lifting is the adjoint of rendering on the device, and counts are as many pixels as contribute."""
    from tests.rasterize.scenes import random_scene
    from vlmgs_ns.rasterize import rasterization
    from vlmgs_ns.rasterize.lift import contribution_counts
    from vlmgs_ns.rasterize.lift import lift as lifted

    scene = random_scene(1, 400, 60, 44, cameras=2, colors=3, size=0.3)
    tensors = [values.detach().to("cuda") for values in scene.tensors()]
    image, _, info = rasterization(*tensors, 60, 44)
    maps = torch.rand(image.shape, generator=torch.Generator().manual_seed(2)).to("cuda")
    left = (image.double() * maps).sum()
    error = abs(float(left - (tensors[4].double() * lifted(info, maps).double().sum(0)).sum()) / float(left))
    counts = contribution_counts(info, torch.ones(2, 44, 60, dtype=torch.bool, device="cuda"))
    mass = lifted(info, torch.ones(2, 44, 60, 1, device="cuda"))[..., 0]
    if error > 1e-4 or not bool(((counts > 0) == (mass > 0)).all()):
        raise AssertionError(f"lift is not the adjoint ({error}), or counts are of other Gaussians")
    return {"relative error": error, "contributions": int(counts.sum())}


def strategy(args: argparse.Namespace) -> Figures:
    """FastGS' strategy without nerfstudio: a picture of many Gaussians is learned from few."""
    from tests.rasterize.scenes import random_scene
    from vlmgs_ns.densify.scores import ScoredView, add_view, take_scores
    from vlmgs_ns.densify.ssim import SSIM
    from vlmgs_ns.densify.strategy import FastGSStrategy
    from vlmgs_ns.rasterize import rasterization

    width, height, steps = (48, 36, 12) if args.stand_ins else (640, 480, 600)
    scene = random_scene(3, 200 if args.stand_ins else 5000, width, height, colors=3)
    means, quats, scales, opacities, colors, view, K = (values.detach().to("cuda") for values in scene.tensors())
    with torch.no_grad():
        target = rasterization(means, quats, scales, opacities, colors, view, K, width, height)[0][0]
    few = slice(None, None, 4)
    raw = {
        "means": means[few], "quats": quats[few], "scales": scales[few].log(), "colors": torch.full_like(colors[few], 0.5),
        "opacities": torch.logit(opacities[few, None].clamp(0.01, 0.9)),
    }  # fmt: skip
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(values.clone()) for name, values in raw.items()})
    optimizers = {name: torch.optim.Adam([params[name]], lr=0.01) for name in params}
    rule = FastGSStrategy(refine_start_iter=2, refine_every=5, refine_stop_iter=steps - 5, importance_threshold=0.0)
    state = rule.initialize_state(scene_scale=2.0)

    similarity, target = SSIM(), target.clamp(0, 1)
    losses, begin = [], time.perf_counter()
    for step in range(steps):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid()[:, 0], params["colors"],
            view, K, width, height, absgrad=True,
        )  # fmt: skip
        rule.step_pre_backward(params, optimizers, state, step, info)
        loss = (image[0] - target).abs().mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        add_view(state, ScoredView(image[0].detach().clamp(0, 1), target, info), similarity)
        rule.step_post_backward(params, optimizers, state, step, info, scorer=lambda: take_scores(state))
        losses.append(float(loss))
    if not losses[-1] < losses[0] or not len(params["means"]) != len(raw["means"]):
        raise AssertionError(f"loss {losses[0]:.4f} → {losses[-1]:.4f} with {len(params['means'])} Gaussians")
    took = (time.perf_counter() - begin) / steps
    return {"ms per step": took * 1e3, "loss": losses[-1] / losses[0], "Gaussians": len(params["means"])}


def render(args: argparse.Namespace) -> Figures:
    """Time and memory of a render with its gradient, by the count of Gaussians."""
    from tests.rasterize.scenes import random_scene
    from vlmgs_ns.rasterize import rasterization

    width, height = (48, 36) if args.stand_ins else (1920, 1080)
    found: Figures = {}
    for count in sizes(args):
        scene = random_scene(4, count, width, height, size=0.02)
        leaves = [values.detach().to("cuda").requires_grad_() for values in scene.tensors()]

        def step(leaves: list[Any] = leaves) -> None:
            rasterization(*leaves, width, height, sh_degree=3, absgrad=True)[0].mean().backward()

        torch.cuda.reset_peak_memory_stats()
        found[f"{count:,}: ms"] = seconds(step) * 1e3
        found[f"{count:,}: GB"] = peak_memory()
    return found


def words(args: argparse.Namespace) -> Figures:
    """Time in which a phrase is scored against every Gaussian's lifted feature, by their count."""
    from vlmgs_ns.semantics.relevancy import relevancy_from_scores

    found: Figures = {}
    texts = torch.nn.functional.normalize(torch.randn(6, 512), dim=-1).to("cuda")
    for count in sizes(args):
        features = torch.nn.functional.normalize(torch.randn(count, 512), dim=-1).half().to("cuda")
        found[f"{count:,}: ms"] = seconds(lambda features=features: relevancy_from_scores(features.float() @ texts.T, 2)) * 1e3
    return found


# nerfstudio too


def _train(args: argparse.Namespace, method: str, iterations: int) -> Figures:
    """Seconds, memory and held-out PSNR of a training, its semantic stage included."""
    import open3d  # noqa: F401  (the data parser's; before a device that is not there)

    from vlmgs_ns import config as methods

    data = room(args)
    config: Any = copy.deepcopy(methods.vlm_fastgs.config if method == "vlm-fastgs" else methods.fastgs.config)
    if method == "splatfacto":  # nerfstudio's model with our data and trainer: what differs is the model
        config.pipeline.model.densification = "default"
    iterations = 8 if args.stand_ins else iterations
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.experiment_name, config.timestamp = args.out / "runs", f"{method}-{iterations}", "now"
    config.vis, config.max_num_iterations, config.machine.device_type = "tensorboard", iterations, "cuda"
    config.viewer.quit_on_train_completion = True
    if args.stand_ins:
        semantics, lite = config.pipeline.model.semantics, cast(Any, methods.vlm_fastgs_lite.config.pipeline.model)
        semantics.warm_steps = semantics.refine_steps = 2
        semantics.sizes = copy.deepcopy(lite.semantics.sizes)
    config.pipeline.model.guidance.backend = "residual"
    torch.manual_seed(0)
    config.save_config()
    begin = time.perf_counter()
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    took = time.perf_counter() - begin
    metrics = trainer.pipeline.get_average_eval_image_metrics()
    return {
        "minutes": took / 60, "GB": peak_memory(), "PSNR": metrics["psnr"], "Gaussians": len(trainer.pipeline.model.means),
        "semantic stage, s": _semantic_seconds(trainer),
    }  # fmt: skip


def _semantic_seconds(trainer: Any) -> float | None:
    file = trainer.base_dir / "semantics.json"
    return sum(json.loads(file.read_text())["seconds"].values()) if file.is_file() else None


def encoders(args: argparse.Namespace) -> Figures:
    """Time of a batch of pictures through encoders of the real size, with random weights: their speed needs no training."""
    import open_clip
    from transformers import ViTConfig, ViTModel

    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    dino = ViTModel(ViTConfig(image_size=224, patch_size=8, **(small if args.stand_ins else DINO))).to("cuda").eval()
    side, batch, dtype = (32, 1, torch.float32) if args.stand_ins else (480, 16, torch.float16)
    found: Figures = {}
    with torch.no_grad():
        pictures = torch.rand(1, 3, side, side).to("cuda")
        found["DINO ViT-S/8, ms"] = (
            seconds(lambda: dino(pictures, interpolate_pos_encoding=True), 1 if args.stand_ins else 5) * 1e3
        )
        if not args.stand_ins:
            clip = open_clip.create_model("ViT-B-16", pretrained=None).to("cuda", dtype).eval()
            tiles = torch.rand(batch, 3, 224, 224, dtype=dtype).to("cuda")
            found[f"CLIP ViT-B/16, {batch} tiles, ms"] = seconds(lambda: clip.encode_image(tiles)) * 1e3
    return {**found, "GB": peak_memory()}


DINO = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
TEXT = {
    "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 6144, "vocab_size": 151_936, "tie_word_embeddings": True,
}  # fmt: skip
"""Qwen3-VL-2B's language model."""
VISION = {
    "depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": 2048, "patch_size": 16,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip


def qwen(args: argparse.Namespace) -> Figures:
    """Time and memory of a vision-language model of Qwen3-VL-2B's size, with random weights: 300 tokens of text, 64 of reply."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tiny_text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    tiny_vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32}
    text = {**TEXT, **tiny_text, "intermediate_size": 64, "vocab_size": 1000} if args.stand_ins else TEXT
    vision = {**VISION, **tiny_vision, "deepstack_visual_indexes": [0]} if args.stand_ins else VISION
    section = [4, 2, 2] if args.stand_ins else [24, 20, 20]
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": section, "mrope_interleaved": True}
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    config.image_token_id, config.vision_start_token_id, config.vision_end_token_id = 10, 11, 12
    torch.cuda.reset_peak_memory_stats()
    model = Qwen3VLForConditionalGeneration(config).to("cuda", torch.float32 if args.stand_ins else torch.bfloat16).eval()
    prompt = torch.randint(20, 900, (1, 40 if args.stand_ins else 300)).to("cuda")
    reply = 4 if args.stand_ins else 64

    def ask() -> None:
        with torch.no_grad():
            model.generate(input_ids=prompt, max_new_tokens=reply, min_new_tokens=reply, do_sample=False, pad_token_id=0)

    return {"s per reply": seconds(ask, 1 if args.stand_ins else QUESTIONS), "GB": peak_memory()}


STEPS: dict[str, tuple[Callable[[argparse.Namespace], Figures], int, bool]] = {
    "parity": (parity, 300, False),
    "lift": (lift, 120, False),
    "strategy": (strategy, 300, False),
    "render": (render, 300, False),
    "words": (words, 120, False),
    "fastgs-2000": (lambda args: _train(args, "fastgs", 2_000), 900, True),
    "vlm-fastgs-2000": (lambda args: _train(args, "vlm-fastgs", 2_000), 1200, True),
    "splatfacto-2000": (lambda args: _train(args, "splatfacto", 2_000), 900, True),
    "qwen": (qwen, 300, True),
    "encoders": (encoders, 300, True),
    "vlm-fastgs-20000": (lambda args: _train(args, "vlm-fastgs", 20_000), 5400, True),
    "fastgs-20000": (lambda args: _train(args, "fastgs", 20_000), 3600, True),
    "splatfacto-20000": (lambda args: _train(args, "splatfacto", 20_000), 3600, True),
}
"""By importance: what to do, its limit in seconds, and whether it needs nerfstudio."""


def run(name: str, args: argparse.Namespace) -> None:
    work, _, with_nerfstudio = STEPS[name]
    if with_nerfstudio and find_spec("nerfstudio") is None:
        write(args.out, name, {"left out": "nerfstudio is not installed"})
        return
    with ExitStack() as stack:
        if args.stand_ins:
            from unittest.mock import patch

            from tests.cuda.kernels import kernels_in_torch
            from tests.cuda.pretend import pretend_cuda

            if with_nerfstudio:
                import open3d  # noqa: F401

                from vlmgs_ns.method import machine

                stack.enter_context(patch.object(machine, "gsplat_kernels", lambda: ("kernels in torch", "")))
            stack.enter_context(kernels_in_torch())
            stack.enter_context(pretend_cuda())
        elif not torch.cuda.is_available():
            sys.exit("torch sees no CUDA device: add --stand-ins, which proves the script alone")
        begin = time.perf_counter()
        figures = work(args)
        seen = "not seen on CUDA" if args.stand_ins else torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    write(args.out, name, {"seen on": seen, "figures": figures, "seconds": time.perf_counter() - begin, **versions})


def write(out: Path, name: str, result: dict[str, Any]) -> None:
    """Write a step's result, to a name of its own first."""
    partial = out / f".{name}.json"
    partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / f"{name}.json")


def table(out: Path) -> None:
    print("| step | result | seconds | seen on |\n|---|---|---|---|")
    for name in STEPS:
        file = out / f"{name}.json"
        result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"left out": "not run"}
        if "figures" in result:
            shown = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in result["figures"].items()
            )
        else:
            shown = result.get("failed") or result["left out"]
        print(f"| {name} | {shown} | {result.get('seconds', 0):.0f} | {result.get('seen on', 'not seen on CUDA')} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=[*STEPS, "names", "table", "failed"])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--stand-ins", action="store_true")
    parser.add_argument("--of")
    parser.add_argument("--status")
    args = parser.parse_args()
    if args.step == "names":
        print("\n".join(f"{name} {limit}" for name, (_, limit, _) in STEPS.items()))
    elif args.step == "table":
        table(args.out)
    elif args.step == "failed":
        last = (args.out / f"{args.of}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        why = (
            "took longer than its limit"
            if args.status in ("124", "137")
            else f"{last[0] if last else ''}"[:200].replace("|", "/")
        )
        write(args.out, args.of, {"failed": f"FAILED: {why}"})
    else:
        run(args.step, args)


if __name__ == "__main__":
    main()
