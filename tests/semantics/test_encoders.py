"""Encoders with tiny random models of the real classes: plumbing alone, nothing here says anything about accuracy."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.semantics.tiny_models import CLIP, DINOS, MEAN, STD, put_in_hub_cache, save_clip, save_dino
from vlmgs_ns.semantics.clip_files import KNOWN, OPENAI_MEAN, OPENAI_STD
from vlmgs_ns.semantics.encoders import DinoEncoder, OpenClipEncoder
from vlmgs_ns.semantics.hybrid import hybrid_map
from vlmgs_ns.system.errors import InputError


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and an empty cache of Hugging Face's."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    hub = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    return hub


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    save_clip(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp("models") / kind for kind in DINOS}
    for kind, folder in folders.items():
        save_dino(folder, kind)
    return folders


def clip(folder: Path, **settings: Any) -> OpenClipEncoder:
    return OpenClipEncoder(str(folder), **{"device": "cpu", **settings})


def dino(folder: Path, **settings: Any) -> DinoEncoder:
    return DinoEncoder(str(folder), **{"device": "cpu", "shorter_side": 32, **settings})


def pictures(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


# --- CLIP


def test_pictures_and_phrases_are_what_open_clip_makes_of_them(clip_folder: Path, tmp_path: Path) -> None:
    model = save_clip(tmp_path / "same")  # the same seed
    encoder = clip(clip_folder)
    seen = pictures(5)
    pixels = (seen - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    phrases = ["red ball", "a wooden table, seen from above"]
    tokens = open_clip.SimpleTokenizer(context_length=16)(phrases)
    with torch.no_grad():
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoder.embed_images(seen), images)
    torch.testing.assert_close(encoder.embed_texts(phrases), texts)
    assert (encoder.name, encoder.dimension, encoder.tile_size) == ("tiny-clip", 16, 32)


def test_vectors_are_unit_float32_without_gradients_and_batches_change_nothing(clip_folder: Path) -> None:
    encoder, single = clip(clip_folder, batch_size=3), clip(clip_folder, batch_size=1)
    seen, phrases = pictures(7), [f"thing {k}" for k in range(7)]
    for got, one in (
        (encoder.embed_images(seen), single.embed_images(seen)),
        (encoder.embed_texts(phrases), single.embed_texts(phrases)),
    ):
        assert got.shape == (7, 16) and got.dtype == torch.float32 and not got.requires_grad and not got.is_inference()
        torch.testing.assert_close(got, one, atol=1e-6, rtol=0)
        torch.testing.assert_close(got.norm(dim=-1), torch.ones(7))
    assert encoder.embed_images(seen[:0]).shape == encoder.embed_texts([]).shape == (0, 16)


def test_a_lower_precision_is_used_where_asked_for_and_answers_in_float32(clip_folder: Path) -> None:
    exact, rough = clip(clip_folder), clip(clip_folder, dtype="bfloat16")
    got = rough.embed_images(pictures(4))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact.embed_images(pictures(4)), atol=0.03, rtol=0)
    assert not torch.equal(got, exact.embed_images(pictures(4)))
    assert (rough.embed_texts(["cup"]) * exact.embed_texts(["cup"])).sum() > 0.99


def test_clip_is_loaded_on_first_use_and_released(clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    encoder = clip(folder)
    before = encoder.embed_texts(["cup"])
    weights = folder / "open_clip_model.safetensors"
    weights.rename(tmp_path / "away")
    torch.testing.assert_close(encoder.embed_texts(["cup"]), before)  # still loaded
    encoder.release()
    encoder.release()
    with pytest.raises(InputError, match=r"open_clip_model.safetensors"):
        encoder.embed_texts(["cup"])
    (tmp_path / "away").rename(weights)
    torch.testing.assert_close(encoder.embed_texts(["cup"]), before)


def test_the_hybrid_map_of_a_real_clip_class(clip_folder: Path) -> None:
    encoder = clip(clip_folder)
    got = hybrid_map(pictures(1, 40, 60)[0], encoder.embed_images, encoder.tile_size, scales=2, smallest=0.3)
    assert got.shape[2] == 16 and got.shape[1] > got.shape[0]
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(got.shape[:2]))


def test_fingerprints_follow_weights_and_settings(clip_folder: Path, tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[Path], object]) -> str:
        folder = tmp_path / name / "tiny-clip"
        shutil.copytree(clip_folder, folder)
        change(folder)
        return clip(folder).fingerprint

    def one_number(folder: Path) -> None:
        weights = load_file(folder / "open_clip_model.safetensors")
        weights["visual.proj"][0, 0] += 1e-3
        save_file(weights, folder / "open_clip_model.safetensors")

    def normalisation(folder: Path) -> None:
        content = json.loads((folder / "open_clip_config.json").read_text())
        content["preprocess_cfg"]["mean"][0] += 0.01
        (folder / "open_clip_config.json").write_text(json.dumps(content))

    own = clip(clip_folder).fingerprint
    assert own == changed("copy", lambda folder: (folder / "README.md").write_text("about")) and "tiny-clip" in own
    others = [changed("number", one_number), changed("mean", normalisation), clip(clip_folder, dtype="bfloat16").fingerprint]
    assert len({own, *others}) == 4
    assert clip(clip_folder, batch_size=1).fingerprint == own


def test_a_name_and_a_tag_come_from_the_local_hub_cache(
    clip_folder: Path, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-arch.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / "tiny-arch.json")
    tag = {"hf_hub": "someone/tiny/", "mean": tuple(MEAN), "std": tuple(STD), "quick_gelu": False}
    tags = {"small": tag, "quick": {**tag, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-arch", tags)
    with pytest.raises(InputError) as caught:
        OpenClipEncoder("tiny-arch", "small")
    for part in (
        "tiny-arch (small)",
        'hf download someone/tiny --include "open_clip*"',
        str(alone),
        "--local-dir",
        "To do without",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    put_in_hub_cache(alone, "someone/tiny", clip_folder)
    expected = clip(clip_folder).embed_images(pictures(2))
    for encoder in (OpenClipEncoder("tiny-arch", "small", device="cpu"), OpenClipEncoder("hf-hub:someone/tiny", device="cpu")):
        torch.testing.assert_close(encoder.embed_images(pictures(2)), expected)
    quick = OpenClipEncoder("tiny-arch", "quick", device="cpu")
    assert not torch.allclose(quick.embed_images(pictures(2)), expected)  # the activation that these weights were trained with
    assert quick.fingerprint.split()[-1] != OpenClipEncoder("tiny-arch", "small").fingerprint.split()[-1]

    # A file of weights beside a name has open_clip's own normalisation.
    from_file = OpenClipEncoder("tiny-arch", str(clip_folder / "open_clip_model.safetensors"), device="cpu")
    back = torch.tensor(open_clip.OPENAI_DATASET_STD) / torch.tensor(STD)
    shifted = (pictures(2) - torch.tensor(MEAN)[:, None, None]) * back[:, None, None]
    shifted = shifted + torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    torch.testing.assert_close(from_file.embed_images(shifted), expected, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"'none_such' is neither .* those are: small, quick"):
        OpenClipEncoder("tiny-arch", "none_such")


def test_the_default_models_say_what_to_download(alone: Path) -> None:
    with pytest.raises(InputError, match=r"hf download laion/CLIP-ViT-B-16-laion2B-s34B-b88K --include .open_clip\*. "):
        OpenClipEncoder()
    with pytest.raises(InputError, match=r"hf download facebook/dino-vits8 "):
        DinoEncoder()
    with pytest.raises(InputError, match=r"hf download someone/clip "):
        OpenClipEncoder("hf-hub:someone/clip")
    with pytest.raises(InputError, match=r"names near it: .*ViT-B-16"):
        OpenClipEncoder("ViT-B-61")


def test_what_is_known_without_open_clip_is_what_open_clip_says() -> None:
    for (model, tag), repo in KNOWN.items():
        assert open_clip.get_pretrained_cfg(model, tag)["hf_hub"] == f"{repo}/"
    assert (OPENAI_MEAN, OPENAI_STD) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def test_a_tokenizer_of_hugging_face_is_read_beside_the_weights_or_named(tmp_path: Path) -> None:
    config = {**CLIP, "text_cfg": {**CLIP["text_cfg"], "hf_tokenizer_name": "someone/words", "vocab_size": 10}}
    save_clip(tmp_path / "clip", config=config)
    with pytest.raises(InputError, match=r"the tokenizer of clip .*hf download someone/words"):
        clip(tmp_path / "clip")
    words = {"[PAD]": 0, "[UNK]": 1, "red": 2, "ball": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path / "clip")
    encoder = clip(tmp_path / "clip")
    got = encoder.embed_texts(["red ball", "ball red", "red", "blue ball", "green ball"])
    torch.testing.assert_close(got[3], got[4])  # both words are unknown
    assert not torch.allclose(got[0], got[1]) and not torch.allclose(got[0], got[2])


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


def test_pickles_are_never_run(clip_folder: Path, dino_folders: dict[str, Path], tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for source, name, use in (
        (clip_folder, "open_clip_pytorch_model.bin", lambda folder: clip(folder).embed_texts(["cup"])),
        (dino_folders["dino"], "pytorch_model.bin", lambda folder: dino(folder).embed(pictures(1)[0])),
    ):
        folder = tmp_path / name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        torch.save({"a": Trap(sprung)}, folder / name)
        with pytest.raises(InputError, match=r"download"):
            use(folder)
        (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
        with pytest.raises(InputError, match=r"download"):
            use(folder)
    assert not sprung.exists()


def test_plain_tensors_in_an_old_file_are_read(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(clip_folder / "open_clip_model.safetensors"), tmp_path / "old" / "open_clip_pytorch_model.bin")
    torch.testing.assert_close(clip(tmp_path / "old").embed_images(pictures(2)), clip(clip_folder).embed_images(pictures(2)))


def test_folders_and_weights_that_do_not_fit_are_one_error(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs open_clip_config.json and open_clip_model.safetensors"):
        clip(tmp_path)
    shutil.copytree(clip_folder, tmp_path / "other")
    content = {"model_cfg": {**CLIP, "embed_dim": 8}}
    (tmp_path / "other" / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"are not those of other") as caught:
        clip(tmp_path / "other").embed_texts(["cup"])
    assert "\n" not in str(caught.value)
    for broken, says in (("{", "is not JSON"), ("[]", "does not hold a JSON object"), ("{}", "no model_cfg")):
        (tmp_path / "other" / "open_clip_config.json").write_text(broken)
        with pytest.raises(InputError, match=says):
            clip(tmp_path / "other")


def test_wrong_calls_are_refused(clip_folder: Path, dino_folders: dict[str, Path]) -> None:
    encoder = clip(clip_folder)
    with pytest.raises(ValueError, match=r"\[B, 3, 32, 32\], not \[1, 3, 16, 32\]"):
        encoder.embed_images(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match=r"give \['red ball'\]"):
        encoder.embed_texts("red ball")
    with pytest.raises(ValueError, match=r"\[3, H, W\], not \[32, 32, 3\]"):
        dino(dino_folders["dino"]).embed(torch.zeros(32, 32, 3))
    for make in (clip, dino):
        folder = clip_folder if make is clip else dino_folders["dino"]
        with pytest.raises(InputError, match=r"dtype int8 .*float16"):
            make(folder, dtype="int8")
        with pytest.raises(InputError, match=r"device gpu .*auto, cpu or cuda"):
            make(folder, device="gpu")
    with pytest.raises(InputError, match=r"shorter_side is 0"):
        dino(dino_folders["dino"], shorter_side=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"torch sees no CUDA device"):
        OpenClipEncoder(str(clip_folder), device="cuda")
    assert OpenClipEncoder(str(clip_folder)).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_clip_runs_in_half_precision_and_answers_on_the_cpu(clip_folder: Path, dino_folders: dict[str, Path]) -> None:
    encoder, dense = OpenClipEncoder(str(clip_folder)), DinoEncoder(str(dino_folders["dino"]), shorter_side=32)
    for got, expected in (
        (encoder.embed_images(pictures(3).cuda()), clip(clip_folder).embed_images(pictures(3))),
        (encoder.embed_texts(["cup"]), clip(clip_folder).embed_texts(["cup"])),
        (dense.embed(pictures(1)[0].cuda()), dino(dino_folders["dino"]).embed(pictures(1)[0])),
    ):
        assert got.device.type == "cpu" and got.dtype == torch.float32
        torch.testing.assert_close(got, expected, atol=1e-2, rtol=0)
    held = torch.cuda.memory_allocated()
    encoder.release()
    dense.release()
    assert torch.cuda.memory_allocated() < held


# --- DINO


def manual_keys(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Keys of ViT's second and last layer by its own weights, step by step; [1, 1 + patches, 32]."""
    x = model.embeddings(pixels, interpolate_pos_encoding=True)
    x = model.layers[0](x)
    last = model.layers[1]
    x = F.layer_norm(x, (32,), last.layernorm_before.weight, last.layernorm_before.bias, model.config.layer_norm_eps)
    return x @ last.attention.k_proj.weight.T + last.attention.k_proj.bias


