"""Quality and speed of text queries: modes and ablations of the semantic stage on held-out views of embedded scenes.

    python benchmarks/semantics.py --out semantics [--seeds 3] [--modes lift warm fmgs] [--encoders tiny oracle]
        [--variants "warm, one tile size" ...] [--iterations 500] [--size 200] [--report] [--scaling]

For each seed one geometry (lite method, no guidance), shared by all rows and kept on disk, then the stage with the lite settings:
`semantic_oracle.py` says what the encoders are. Protocols A, B, C and C-find (docs/methods.md) on the held-out views;
the threshold is 0.5, a tie with the hardest negative, for all scenes, encoders and modes. A run is a process of its own and one
JSON file; those that are there are not repeated. OUT then holds `results.json`, `results.md` and `quality.png`.

"no hash grid" is one grid of one level with 2 cells a side: what the heads get is all but linear in the contracted position.
Wall seconds mean little where other work shares the cores; processor seconds, all threads together, stand beside them.
`--scaling`: the Gaussians of the first seed's `warm` copied, jittered and made fainter to 30 k … 1 M; 10 k are a part of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from semantic_geometry import Geometry, train_geometry

from vlmgs_ns.words.query import THRESHOLD

LEAST_ALPHA = 0.5
VARIANTS: dict[str, dict[str, Any]] = {
    "lift": {"mode": "lift"},
    "warm": {"mode": "warm"},
    "fmgs": {"mode": "fmgs"},
    "lift, seven tile sizes": {"mode": "lift"},
    "warm, seven tile sizes": {"mode": "warm"},
    "warm, one tile size": {"mode": "warm"},
    "warm, refined": {"mode": "warm", "refine_steps": 40},
    "warm, no alignment": {"mode": "warm", "refine_steps": 40, "alignment": 0.0},
    "warm, no hash grid": {"mode": "warm", "sizes": {"levels": 1, "coarse": (2, 2), "fine": (2, 2)}},
    "warm, wrong photos": {"mode": "warm"},
    "untrained field": {"mode": "fmgs", "steps": 0, "alignment_steps": 0},
    "warm, full size": {"mode": "warm", "sizes": {}, "full": True},
}
TINY_ALONE = {"lift, seven tile sizes", "warm, seven tile sizes"}
"""Variants that mean nothing to an oracle, whose maps have a window of their own."""
COUNTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("semantics"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--modes", nargs="*", default=["lift", "warm", "fmgs"])
    parser.add_argument("--variants", nargs="*", default=[name for name in VARIANTS if name not in ("lift", "warm", "fmgs")])
    parser.add_argument("--encoders", nargs="*", default=["tiny", "oracle"], help="tiny, oracle, sharp oracle")
    parser.add_argument("--iterations", type=int, default=500, help="of the geometry")
    parser.add_argument("--size", type=int, default=200, help="longer side of the photos in pixels")
    parser.add_argument("--scaling", action="store_true", help="only the table of sizes")
    parser.add_argument("--report", action="store_true", help="run nothing, make the tables of what is there")
    return parser.parse_args()


def settings(variant: str) -> Any:
    """Return the stage's settings: those of vlm-fastgs-lite, changed as the variant says."""
    from vlmgs_ns.semantics.config import LITE_SEMANTICS, SemanticsConfig

    given = dict(VARIANTS[variant])
    config = SemanticsConfig() if given.pop("full", False) else LITE_SEMANTICS
    weights = replace(config.weights, alignment=given.pop("alignment", config.weights.alignment))
    return replace(config, weights=weights, sizes=replace(config.sizes, **given.pop("sizes", {})), **given)


