"""A tiny Qwen3-VL with random weights runs through the backend from folder to reply: this proves plumbing, never accuracy."""

from __future__ import annotations

import gc
import json
import random
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.guidance.tiny_qwen import SPECIAL, build
from vlmgs_ns.guidance.backends import transformers as ours
from vlmgs_ns.guidance.backends.transformers import TransformersBackend, find_folder, missing_weights
from vlmgs_ns.guidance.question import Answer, Question
from vlmgs_ns.system.errors import InputError

TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    place = tmp_path / "hub"
    place.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model for tests that damage it."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def backend(model: Path | str, **settings: Any) -> TransformersBackend:
    return TransformersBackend(str(model), **{"device": "cpu", "max_tokens": TOKENS, **settings})


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def questions() -> list[Question]:
    """Questions of different lengths, picture sizes and numbers of pictures."""
    return [
        Question("detail", "where is detail?", (picture(0),)),
        Question("background", "one box around what the photos are of, please", (picture(1, 96, 64),)),
        Question("compare", "what differs?", (picture(2), picture(3, 128, 128))),
        Question("novel", "?", (picture(4, 200, 70),)),
    ]


def texts(answers: list[Answer]) -> list[str | None]:
    assert [answer.error for answer in answers] == [None] * len(answers)
    return [answer.text for answer in answers]


def test_batched_is_one_by_one(folder: Path) -> None:
    alone = backend(folder)
    single = texts([answer for question in questions() for answer in alone.ask([question])])
    together = backend(folder, batch_size=4).ask(questions())
    assert texts(together) == single
    assert texts(backend(folder, batch_size=3).ask(questions())) == single
    assert [answer.details["batch"] for answer in together] == [4] * 4
    assert all(answer.seconds > 0 for answer in together)
    # Replies that were all the same would pass whatever became of the pictures.
    assert len(set(single)) == 4


def test_every_picture_of_a_question_counts(folder: Path) -> None:
    asker = backend(folder)
    pictures = [
        (picture(2), picture(3)),
        (picture(2), picture(9)),
        (picture(9), picture(3)),
        (picture(3), picture(2)),
        (picture(2),),
    ]
    replies = texts(asker.ask([Question("compare", "what differs?", shown) for shown in pictures]))
    assert len(set(replies)) == len(pictures)


def test_a_question_without_a_picture(folder: Path) -> None:
    answers = backend(folder).ask([Question("detail", "hello", ()), *questions()[:1]])
    assert all(answer.text is not None for answer in answers)
    assert "seen_size" not in answers[0].details and answers[1].details["seen_size"] == [96, 64]


def test_the_same_question_has_the_same_reply(folder: Path) -> None:
    # The model comes with a sampler turned on.
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is True
    torch.manual_seed(1)
    first = texts(backend(folder).ask(questions()))
    torch.manual_seed(2)
    assert texts(backend(folder).ask(questions())) == first


def test_a_reply_is_cut_off_at_max_tokens_and_is_only_what_is_new(folder: Path) -> None:
    long, short = (backend(folder, max_tokens=n).ask(questions()) for n in (20, 5))
    for whole, cut in zip(long, short, strict=True):
        assert cut.details["completion_tokens"] == 5 and cut.details["finish_reason"] == "length"
        # One token per byte: text is cut off inside a character, which is decoded as �.
        assert whole.text.startswith(cut.text.rstrip("�"))
        assert len(cut.text) <= 5 and "assistant" not in whole.text


def test_a_reply_ends_where_the_model_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = backend(folder)
    asker.ask(questions()[:1])
    loaded = asker._loaded
    end = loaded.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = loaded.processor.tokenizer.pad_token_id
    letters = [loaded.processor.tokenizer.convert_tokens_to_ids(letter) for letter in "abcd"]

    def generate(input_ids: torch.Tensor, **rest: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([[*letters[:2], end, pad], letters])], dim=1)

    monkeypatch.setattr(loaded.model, "generate", generate)
    answers = asker.ask([questions()[0], questions()[1]])
    assert [(a.text, a.details["completion_tokens"], a.details["finish_reason"]) for a in answers] == [
        ("ab", 3, "stop"),
        ("abcd", 4, "length"),
    ]


