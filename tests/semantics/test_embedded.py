"""Names of embedded encoders, and the scenes that they know."""

from __future__ import annotations

from pathlib import Path

from vlmgs_ns.semantics.embedded import EMBEDDED, caution, model_folder, things_in
from vlmgs_ns.toy.scene import write_scene
from vlmgs_ns.toy.tiny import tiny_clip_folder


def test_only_the_embedded_name_stands_for_a_folder() -> None:
    assert model_folder("ViT-B-16") == "ViT-B-16"
    assert (Path(model_folder(EMBEDDED)) / "open_clip_config.json").is_file()
    assert (Path(model_folder(EMBEDDED, "dino")) / "preprocessor_config.json").is_file()


def test_the_embedded_encoder_is_of_no_use_outside_its_rooms(tmp_path: Path) -> None:
    room, photos, run = tmp_path / "room", tmp_path / "my photos", tmp_path / "run"
    write_scene(room, views=2, width=24, height=18, held_out=1, points=9, supersample=1)
    photos.mkdir()
    assert len(things_in(room)) > 3 and things_in(photos) == []
    for clip in (EMBEDDED, str(tiny_clip_folder())):
        assert caution(clip, room, run) == "" == caution("ViT-B-16", photos, run)
        said = caution(clip, photos, run)
        assert f"--data '{photos}' --load-dir {run / 'nerfstudio_models'} --max-num-iterations 0" in said
        assert "noise" in said and "hf download" in said and "\n" not in said
    (photos / "labels.json").write_text('{"writer": "another"}')
    assert things_in(photos) == [] and caution(EMBEDDED, photos, run)
