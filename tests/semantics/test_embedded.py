"""Names of embedded encoders, and the phrases in an encoder's folder."""

from __future__ import annotations

from pathlib import Path

from vlmgs_ns.semantics.embedded import EMBEDDED, model_folder, taught_phrases


def test_only_the_embedded_name_stands_for_a_folder() -> None:
    assert model_folder("ViT-B-16") == "ViT-B-16"
    assert (Path(model_folder(EMBEDDED)) / "open_clip_config.json").is_file()
    assert (Path(model_folder(EMBEDDED, "dino")) / "preprocessor_config.json").is_file()


def test_phrases_are_read_from_the_encoder_s_folder(tmp_path: Path) -> None:
    assert {"table", "ball", "rug"} <= set(taught_phrases(EMBEDDED))
    assert taught_phrases("ViT-B-16") == [] == taught_phrases(str(tmp_path))
    (tmp_path / "phrases.json").write_text('["a lamp"]')
    assert taught_phrases(str(tmp_path)) == ["a lamp"]
