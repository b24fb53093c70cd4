"""The tiny Qwen3-VL before it is trained: vocabulary, sizes, and what it is given to begin with.

Pictures and words meet in one space by construction: fixed directions stand for kinds, colours, materials and places, and a
number from 0 to 1000 is a set of waves, so that near numbers are alike. The tower is trained to say in these directions what each
of its tokens shows, and the language side, whose attention begins as a lookup, has only to learn matching and copying.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_phrases import MATERIALS, PLACE_WORDS, SURFACES
from train_tiny_models import NAMES, UNKNOWN

from vlmgs_ns.guidance.prompts import prompt
from vlmgs_ns.guidance.question import Phase
from vlmgs_ns.toy.furniture import CATALOGUE, PLACES
from vlmgs_ns.toy.textures import PALETTE

KINDS = [*NAMES, "table", *(kind.noun for kind in CATALOGUE)]
SYNONYMS = {**{kind.noun: kind.synonym for kind in CATALOGUE}, "table": "desk"}
# The first of these is what parts of the room have: none that is known.
COLOURS, MATTERS, SITES = ["", *PALETTE], ["", *MATERIALS], ["", *PLACES.values()]
SUBJECT_LABEL, DETAIL_LABEL, DEFECT_LABEL = "main subject", "emerging detail", "inconsistent"

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role + '\\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
OPEN, COMMA, LABEL, NEXT, CLOSE, NONE = '[{"bbox_2d": [', ", ", '], "label": "', '"}, {"bbox_2d": [', '"}]', "[]"

SEEN = (256, 192)
"""Width and height to which the processor scales a picture of a room."""
PATCH, MERGE = 8, 2
CELL = PATCH * MERGE
"""Pixels at the side of what one merged token shows."""
VISION, DEPTH, HIDDEN, LAYERS, HEAD = 128, 4, 192, 3, 32

# Dimensions of the space in which the tower and the words meet.
FREQUENCIES = (1, 3, 9, 25)
WAVES = 2 * len(FREQUENCIES)
KIND, COLOUR, MATTER, SITE = slice(0, 16), slice(16, 26), slice(26, 33), slice(33, 38)
FACTS = slice(0, SITE.stop)
BOXES = slice(FACTS.stop, FACTS.stop + 16 * WAVES)
"""Four boxes of four numbers: of the thing, of the subject, and of the region of detail and of defects that the token lies in."""
NUMBER = slice(BOXES.start, BOXES.start + WAVES)
FLAGS = slice(BOXES.stop, BOXES.stop + 3)
"""Whether the token shows the subject, lies in a region of detail, in one of defects."""
FREE = slice(FLAGS.stop, HIDDEN)
WORD, SLOT, DIGIT = FREE.start, FREE.start + 1, FREE.start + 2
"""Marks of words that describe (-1: pictures), of what a number follows, and of numbers."""


def waves(
    numbers: Tensor,  # [...] thousandths
) -> Tensor:  # [..., WAVES]
    """Return cosines and sines of numbers; unit vectors."""
    angle = numbers[..., None].float() / 1000 * torch.pi * torch.tensor(FREQUENCIES)
    return torch.cat((angle.cos(), angle.sin()), dim=-1) / len(FREQUENCIES) ** 0.5


def spread_code(count: int, size: int, seed: int) -> Tensor:  # [count, size]
    """Return unit vectors that repel each other, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(count, size, generator=generator), dim=1)
    for _ in range(300):
        push = (8 * (vectors @ vectors.T - 2 * torch.eye(count))).exp()
        vectors = F.normalize(vectors - 0.05 * (push @ vectors) / push.sum(1, keepdim=True), dim=1)
    return vectors


CODES = [
    spread_code(len(names), where.stop - where.start, seed)
    for seed, (names, where) in enumerate(((KINDS, KIND), (COLOURS, COLOUR), (MATTERS, MATTER), (SITES, SITE)), 1)
]
"""Words of kinds, colours, materials and places."""


def _meanings() -> dict[str, list[tuple[slice, Tensor]]]:
    """Return the directions that every word points to."""
    found: dict[str, list[tuple[slice, Tensor]]] = {}

    def add(words: str, where: slice, vector: Tensor) -> None:
        for word in words.split():
            if word not in ("on", "the", "of", "in", "a", "with", "at", "by", "to", "and"):
                found.setdefault(word, []).append((where, vector))

    for k, name in enumerate(KINDS):
        for words in (name, SYNONYMS.get(name, ""), *SURFACES.get(name, ())):
            add(words, KIND, CODES[0][k])
    for k, name in enumerate(COLOURS[1:], 1):
        add(name, COLOUR, CODES[1][k])
    for k, name in enumerate(MATTERS[1:], 1):
        for words in MATERIALS[name]:
            add(words, MATTER, CODES[2][k])
    for k, name in enumerate(SITES[1:], 1):
        for words in PLACE_WORDS[name]:
            middle = "middle" in words or "centre" in words
            add(words.split()[2 if middle else -1], SITE, CODES[3][k])
    return found