def measure(args: argparse.Namespace, seed: int, encoder: str, variant: str, geometry_file: Path, out: Path) -> None:
    """One run of the stage, its quality and its cost."""
    import torch
    from semantic_oracle import eyes

    from vlmgs_ns.evaluation.toy_labels import read_toy
    from vlmgs_ns.semantics.cache import FeatureCache
    from vlmgs_ns.semantics.stage import Stage

    geometry = Geometry(geometry_file)
    config = settings(variant)
    scene = args.out / f"toy-{seed}"
    labels = read_toy(scene)
    wrong = variant.endswith("wrong photos")
    tiles = {"one tile size": "one", "seven tile sizes": "seven"}.get(variant.partition(", ")[2], "")
    looking = eyes(encoder, config, scene, geometry.about["names"]["train"], geometry.photos, labels, tiles, wrong)
    kind = "-".join([geometry_file.stem, encoder.replace(" ", "-"), *[tiles] * bool(tiles), *["wrong"] * wrong])
    cache = FeatureCache(args.out / "maps" / kind)
    result: dict[str, Any] = {"seed": seed, "encoder": encoder, "variant": variant, "gaussians": len(geometry.splats)}
    made = cache.folder.with_suffix(".json")
    if not made.exists():
        with clock() as spent:
            looking.look(geometry.photos, cache, wrong)
        made.write_text(json.dumps(spent))
    result["maps"] = json.loads(made.read_text()) | {"mb": cache.size() / 1e6}
    stage = Stage(config, looking.encoders, geometry.splats, geometry, cache, geometry.centre, geometry.radius)
    found = stage.begin()
    with clock() as result["stage"]:
        assert stage.run(found)
    result["parts"] = stage.seconds
    result["scene_mb"] = sum(values.nbytes for values in found.state_dict().values() if hasattr(values, "nbytes")) / 1e6
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found.embed([*labels.phrases, *labels.background])
    with torch.no_grad():
        result["scores"] = quality(geometry, found, labels, list(labels.phrases))
        if variant == "warm":
            names = list(labels.phrases)
            result["shuffled"] = quality(geometry, found, labels, [*names[1:], names[0]])
        result["ms"] = speed(geometry, found, labels.phrases[0])
    if variant == "warm":
        partial = out.with_suffix(".pt.tmp")
        torch.save(found.state_dict(), partial)
        partial.rename(out.with_suffix(".pt"))
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(result))
    partial.rename(out)


def quality(geometry: Any, found: Any, labels: Any, phrases: list[str], protocols: str = "ABC") -> dict[str, float]:
    """Means of the protocols' scores over held-out views. The k-th of `phrases` is queried for the k-th phrase of the labels."""
    from vlmgs_ns.evaluation import protocols as measures
    from vlmgs_ns.semantics.blend import blend
    from vlmgs_ns.words.query import Query
    from vlmgs_ns.words.question import MOST_VIEWS, Question

    pictures: dict[str, Any] = {}
    order = [*labels.phrases, *labels.background]
    instead = dict(zip(labels.phrases, phrases, strict=True))

    def maps(view: Any, phrases: Sequence[str]) -> Any:  # [P, H, W]
        if view.stem not in pictures:
            drawn, _ = found.pictures(geometry.splats, geometry.held_out[view.stem], order)
            pictures[view.stem] = drawn.movedim(-1, 0)
        return pictures[view.stem][[order.index(instead.get(phrase, phrase)) for phrase in phrases]]

    texts = found.embed([*phrases, *found.about.negatives])
    scores = found.scores(geometry.splats.means, texts)
    question = Question(Query(tuple(phrases)), found.about.negatives, geometry.splats, scores, geometry.photo_cameras(MOST_VIEWS))

    def silhouette(masks: Any, view: Any, phrase: str) -> Any:  # [H, W] bool
        chosen = geometry.splats[masks[:, list(labels.phrases).index(phrase)]]
        _, alpha = blend(chosen, geometry.held_out[view.stem], chosen.means.new_zeros(len(chosen), 1))
        return alpha >= LEAST_ALPHA

    reports = []
    if "A" in protocols:
        reports.append(measures.protocol_a(labels, maps))
    if "B" in protocols:
        reports.append(measures.protocol_b(labels, maps, threshold=THRESHOLD))
    if "C" in protocols:
        limits = {"threshold": THRESHOLD, "least_alpha": LEAST_ALPHA}
        reports.append(measures.protocol_c(labels, partial(silhouette, question.relevancy > THRESHOLD), **limits))
        reports.append(measures.protocol_c(labels, partial(silhouette, question.select().masks), name="C-find", **limits))
    return {f"{report.protocol} {name}": value for report in reports for name, value in report.scores.items()}


def speed(geometry: Any, found: Any, phrase: str) -> dict[str, float]:
    """Milliseconds of a query whose phrase is embedded, and of a rendered relevancy frame: the best of several, others share the
    cores. `prepare` is what a finished scene does once, and a loaded one may do: the first query relies on it."""
    import torch

    from vlmgs_ns.semantics.relevancy import relevancy_from_scores

    def best(work: Callable[[], Any], times: int = 7) -> float:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        return 1000 * min(taken)

    @torch.no_grad()
    def query(means: Any) -> Any:
        return relevancy_from_scores(found.scores(means, found.embed([phrase, *found.about.negatives])), 1)

    def query_times(means: Any, count: str) -> dict[str, float]:
        found._codes = None
        return {
            f"prepare{count}": best(lambda: found.prepare(means), 1),
            f"first query{count}": best(lambda: query(means), 1),
            f"query{count}": best(lambda: query(means)),
        }

    means, camera = geometry.splats.means, next(iter(geometry.held_out.values()))
    result = query_times(means, "")
    result |= {"frame": best(lambda: found.pictures(geometry.splats, camera, [phrase]))}
    many = means[torch.arange(100_000) % len(means)] + 0.001 * geometry.radius
    features = found.features
    if found.field is None:
        found.features = features[torch.arange(100_000) % len(means)]
    result |= query_times(many, ", 100 k")
    found.features = features
    return result