def test_a_model_is_loaded_at_the_first_question_and_released(folder: Path) -> None:
    asker = backend(folder)
    asker.check()
    assert asker.ask([]) == [] and asker._loaded is None
    first = texts(asker.ask(questions()[:1]))
    model = asker._loaded.model
    asker.ask(questions()[:1])
    assert asker._loaded.model is model
    gone = weakref.ref(model)
    del model
    asker.release()
    gc.collect()
    assert gone() is None
    asker.release()
    assert texts(asker.ask(questions()[:1])) == first


def test_constructing_and_checking_imports_no_transformers(folder: Path) -> None:
    program = (
        "import sys\nfrom vlmgs_ns.guidance.backends.transformers import TransformersBackend\n"
        f"TransformersBackend({str(folder)!r}, device='cpu').check()\nassert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_training_beside_it_is_not_disturbed(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    defaults = []
    original = torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda value: (defaults.append(value), original(value)))
    before, pythons, numpys = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    asker = backend(folder, dtype=dtype)
    answers: list[Answer] = []
    worker = threading.Thread(target=lambda: answers.extend(asker.ask(questions())))
    worker.start()
    worker.join()
    texts(answers)
    asker.release()
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == pythons and np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    # Not even for a moment: it is one for all threads.
    assert set(defaults) <= {torch.float32} and torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_weights_have_the_dtype_and_rotary_frequencies_stay_exact(folder: Path) -> None:
    asker = backend(folder, dtype="bfloat16")
    assert asker.dtype == "bfloat16" and backend(folder).dtype == "float32"
    asker.ask(questions()[:1])
    model = asker._loaded.model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    frequencies = [buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")]
    assert frequencies and all(buffer.dtype == torch.float32 for buffer in frequencies)
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_questions_from_several_threads(folder: Path) -> None:
    asker = backend(folder, max_tokens=6)
    expected = texts(asker.ask(questions()))
    asker.release()
    found: dict[int, list[str | None]] = {}
    workers = [
        threading.Thread(target=lambda k=k: found.__setitem__(k, texts(asker.ask([questions()[k]]))))
        for k in range(len(questions()))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[k] for k in range(4)] == [[text] for text in expected]


def test_loading_is_quiet_and_leaves_the_settings_of_transformers(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    assert before[1]
    texts(backend(folder).ask(questions()))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("height", "width", "largest", "seen"),
    [
        (64, 96, 640, [96, 64]),
        (200, 400, 100, [96, 64]),  # shrunk to 100 x 50, then to whole patches of 32
        (70, 100, 640, [96, 64]),
    ],
)
def test_the_size_that_the_model_saw(folder: Path, height: int, width: int, largest: int, seen: list[int]) -> None:
    asker = backend(folder, max_image_size=largest, max_tokens=1)
    # A picture before it in the batch, and a second one in the question, are not it.
    before = Question("compare", "", (picture(0, 32, 160), picture(1, 32, 128)))
    answers = asker.ask([before, Question("compare", "", (picture(0, height, width), picture(1, 128, 32)))])
    assert [answer.details["seen_size"] for answer in answers][1] == seen


def test_what_numbers_count_follows_the_configuration(copy: Path) -> None:
    def after(model_type: str) -> TransformersBackend:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
        return backend(copy)

    found = {kind: after(kind).coordinates for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "other")}
    assert found == {"qwen2_vl": "thousandths", "qwen2_5_vl": "pixels", "qwen3_vl": "thousandths", "other": "thousandths"}
    assert backend(copy, coordinates="pixels").coordinates == "pixels"
    assert backend("Qwen/Qwen2.5-VL-3B-Instruct").coordinates == "pixels"  # not here: by its name