MEANINGS = _meanings()


def prompt_of(phase: Phase, wish: str = "") -> str:
    """Return the prompt that the product sends."""
    return prompt(phase, "thousandths", *SEEN, wish)


def make_tokenizer() -> Any:
    """Return a tokenizer of one token for every word of the rooms' phrases, every number from 0 to 1000, every line of the
    prompts and every mark of a reply; it spells any other text in bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for phrase in _vocabulary() for word in phrase.split()})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=6000, min_frequency=1, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator([*words, *(f" {word}" for word in words)], trainer)
    lines = {"user\n", "assistant\n"}
    for phase in ("background", "detail", "novel"):
        lines |= set(prompt_of(phase).splitlines(keepends=True))  # type: ignore[arg-type]
    before, _, after = prompt_of("ground", "\0").partition("\0")
    lines |= {before, *after.splitlines(keepends=True)}
    pieces = [*sorted(lines), OPEN, COMMA, LABEL, NEXT, CLOSE, NONE, "; ", *map(str, range(1001))]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _vocabulary() -> list[str]:
    texts = [DETAIL_LABEL, DEFECT_LABEL, SUBJECT_LABEL, "thing", "object", "a", "the", *UNKNOWN, *PALETTE]
    texts += [words for some in (*MATERIALS.values(), *PLACE_WORDS.values(), *SURFACES.values()) for words in some]
    texts += [word for kind in CATALOGUE for word in (kind.noun, kind.synonym)]
    return [*texts, "table", "desk", "rectangular", "round", "pointed", "cylinder"]


def make_processor(tokenizer: Any) -> Any:
    """Return Qwen3-VL's processor with pictures of about `SEEN`'s area."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    area = SEEN[0] * SEEN[1]
    images = Qwen2VLImageProcessor(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": area, "longest_edge": area},
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    )
    videos = Qwen3VLVideoProcessor(patch_size=PATCH, merge_size=MERGE)
    return Qwen3VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE, video_processor=videos)


