from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prepare.disk import largest_file
from vlmgs_ns.prepare.photos import ORIENTATION, copy_photos, jpeg_names, photo_files


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Return a picture whose left half is red."""
    colours = np.zeros((height, width, 3), np.uint8)
    colours[:, : width // 2, 0] = 255
    return Image.fromarray(colours)


def test_photos_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.PNG", "2 b.jpeg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in photo_files(tmp_path)] == ["2 b.jpeg", "9.PNG", "10.jpg"]


def test_copies_have_names_of_their_own_without_spaces() -> None:
    files = [Path(name) for name in ("a b.jpg", "a_b.png", "Küche 1.heic", "c.jpg")]
    assert jpeg_names(files) == ["a_b.jpg", "a_b__2.jpg", "Küche_1.jpg", "c.jpg"]


def test_an_upright_jpeg_is_copied_to_the_byte(tmp_path: Path) -> None:
    source, out = tmp_path / "a.jpg", tmp_path / "out"
    out.mkdir()
    picture().save(source, quality=80)
    assert copy_photos([source], out, 40) == {} and (out / "a.jpg").read_bytes() == source.read_bytes()


def test_a_turned_photo_is_set_upright_and_keeps_its_focal_length(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was held a quarter turn to the left: what is left in the file is at the top
    exif[0x0110] = "a camera"
    picture().save(tmp_path / "a.jpg", exif=exif, quality=95)
    out = tmp_path / "out"
    out.mkdir()
    copy_photos([tmp_path / "a.jpg"], out, 40)
    with Image.open(out / "a.jpg") as turned:
        colours = np.asarray(turned).astype(int)
        assert turned.size == (30, 40) and turned.getexif().get(ORIENTATION, 1) == 1 and turned.getexif()[0x0110] == "a camera"
    assert colours[:15, :, 0].min() > 200 and colours[25:, :, 0].max() < 50


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_other_formats_become_jpegs_of_bounded_size(tmp_path: Path, mode: str) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    picture(80, 60).convert(mode).save(tmp_path / name)
    out = tmp_path / "out"
    out.mkdir()
    assert copy_photos([tmp_path / name], out, 40) == {}
    with Image.open(out / "a.jpg") as made:
        assert (made.format, made.mode, made.size) == ("JPEG", "RGB", (40, 30))


def test_what_cannot_be_read_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    picture(400, 300).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("a recipe")
    out = tmp_path / "out"
    out.mkdir()
    unreadable = copy_photos(photo_files(tmp_path), out, 100)
    assert unreadable.keys() == {"half.jpg", "text.png"} and "truncated" in unreadable["half.jpg"]
    assert [path.name for path in out.iterdir()] == ["whole.jpg"]


def test_a_disk_without_room_is_no_fault_of_the_photo(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    with largest_file(5000), pytest.raises(OSError, match=r"File too large: .* of it were written, .* are free"):
        copy_photos([tmp_path / "a.png"], out, 1000)
    assert list(out.iterdir()) == []


def test_a_heic_photo_is_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(picture(64, 48)).save(tmp_path / "a.heic", quality=90)
    out = tmp_path / "out"
    out.mkdir()
    assert copy_photos([tmp_path / "a.heic"], out, 100) == {}
    with Image.open(out / "a.jpg") as made:
        assert made.size == (64, 48) and np.asarray(made)[:, :20, 0].min() > 180