def out_of_memory_beyond(asker: TransformersBackend, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let batches of more than ``most`` fail as on a full GPU; returns the sizes tried."""
    tried: list[int] = []
    generate = asker._generate

    def limited(batch: list[Question]) -> Any:
        tried.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(batch)

    monkeypatch.setattr(asker, "_generate", limited)
    return tried


def test_too_little_memory_halves_the_batch_for_good(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = texts(backend(folder).ask(questions()))
    asker = backend(folder, batch_size=4)
    tried = out_of_memory_beyond(asker, 2, monkeypatch)
    assert texts(asker.ask(questions())) == expected
    assert texts(asker.ask(questions())) == expected
    assert tried == [4, 2, 2, 2, 2]


def test_too_little_memory_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = backend(folder, batch_size=3)
    tried = out_of_memory_beyond(asker, 0, monkeypatch)
    answers = asker.ask(questions()[:3])
    assert [answer.text for answer in answers] == [None] * 3
    assert all(answer.error.startswith("CUDA out of memory; use --pipeline.model.guidance.") for answer in answers)
    assert tried == [3, 1, 2, 1, 1] and asker.batch_size == 1


def test_a_question_that_fails_spares_the_others(folder: Path) -> None:
    bad = Question("detail", "bad", (np.zeros((4, 4), np.uint8),))
    asker = backend(folder, batch_size=5)
    good, broken, also = asker.ask([questions()[0], bad, questions()[1]])
    assert broken.text is None and "shape (4, 4)" in broken.error
    assert texts([good, also]) == texts(asker.ask(questions()[:2]))
    assert asker.batch_size == 5


def test_a_folder_that_is_no_model(tmp_path: Path, cache: Path, folder: Path) -> None:
    backend(folder).check()
    for model, reason in (
        (str(tmp_path), "has no config.json"),
        (str(tmp_path / "none"), "neither a folder nor in the hub's cache"),
        ("", "no config.json"),
    ):
        with pytest.raises(InputError, match=reason) as raised:
            backend(model).check()
        assert "--pipeline.model.guidance.backend residual" in str(raised.value)
        [answer] = backend(model).ask(questions()[:1])
        assert answer.text is None and reason in answer.error


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors.*hf download Qwen/Qwen3-VL-2B-Instruct"):
        backend(copy).check()


def test_pickled_weights_are_never_loaded(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    (copy / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, copy / "pytorch_model.bin")
    asker = backend(copy)
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        asker.check()
    [answer] = asker.ask(questions()[:1])
    assert answer.text is None and "pickled weights are never loaded" in answer.error
    # Nor where our own look at the folder overlooks it.
    monkeypatch.setattr(ours, "missing_weights", lambda model: None)
    [answer] = asker.ask(questions()[:1])
    assert answer.text is None and "no file named model.safetensors" in answer.error
    assert not (tmp_path / "exploded").exists()


def test_code_in_a_folder_is_never_run(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'exploded')!r}).touch()\nclass Config: pass\n")
    [answer] = backend(copy).ask(questions()[:1])
    assert answer.text is None and "could not be loaded" in answer.error
    assert not (tmp_path / "exploded").exists()


def test_incomplete_weights_are_refused_rather_than_filled_at_random(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file(
        {key: value for key, value in weights.items() if key != name}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    [answer] = backend(copy).ask(questions()[:1])
    assert answer.text is None and "its weights lack 1 tensors" in answer.error and "up_proj" in answer.error


def test_weights_in_several_files(folder: Path, copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    names = sorted(weights)
    index: dict[str, str] = {}
    for k in range(2):
        part = {name: weights[name] for name in names[k::2]}
        save_file(part, copy / f"model-{k}.safetensors", metadata={"format": "pt"})
        index |= dict.fromkeys(part, f"model-{k}.safetensors")
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert missing_weights(str(copy)) is None
    assert texts(backend(copy).ask(questions()[:1])) == texts(backend(folder).ask(questions()[:1]))
    (copy / "model-1.safetensors").unlink()
    assert "lacks 1 of 2 files of weights, e.g. model-1.safetensors" in missing_weights(str(copy))
    (copy / "model.safetensors.index.json").write_text("[]")
    assert "cannot be read" in missing_weights(str(copy))


def into_cache(folder: Path, cache: Path, name: str = "owner/tiny") -> Path:
    """The model as a download leaves it in the hub's cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    return Path(shutil.copytree(folder, repository / "snapshots" / "abc123"))


def test_a_model_in_the_cache_of_the_hub(folder: Path, cache: Path) -> None:
    assert find_folder("owner/tiny") is None
    missing = backend("owner/tiny")
    with pytest.raises(InputError, match="hf download Qwen/Qwen3-VL-2B-Instruct") as raised:
        missing.check()
    assert str(cache) in str(raised.value) and "--pipeline.model.guidance.download True" in str(raised.value)
    snapshot = into_cache(folder, cache)
    assert find_folder("owner/tiny") == snapshot
    there = backend("owner/tiny")
    there.check()
    assert there.name == "transformers owner/tiny" and there.fingerprint != missing.fingerprint
    assert texts(there.ask(questions()[:1])) == texts(backend(folder).ask(questions()[:1]))


def test_nothing_is_downloaded_unless_asked_for(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> None:
        asked.append((name, allow_patterns))
        into_cache(folder, cache, name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    [answer] = backend("owner/tiny").ask(questions()[:1])
    assert answer.text is None and "neither a folder nor in the hub's cache" in answer.error and asked == []
    asker = backend("owner/tiny", download=True)
    asker.check()
    assert asked == []
    for _ in range(2):
        texts(asker.ask(questions()[:1]))
        asker.release()
    [(name, patterns)] = asked
    assert name == "owner/tiny" and not {"*.py", "*.bin"} & set(patterns)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_check_refuses_what_this_machine_lacks(folder: Path) -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device here; use auto or cpu"):
        backend(folder, device="cuda").check()
    [answer] = backend(folder, device="cuda").ask(questions()[:1])
    assert answer.text is None and "could not be loaded" in answer.error
    assert backend(folder, device="auto").device == "cpu"
    with pytest.raises(InputError, match="quantization 4bit: works on CUDA, and the model is to run on cpu; use none"):
        backend(folder, quantization="4bit").check()


def test_check_knows_whether_bitsandbytes_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes is not installed; use none, or: pip install bitsandbytes"):
        backend(folder, device="cuda", quantization="8bit").check()
    backend(folder, device="cuda").check()


def test_the_fingerprint_tells_apart_what_replies_depend_on(folder: Path, copy: Path, tmp_path: Path) -> None:
    def fingerprint(model: Path = folder, **settings: Any) -> str:
        return backend(model, **settings).fingerprint

    assert fingerprint() == fingerprint(batch_size=1, download=True)
    others = [
        {"dtype": "bfloat16"},
        {"max_tokens": 9},
        {"max_image_size": 9},
        {"quantization": "4bit"},
        {"coordinates": "pixels"},
    ]
    assert len({fingerprint(), fingerprint(device="cuda"), *(fingerprint(**settings) for settings in others)}) == len(others) + 2
    before = fingerprint(copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint(copy) != before


def test_the_tiny_model_has_the_tokens_of_the_real_one(folder: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    assert type(processor).__name__ == "Qwen3VLProcessor"
    text = "".join(SPECIAL) + "ab é\n"
    ids = processor.tokenizer(text).input_ids
    assert len(ids) == len(SPECIAL) + len("ab é\n".encode()) and processor.tokenizer.decode(ids) == text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(folder: Path) -> None:
    asker = TransformersBackend(str(folder), max_tokens=TOKENS)
    assert (asker.device, asker.dtype) == ("cuda", "bfloat16")
    asker.check()
    before = torch.cuda.memory_allocated()
    state = torch.cuda.get_rng_state()
    assert all(answer.text is not None for answer in asker.ask(questions()))
    assert {(p.device.type, p.dtype) for p in asker._loaded.model.parameters()} == {("cuda", torch.bfloat16)}
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert torch.cuda.memory_allocated() > before
    asker.release()
    assert torch.cuda.memory_allocated() <= before
    # In float32 it says what it says on the CPU.
    exact = backend(folder, device="cuda", dtype="float32", max_tokens=6)
    assert texts(exact.ask(questions())) == texts(backend(folder, max_tokens=6).ask(questions()))
