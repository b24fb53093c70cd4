"""Trains the tiny Qwen3-VL of the package on rendered toy scenes, and measures it on rooms never trained on.

    python benchmarks/train_tiny_vlm.py --work WORK --out vlmgs_ns/toy/models/qwen3_vl [--only data|tower|language|measure]

It takes under three hours of one core. WORK gets the pictures (1 GB) and a checkpoint every 100 steps: started again, it goes on
where it was. Every draw comes from fixed seeds; rooms from 1000 on are for training, 1502 in reconstruction and 2000 to 2009 are
held out, and those below 1000, which the demo and the benchmarks use, are never rendered. What it reached is in
`vlmgs_ns/toy/models/MODEL_CARD.md`. A draft with a quarter of the training boxed 23 % of named objects with an IoU above 0.5; the
tower was its limit.

Questions alone teach a model of this size nothing in such a time. So the tower is trained first, to say of every merged token
what it shows (kind, colour, material, place, boxes), in the directions in which words mean these things (`tiny_vlm_model`): on
quarters of photos, then on whole photos and renders. The language side learns to answer from tokens that an oracle makes of the
ground truth, which cost nothing, and then from those of the trained tower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_vlm_data import (
    STAGE_HELD_OUT,
    Pictures,
    Sample,
    Targets,
    facts,
    held_out_photos,
    questions_about,
    render_rooms,
    render_stages,
    targets_of,
)
from tiny_vlm_model import (
    BOXES,
    CELL,
    CODES,
    COLOUR,
    FLAGS,
    FREE,
    HIDDEN,
    KIND,
    MATTER,
    SEEN,
    SITE,
    WAVES,
    fix_marks,
    look,
    make_model,
    make_tokenizer,
    mark,
    prompt_of,
    save,
    waves,
)
from torch import Tensor, nn
from torch.nn import functional as F
from train_tiny_models import NAMES, write_json

from vlmgs_ns.guidance.backends.transformers import TransformersBackend
from vlmgs_ns.guidance.question import Question
from vlmgs_ns.guidance.regions import mask
from vlmgs_ns.guidance.reply import parse

HELD_OUT_SEEDS = range(2000, 2010)
CROP_STEPS, CROPS = 4000, 16
WHOLE_STEPS, WHOLES = 5000, 4
ORACLE_STEPS, ORACLE_PACKS, ORACLE_QUESTIONS = 3000, 3, 8
ANSWER_STEPS, ANSWER_PACKS, ANSWER_QUESTIONS = 2000, 2, 10
LOOKED_AT = 1200
"""Pictures whose tokens the language side learns from in the end."""
GRID = torch.arange(0, 1001, 10)
SPREAD = 14.0
"""Standard deviation, in thousandths, of the numbers around a true one that the tower is to give weight to."""
NUMBER_SPREAD = 10.0
"""The same for the language side."""


# --- optimiser and loop ---


class Muon:
    """Momentum made orthogonal (Jordan et al. 2024) for matrices between hidden layers, Adam for all else."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], rate: float, adam_rate: float) -> None:
        named = list(named)
        hidden = [rate > 0 and p.ndim == 2 and not any(word in n for word in ("embed", "norm", "merger")) for n, p in named]
        self.matrices = [p for (_, p), is_hidden in zip(named, hidden, strict=True) if is_hidden]
        self.momenta = [torch.zeros_like(p) for p in self.matrices]
        rest = [p for (_, p), is_hidden in zip(named, hidden, strict=True) if not is_hidden]
        self.adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.rate, self.adam_rate = rate, adam_rate

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update all parameters with the rates times ``scale``, and forget the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        self.adam.zero_grad()
        for p, momentum in zip(self.matrices, self.momenta, strict=True):
            assert p.grad is not None
            momentum.lerp_(p.grad, 0.05)
            update = p.grad.lerp(momentum, 0.95)
            # Queries, keys and values are three matrices in one.
            parts = update.chunk(3) if update.shape[0] == 3 * update.shape[1] else (update,)
            step = torch.cat([orthogonal(part) for part in parts])
            p.mul_(1 - 0.05 * self.rate * scale).add_(step, alpha=-self.rate * scale)
            p.grad = None

    def state(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.momenta = state["momenta"]


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix with equal singular values (five Newton-Schulz iterations)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = ((matrix.T if tall else matrix) / (matrix.norm() + 1e-7)).bfloat16()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).float() * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5