def test_the_map_holds_the_last_layers_keys(tmp_path: Path) -> None:
    model = save_dino(tmp_path / "dino", preprocess={"image_mean": MEAN, "image_std": STD})
    picture = pictures(1, 32, 48)[0]  # already of the right size: nothing is scaled
    pixels = (picture - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = manual_keys(model, pixels[None])[0, 1:].reshape(4, 6, 32)
    got = dino(tmp_path / "dino").embed(picture)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert got.dtype == torch.float32 and not got.requires_grad


def test_without_stated_normalisation_it_is_imagenets(dino_folders: dict[str, Path], tmp_path: Path) -> None:
    stated = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    save_dino(tmp_path / "dino", preprocess=stated)
    save_dino(tmp_path / "other", preprocess={"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    plain = dino(dino_folders["dino"]).embed(pictures(1)[0])
    torch.testing.assert_close(dino(tmp_path / "dino").embed(pictures(1)[0]), plain)
    assert not torch.allclose(dino(tmp_path / "other").embed(pictures(1)[0]), plain)


@pytest.mark.parametrize("kind", sorted(DINOS))
@pytest.mark.parametrize(
    ("shape", "shorter_side", "grid"),
    [((32, 32), 32, (4, 4)), ((64, 96), 32, (4, 6)), ((96, 64), 32, (6, 4)), ((30, 50), 60, (8, 12)), ((10, 3), 4, (2, 1))],
)
def test_any_shape_gives_a_grid_of_whole_patches(
    dino_folders: dict[str, Path], kind: str, shape: tuple[int, int], shorter_side: int, grid: tuple[int, int]
) -> None:
    got = dino(dino_folders[kind], shorter_side=shorter_side).embed(pictures(1, *shape)[0])
    assert got.shape == (*grid, 32) and got.isfinite().all()


@pytest.mark.parametrize("kind", sorted(DINOS))
def test_cells_lie_where_their_patch_is(dino_folders: dict[str, Path], kind: str) -> None:
    """A change in one patch changes its own vector most, so rows, columns and special tokens are not mixed up."""
    encoder = dino(dino_folders[kind])
    before = torch.full((3, 32, 48), 0.5)
    after = before.clone()
    after[:, 8:16, 32:40] = pictures(1, 8, 8)[0]
    moved = (encoder.embed(after) - encoder.embed(before)).norm(dim=-1)
    assert divmod(int(moved.argmax()), 6) == (1, 4)
    assert moved.flatten().sort().values[-1] > 3 * moved.flatten().sort().values[-2]


def test_dino_is_loaded_on_first_use_and_released(dino_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "dino"
    shutil.copytree(dino_folders["dino"], folder)
    encoder = dino(folder)
    before = encoder.embed(pictures(1)[0])
    shutil.move(folder / "model.safetensors", tmp_path / "away")
    torch.testing.assert_close(encoder.embed(pictures(1)[0]), before)
    encoder.release()
    with pytest.raises(InputError, match=r"cannot be loaded"):
        encoder.embed(pictures(1)[0])


def test_dino_by_name_comes_from_the_local_hub_cache(dino_folders: dict[str, Path], alone: Path) -> None:
    put_in_hub_cache(alone, "someone/dino", dino_folders["dinov2"])
    encoder = DinoEncoder("someone/dino", device="cpu", shorter_side=32)
    torch.testing.assert_close(encoder.embed(pictures(1)[0]), dino(dino_folders["dinov2"]).embed(pictures(1)[0]))
    assert encoder.name == "someone/dino" and encoder.dimension == 32


def test_dino_fingerprints_and_precision(dino_folders: dict[str, Path], tmp_path: Path) -> None:
    save_dino(tmp_path / "dino", seed=1)
    own = dino(dino_folders["dino"])
    rough = dino(dino_folders["dino"], dtype="bfloat16")
    prints = {
        encoder.fingerprint for encoder in (own, rough, dino(tmp_path / "dino"), dino(dino_folders["dino"], shorter_side=40))
    }
    assert len(prints) == 4 and dino(dino_folders["dino"]).fingerprint == own.fingerprint
    got = rough.embed(pictures(1)[0])
    assert got.dtype == torch.float32 and not torch.equal(got, own.embed(pictures(1)[0]))
    torch.testing.assert_close(got, own.embed(pictures(1)[0]), atol=0.05, rtol=0.05)


def test_incomplete_or_other_models_are_one_error(dino_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs config.json and model.safetensors"):
        dino(tmp_path)
    folder = tmp_path / "dino"
    shutil.copytree(dino_folders["dino"], folder)
    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "key.weight" in name or "k_proj.weight" in name)
    save_file({name: value for name, value in weights.items() if name != dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 tensors"):  # transformers would make up random ones
        dino(folder).embed(pictures(1)[0])
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(InputError, match=r"not a vision transformer"):
        dino(folder)