def scaling(args: argparse.Namespace, geometry_file: Path, encoder: str, warm: Path, out: Path) -> None:
    """Copies of the Gaussians: what is kept, what a query costs, and whether it still finds the same."""
    import torch

    from vlmgs_ns.evaluation.toy_labels import read_toy
    from vlmgs_ns.semantics.scene_semantics import SceneSemantics
    from vlmgs_ns.splats.gaussians import Splats

    geometry = Geometry(geometry_file)
    one = geometry.splats
    labels = read_toy(args.out / "toy-0")
    labels = replace(labels, views=labels.views[:4])
    state = torch.load(warm, weights_only=True)
    found = SceneSemantics.from_state(state)
    found.load_state_dict(state)
    rows = []
    for count in COUNTS:
        ids = torch.arange(count) % len(one)
        copies = count / len(one)
        chance = torch.Generator().manual_seed(0)
        means = one.means[ids] + 0.25 * one.scales[ids] * torch.randn(count, 3, generator=chance)
        geometry.splats = Splats(means, one.quats[ids], one.scales[ids], 1 - (1 - one.opacities[ids]) ** (1 / copies))
        # Copies are fainter than the 0.25 below which Gaussians take no part: keep those of the originals that do.
        opaque = geometry.splats.opacities.clamp_min(0.2501)
        geometry.splats = replace(geometry.splats, opacities=torch.where(one.opacities[ids] > 0.25, opaque, 0.0))
        began = time.perf_counter()
        scores = quality(geometry, found, labels, list(labels.phrases), "AB")
        seconds = time.perf_counter() - began
        found._codes = None
        row: dict[str, Any] = {"gaussians": count, "views_seconds": seconds, "scores": scores}
        row["field_mb"] = sum(values.nbytes for values in found.field.parameters()) / 1e6
        row["lifted_mb"] = count * found.about.sizes.clip_dim * 2 / 1e6
        for name, work in (
            ("prepare_ms", partial(found.prepare, means)),
            ("query_ms", partial(found.relevancy, means, [labels.phrases[0]])),
        ):
            began = time.perf_counter()
            work()
            row[name] = 1000 * (time.perf_counter() - began)
        row["codes_mb"] = 0.0 if found._codes is None else found._codes[-1].nbytes / 1e6
        row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(row)
        out.write_text(json.dumps(rows))


@contextmanager
def clock() -> Any:
    """Wall and processor seconds of a block."""
    spent: dict[str, float] = {}
    began, began_cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"wall": time.perf_counter() - began, "cpu": time.process_time() - began_cpu}


def alone(work: Callable[..., None], *given: Any, out: Path) -> bool:
    """Do the work in a process of its own, unless its file is there; whether it is there then."""
    if out.exists():
        return True

    def child() -> None:
        with out.with_suffix(".log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            work(*given, out)

    began = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    outcome = f"{time.perf_counter() - began:.0f} s" if out.exists() else f"failed, see {out.with_suffix('.log')}"
    print(f"{out.stem}: {outcome}", file=sys.stderr, flush=True)
    return out.exists()


def main() -> None:
    args = arguments()
    args.out = args.out.resolve()
    runs = args.out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not args.report:
        import vlmgs_ns.config  # noqa: F401  imported once, before the processes fork
    geometries = [args.out / f"geometry-{seed}-{args.iterations}-{args.size}.safetensors" for seed in range(args.seeds)]
    for seed, geometry in enumerate(geometries):
        if args.report or not alone(train_geometry, args, seed, out=geometry):
            continue
        for encoder in args.encoders:
            for variant in [] if args.scaling else [*args.modes, *args.variants]:
                if encoder != "tiny" and variant in TINY_ALONE:
                    continue
                out = runs / f"{geometry.stem}-{encoder}-{variant}.json".replace(" ", "-").replace(",", "")
                alone(measure, args, seed, encoder, variant, geometry, out=out)
            warm = runs / f"{geometry.stem}-{encoder}-warm.pt".replace(" ", "-")
            if args.scaling and seed == 0 and warm.exists():
                alone(scaling, args, geometry, encoder, warm, out=args.out / f"scaling-{encoder}.json".replace(" ", "-"))
    from semantic_report import report

    report(args.out, list(VARIANTS))


if __name__ == "__main__":
    main()