def train(
    part: nn.Module,
    name: str,
    work: Path,
    steps: int,
    rates: tuple[float, float],
    loss_of: Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]],
    last: float = 0.02,
) -> None:
    """Train a part of the model, with a short rise and half of the steps at full rate, down to ``last`` of it."""
    optimizer = Muon(part.named_parameters(), *rates)
    file, first = work / f"{name}.pt", 0
    if file.is_file():
        kept = torch.load(file, weights_only=True)
        part.load_state_dict(kept["weights"])
        optimizer.load(kept["optimizer"])
        first = kept["step"]
    mean: dict[str, float] = {}
    start = time.monotonic()
    for step in range(first, steps):
        loss, figures = loss_of(np.random.default_rng([7, step]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimizer.step(min(1.0, (step + 1) / 40) * (last + (1 - last) * min(1.0, 2 * (1 - step / steps))))
        for what, value in figures.items():
            mean[what] = value if what not in mean else 0.95 * mean[what] + 0.05 * value
        if step % 25 == 0:
            print(f"{name} {step} {time.monotonic() - start:.0f} s", *(f"{k} {v:.3g}" for k, v in mean.items()), flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            kept = {"weights": part.state_dict(), "optimizer": optimizer.state(), "step": step + 1}
            torch.save(kept, file.with_suffix(".new"))
            file.with_suffix(".new").rename(file)


# --- the tower ---


def read_tokens(tokens: Tensor) -> dict[str, Tensor]:
    """Return logits of what merged tokens [..., HIDDEN] say: the four facts, boxes [..., 4, 4, 101] and flags [..., 3]."""
    names = ("kind", "colour", "material", "place")
    of_facts = {n: 6 * tokens[..., at] @ c.T for n, at, c in zip(names, (KIND, COLOUR, MATTER, SITE), CODES, strict=True)}
    boxes = 5 * tokens[..., BOXES].unflatten(-1, (4, 4, WAVES)) @ waves(GRID).T
    return {**of_facts, "boxes": boxes, "flags": 4 * tokens[..., FLAGS]}


def around(numbers: Tensor, grid: Tensor, spread: float) -> Tensor:
    """Return weights of a grid's numbers about true numbers [N]: [N, G], sum 1."""
    return torch.softmax(-((grid - numbers[..., None]) ** 2) / (2 * spread**2), dim=-1)


def tower_loss(visual: Any, samples: list[Sample], regions: bool) -> tuple[Tensor, dict[str, float]]:
    """How well merged tokens say what they show."""
    wanted = [sample.targets() for sample in samples]
    with torch.autocast("cpu", torch.bfloat16):
        tokens = look(visual, torch.stack([sample.picture for sample in samples]))
    of_facts, weight, boxes, known, flags = (
        torch.stack([getattr(t, name) for t in wanted]) for name in ("facts", "weight", "boxes", "known", "flags")
    )
    said, losses, figures = read_tokens(tokens), [], {}
    objects = of_facts[..., 0] >= len(NAMES)
    for k, name in enumerate(("kind", "colour", "material", "place")):
        loss = F.cross_entropy(said[name].flatten(0, 1), of_facts[..., k].flatten(), reduction="none")
        losses.append((loss * weight.flatten()).sum() / weight.sum() * (1.0 if k < 2 else 0.3))
        figures[name] = float((said[name].argmax(-1) == of_facts[..., k])[objects].float().mean())
    if not regions:
        known[..., 2:] = 0
    logits, true = said["boxes"][known > 0], boxes[known > 0]  # [N, 4, 101], [N, 4]
    loss = -(around(true, GRID, SPREAD) * torch.log_softmax(logits, dim=-1)).sum(-1).mean(-1)
    losses.append(0.7 * (loss * known[known > 0]).sum() / known.sum().clamp_min(1))
    off = (GRID[logits.detach().argmax(-1)] - true).abs().mean(-1)
    which = torch.arange(4).expand_as(known)[known > 0]
    for k, name in enumerate(("thing", "subject", "detail", "defects")):
        if ((which == k) & (known[known > 0] > 0.4)).any():
            figures[f"{name} off by"] = float(off[(which == k) & (known[known > 0] > 0.4)].median())
    loss = F.binary_cross_entropy_with_logits(said["flags"], flags, reduction="none").mean((0, 1))
    losses.append(loss[0] + (loss[1:].sum() if regions else 0.0))
    losses.append(0.01 * tokens.square().mean() + 0.05 * tokens[..., FREE].square().mean())
    total = torch.stack([torch.as_tensor(loss) for loss in losses]).sum()
    return total, {**figures, "loss": float(total.detach())}


def train_tower(model: Any, work: Path) -> None:
    visual, pictures = model.model.visual, Pictures(work)
    train(
        visual, "tower-crops", work, CROP_STEPS, (0.02, 2e-3),
        lambda rng: tower_loss(visual, [pictures.crop(rng) for _ in range(CROPS)], False), last=0.3,
    )  # fmt: skip
    train(
        visual, "tower", work, WHOLE_STEPS, (0.015, 1.5e-3),
        lambda rng: tower_loss(visual, [pictures.whole(rng).disturbed(rng) for _ in range(WHOLES)], True),
    )  # fmt: skip


# --- the language side ---


def oracle_tokens(t: Targets, rng: np.random.Generator) -> Tensor:  # [T, HIDDEN]
    """Return what a good tower would say of a picture, doubts and inaccuracies included."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    count = len(t.facts)
    tokens = 0.2 * torch.randn(count, HIDDEN, generator=generator)
    for k, (at, codes) in enumerate(zip((KIND, COLOUR, MATTER, SITE), CODES, strict=True)):
        doubt = (torch.rand(count, 1, generator=generator) < 0.15) * torch.rand(count, 1, generator=generator)
        other = codes[torch.randint(len(codes), (count,), generator=generator)]
        tokens[:, at] += torch.lerp(codes[t.facts[:, k]], other, doubt) * rng.uniform(0.7, 1.5)
    numbers = (t.boxes + 8 * torch.randn(count, 4, 4, generator=generator)).clamp(0, 1000)
    tokens[:, BOXES] += (waves(numbers) * (t.known > 0)[..., None, None] * rng.uniform(0.7, 1.5)).flatten(1)
    tokens[:, FLAGS] += (2 * t.flags - 1) * rng.uniform(0.6, 1.5)
    return mark(tokens)


class Packer:
    """Puts the tokens of a picture and several questions about it into one sequence, in which questions do not see each other."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.head = tokenizer("<|im_start|>user\n<|vision_start|>").input_ids
        self.tail = tokenizer("<|vision_end|>").input_ids
        self.numbers = torch.tensor(tokenizer.convert_tokens_to_ids([str(n) for n in range(1001)]))
        self.value = {int(token): n for n, token in enumerate(self.numbers)}

    def pack(self, grid: tuple[int, int], asked: list[tuple[str, str]]) -> dict[str, np.ndarray]:
        """Return ids (−1: the picture's), owner (0: all questions', else one's), target (−100: none) and position, [3, L]."""
        (rows, columns), head = grid, len(self.head)
        r, c = np.divmod(np.arange(rows * columns), columns)
        after = head + max(rows, columns)
        position = [
            np.tile(np.arange(head), (3, 1)),
            np.stack([np.full(len(r), head), head + r, head + c]),
            np.full((3, 1), after),
        ]
        ids = [*self.head, *[-1] * len(r), *self.tail]
        owner, target = [0] * len(ids), [-100] * len(ids)
        for k, (prompt, reply) in enumerate(asked, 1):
            question = self.tokenizer(f"{prompt}<|im_end|>\n<|im_start|>assistant\n").input_ids
            said = self.tokenizer(f"{reply}<|im_end|>").input_ids
            length = len(question) + len(said)
            position.append(np.tile(np.arange(length) + after + 1, (3, 1)))
            ids += [*question, *said]
            owner += [k] * length
            target += [*[-100] * (len(question) - 1), *said, -100]
        return {
            "ids": np.array(ids),
            "owner": np.array(owner),
            "target": np.array(target),
            "position": np.concatenate(position, 1),
        }


def language_loss(
    model: Any,
    packer: Packer,
    tokens: Tensor,  # [all pictures' tokens, HIDDEN]
    packs: list[dict[str, np.ndarray]],
) -> tuple[Tensor, dict[str, float]]:
    """How well replies are written; a number near the true one is almost as good."""
    length = max(len(pack["ids"]) for pack in packs)

    def padded(name: str, value: int) -> Tensor:
        rows = [
            np.pad(p[name], [(0, 0)] * (p[name].ndim - 1) + [(0, length - len(p["ids"]))], constant_values=value) for p in packs
        ]
        return torch.from_numpy(np.stack(rows, axis=rows[0].ndim - 1))

    ids, owner, target, position = padded("ids", 0), padded("owner", -1), padded("target", -100), padded("position", 0)
    embedded = model.get_input_embeddings()(ids.clamp_min(0))
    embedded = embedded.masked_scatter((ids < 0)[..., None], tokens.to(embedded.dtype))
    seen = torch.ones(length, length, dtype=torch.bool).tril() & ((owner[:, :, None] == owner[:, None]) | (owner[:, None] == 0))
    seen |= torch.eye(length, dtype=torch.bool)
    bias = torch.zeros(seen.shape).masked_fill(~seen, -1e9)[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        side = model.model.language_model
        hidden = side(inputs_embeds=embedded, position_ids=position, attention_mask=bias, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[target >= 0]).float()
    wanted = target[target >= 0]
    values = torch.tensor([packer.value.get(int(token), -1) for token in wanted])
    is_number, log = values >= 0, torch.log_softmax(logits, dim=-1)
    spread = around(values[is_number], torch.arange(1001), NUMBER_SPREAD)
    of_numbers = -(spread * log[is_number][:, packer.numbers]).sum(-1).mean()
    of_words = F.cross_entropy(logits[~is_number], wanted[~is_number])
    guessed = logits.argmax(-1)
    numbers = torch.tensor([packer.value.get(int(token), 9999) for token in guessed[is_number]])
    figures = {
        "numbers": float(of_numbers.detach()),
        "words": float(of_words.detach()),
        "words right": float((guessed == wanted)[~is_number].float().mean()),
        "numbers within 30": float(((numbers - values[is_number]).abs() <= 30).float().mean()),
    }
    return of_numbers + 2 * of_words, figures


def train_language(model: Any, tokenizer: Any, work: Path) -> None:
    side, pictures, packer = model.model.language_model, Pictures(work), Packer(tokenizer)
    # Numbers stay waves: each is written too rarely to be learned, and those written more often would be preferred.
    side.embed_tokens.weight.register_hook(lambda gradient: gradient.index_fill(0, packer.numbers, 0.0))

    def imagine(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        tokens, packs = [], []
        for _ in range(ORACLE_PACKS):
            cells = (6, 8) if rng.random() < 0.8 else (SEEN[1] // CELL, SEEN[0] // CELL)
            sample = pictures.imagined(rng, cells)
            targets = sample.targets()
            tokens.append(oracle_tokens(targets, rng))
            packs.append(packer.pack(cells, questions_about(sample, targets, rng, ORACLE_QUESTIONS)))
        return language_loss(model, packer, torch.cat(tokens), packs)

    train(side, "language-oracle", work, ORACLE_STEPS, (0.0, 1.5e-3), imagine)
    album = looked_at(model, pictures)

    def answer(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        tokens, packs = [], []
        for n in rng.integers(len(album), size=ANSWER_PACKS):
            sample, seen = album[n]
            noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**31))))
            tokens.append(seen + 0.05 * seen.std() * noise)
            packs.append(
                packer.pack((SEEN[1] // CELL, SEEN[0] // CELL), questions_about(sample, sample.targets(), rng, ANSWER_QUESTIONS))
            )
        return language_loss(model, packer, torch.cat(tokens), packs)

    train(side, "language", work, ANSWER_STEPS, (0.0, 1e-3), answer)


@torch.no_grad()
def looked_at(model: Any, pictures: Pictures) -> list[tuple[Sample, Tensor]]:
    """Return whole pictures with the tokens that the trained tower makes of them."""
    rng, album = np.random.default_rng(13), []
    for _ in range(LOOKED_AT // 8):
        samples = [pictures.whole(rng, 0.4) for _ in range(8)]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = look(model.model.visual, torch.stack([sample.picture for sample in samples]))
        album += list(zip(samples, tokens, strict=True))
    return album


# --- measuring ---


def iou(one: Any, other: Any) -> float:
    """Return the intersection of two boxes over their union."""
    width, height = (max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0) for k in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def measure(out: Path, work: Path) -> dict[str, Any]:
    """Ask the product's own backend about pictures of held-out rooms, and about pictures of other rooms as a control."""
    backend = TransformersBackend(str(out), device="cpu")
    views = held_out_photos(HELD_OUT_SEEDS, 6)
    asked: list[tuple[str, Any, str, np.ndarray, np.ndarray]] = []  # what, truth, prompt, picture, another picture
    for n, (picture, things, room) in enumerate(views):
        targets, other = targets_of(things, facts(room)), views[(n + len(views) // 2) % len(views)][0]
        if targets.subject:
            asked.append(("subject", [targets.subject], prompt_of("background"), picture, other))
        for k, thing in enumerate(room.objects, len(NAMES)):
            if targets.pixels.get(k, 0) >= 60:
                asked.append(("grounding", [targets.boxes_of[k]], prompt_of("ground", thing.name), picture, other))
    stages = np.load(work / "stages.npz")
    mine = np.flatnonzero(stages["room"] == STAGE_HELD_OUT)[::4]
    renders, regions = stages["renders"][mine], stages["regions"][mine]
    for which, what in enumerate(("detail", "novel")):
        for render, other, boxes in zip(renders, np.roll(renders, len(mine) // 2, axis=0), regions[:, which], strict=True):
            truth = 1000 * boxes[~np.isnan(boxes[:, 0])]
            asked.append((what, truth, prompt_of(what), render, other))  # type: ignore[arg-type]
    found: dict[str, list[float]] = defaultdict(list)
    torch.set_num_threads(1)
    backend.ask([Question("background", prompt_of("background"), (views[0][0],))])  # loads the model
    for control in ("", ", shuffled pictures"):
        overlaps: dict[str, list[int]] = {"detail": [0, 0, 0], "novel": [0, 0, 0]}
        start = time.monotonic()
        answers = backend.ask([Question("ground", row[2], (row[4 if control else 3],)) for row in asked])  # type: ignore[arg-type]
        seconds = (time.monotonic() - start) / len(asked)
        for (what, truth, *_), answer in zip(asked, answers, strict=True):
            found[f"valid JSON{control}"].append(float(is_json(answer.text)))
            boxes = parse(answer.text or "", "thousandths", 1000, 1000).boxes
            if what in overlaps:
                true, said = (mask(some, 100, 75) for some in ([scaled(box) for box in truth], boxes))
                for k, pixels in enumerate((true & said, true, said)):
                    overlaps[what][k] += int(pixels.sum())
                continue
            best = iou([1000 * edge for edge in boxes[0][:4]], truth[0]) if boxes else 0.0
            found[f"{what}: IoU of its box{control}"].append(best)
            found[f"{what}: IoU above 0.5{control}"].append(float(best > 0.5))
        for what, (both, true, said) in overlaps.items():
            found[f"{what}: precision{control}"] = [both / max(said, 1)] * len(mine)
            found[f"{what}: recall{control}"] = [both / max(true, 1)] * len(mine)
    print(f"{seconds:.2f} s per question", flush=True)
    return {what: {"share": round(float(np.mean(values)), 4), "of": len(values)} for what, values in found.items()}


def scaled(box: Any) -> Any:
    """A box in thousandths as a normalised one."""
    from vlmgs_ns.guidance.reply import Box

    return Box(*(float(edge) / 1000 for edge in box), "")


def is_json(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), list)
    except ValueError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; held_out_vlm.json is written beside it")
    parser.add_argument("--only", choices=("data", "tower", "language", "measure"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name, render in (("rooms", render_rooms), ("stages", render_stages)):
        if not (arguments.work / f"{name}.npz").is_file():
            render(arguments.work / f"{name}.npz")
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    if arguments.only in (None, "tower"):
        train_tower(model, arguments.work)
    if arguments.only in (None, "language"):
        model.model.visual.load_state_dict(torch.load(arguments.work / "tower.pt", weights_only=True)["weights"])
        fix_marks(model.model.visual)
        train_language(model, tokenizer, arguments.work)
        save(model, tokenizer, arguments.out)
    if arguments.only in (None, "measure"):
        measured = measure(arguments.out, arguments.work)
        write_json(arguments.out.parent / "held_out_vlm.json", measured)
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