def make_model(tokenizer: Any) -> Any:
    """Return the model before training, the same every time."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HIDDEN // HEAD,
            "num_key_value_heads": HIDDEN // HEAD,
            "head_dim": HEAD,
            "max_position_embeddings": 4096,
            "rope_parameters": rotary,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": DEPTH,
            "hidden_size": VISION,
            "intermediate_size": 2 * VISION,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    with torch.no_grad():
        _start_tower(model.model.visual)
        _start_words(model.get_input_embeddings().weight, tokenizer)
        for depth, layer in enumerate(model.model.language_model.layers):
            _start_layer(layer, depth)
    return model


def _start_tower(visual: Any) -> None:
    """Patches begin as their lowest cosines in brightness and two colour differences, positions as waves."""
    n = torch.arange(PATCH) + 0.5
    cosines = [(torch.pi * k * n / PATCH).cos() * (2 / PATCH) ** 0.5 * (0.5**0.5 if k == 0 else 1) for k in range(PATCH)]
    colours = F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]]), dim=1)
    order = sorted((a + b + (0 if c == 0 else 1.5), a, b, c) for a in range(PATCH) for b in range(PATCH) for c in range(3))
    for k, (_, a, b, c) in enumerate(order[:VISION]):
        pattern = colours[c][:, None, None] * cosines[a][:, None] * cosines[b]
        visual.patch_embed.proj.weight[k] = pattern[:, None].expand(-1, 2, -1, -1) / 4
    visual.patch_embed.proj.bias.zero_()
    side = 16
    at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2) / (side - 1) * 1000
    visual.pos_embed.weight.normal_(0, 0.1)
    visual.pos_embed.weight[:, -2 * WAVES :] = waves(at).flatten(1)
    for block in visual.blocks:
        for linear in (block.attn.qkv, block.mlp.linear_fc1):
            nn.init.normal_(linear.weight, 0, VISION**-0.5)
        for linear in (block.attn.proj, block.mlp.linear_fc2):
            nn.init.normal_(linear.weight, 0, 0.3 * linear.in_features**-0.5)
    nn.init.normal_(visual.merger.linear_fc1.weight, 0, visual.merger.linear_fc1.in_features**-0.5)
    nn.init.normal_(visual.merger.linear_fc2.weight, 0, 0.3 * visual.merger.linear_fc2.in_features**-0.5)


def _start_words(embedding: Tensor, tokenizer: Any) -> None:
    """Words begin as what they mean, numbers as waves."""
    embedding.normal_(0, 0.02)
    embedding[:, FREE] = 0
    embedding[:, DIGIT + 1 :] = F.normalize(torch.randn(len(embedding), HIDDEN - DIGIT - 1), dim=1)
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        text = tokenizer.convert_tokens_to_string([token]).strip()
        if text.isdecimal() and text == str(int(text)) and int(text) <= 1000:
            embedding[index, NUMBER] = waves(torch.tensor(int(text)))
            embedding[index, FREE] = 0
            embedding[index, DIGIT] = 1
        for where, vector in MEANINGS.get(text, ()):
            embedding[index, where] += vector
        if text in UNKNOWN:
            embedding[index, KIND] = F.normalize(torch.randn(KIND.stop), dim=0)
        embedding[index, WORD] = float(text in MEANINGS or text in UNKNOWN)
    for text in (OPEN, COMMA, NEXT):
        embedding[tokenizer.convert_tokens_to_ids(text), SLOT] = 1


def _start_layer(layer: Any, depth: int) -> None:
    """What a number follows gathers the words in the first layer, and in the second the boxes of what looks like them."""
    attention = layer.self_attn
    q, k, v, o = (linear.weight for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
    nn.init.orthogonal_(q)
    k.copy_(q + 0.02 * torch.randn_like(q))
    nn.init.orthogonal_(v)
    o.copy_(0.05 * v.T)
    attention.q_norm.weight.fill_(1.6)
    attention.k_norm.weight.fill_(1.6)
    for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
        nn.init.normal_(linear.weight, 0, HIDDEN**-0.5)
    nn.init.normal_(layer.mlp.down_proj.weight, 0, 0.05 * (2 * HIDDEN) ** -0.5)
    steady = torch.tensor([n for n in range(HEAD) if n % (HEAD // 2) >= 5])  # the rotary embedding hardly turns these
    if depth == 0:
        for head, source in enumerate((slice(0, HEAD), slice(HEAD, FACTS.stop))):
            for weight, mark in ((q, SLOT), (k, WORD)):
                weight[HEAD * head : HEAD * (head + 1)] *= 0.1
                weight[HEAD * head + steady, mark] = 1
            _carry(v, o, head, source)
    elif depth == 1:
        mixed = nn.init.orthogonal_(torch.empty(len(steady), FACTS.stop))
        mixed[:, MATTER.start :] *= 0.5
        for weight in (q, k):
            weight[:HEAD] *= 0.05
            weight[steady, FACTS] = mixed
            weight[steady[0]] = 0
        q[steady[0], SLOT], k[steady[0], WORD] = 2, -2  # pictures, not the words themselves
        for head in range(4):
            _carry(v, o, head, slice(BOXES.start + 4 * WAVES * head, BOXES.start + 4 * WAVES * (head + 1)))


def _carry(v: Tensor, o: Tensor, head: int, source: slice) -> None:
    """Let a head copy some dimensions."""
    rows, size = slice(HEAD * head, HEAD * (head + 1)), source.stop - source.start
    v[rows], o[:, rows] = 0, 0
    v[HEAD * head : HEAD * head + size, source] = torch.eye(size)
    o[source, HEAD * head : HEAD * head + size] = 0.3 * torch.eye(size)


def patches(
    pictures: Tensor,  # [B, 3, H, W] in [0, 1]
) -> Tensor:  # [B * H / PATCH * W / PATCH, 3 * 2 * PATCH²]
    """Cut pictures as the processor does."""
    b, _, h, w = pictures.shape
    x = ((pictures - 0.5) / 0.25).reshape(b, 3, h // CELL, MERGE, PATCH, w // CELL, MERGE, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(-1, 3 * 2 * PATCH * PATCH)


def look(
    visual: Any,
    pictures: Tensor,  # [B, 3, H, W] in [0, 1]
) -> Tensor:  # [B, T, HIDDEN]
    """Return the merged tokens of pictures, row by row."""
    b, _, h, w = pictures.shape
    grid = torch.tensor([[1, h // PATCH, w // PATCH]] * b)
    return visual(patches(pictures), grid).pooler_output.float().reshape(b, -1, HIDDEN)


def mark(
    tokens: Tensor,  # [..., HIDDEN]
) -> Tensor:
    """Set the free dimensions as all merged tokens have them."""
    tokens[..., FREE] = 0
    tokens[..., WORD] = -1
    return tokens


@torch.no_grad()
def fix_marks(visual: Any) -> None:
    """Let the tower itself give its tokens their mark; nothing was trained in the free dimensions."""
    visual.merger.linear_fc2.weight[FREE] = 0
    mark(visual.merger.linear_fc2.bias)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write model and processor as transformers does, the weights in half precision."""
    from copy import deepcopy

    out.mkdir(parents=True, exist_ok=True)
    deepcopy(model).half().save_pretrained(out)
    make_processor(tokenizer).save_pretrained(out)
