"""Photos of a folder as the reconstruction reads them: upright, of bounded size, one JPEG each."""

from __future__ import annotations

import re
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif"}
QUALITY = 95
"""JPEG quality of photos that are turned, scaled or converted; others are copied as they are."""


ORIENTATION = 0x0112
"""EXIF tag that says how the camera was held; 1: upright."""


def photo_files(folder: Path) -> list[Path]:
    """Return the photos of a folder, in the order of the numbers in their names."""
    photos = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    return sorted(photos, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])


def copy_photos(files: list[Path], folder: Path, longest: int) -> dict[str, str]:
    """Write upright JPEGs of at most ``longest`` pixels into a folder; those that it has already are left as they are.

    Returns:
        Names of the files that cannot be read, and why.
    """
    _open_heic(files)
    unreadable: dict[str, str] = {}
    names = jpeg_names(files)
    with bar("Reading photos", len(files)) as report:
        for done, (file, name) in enumerate(zip(files, names, strict=True), start=1):
            if not (folder / name).is_file():
                try:
                    with replacing(folder / name) as partial:
                        _copy(file, partial, longest)
                except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise  # of the disk, not of the photo
                    unreadable[file.name] = str(error).replace(str(file), file.name)
            report(done)
    return unreadable


def jpeg_names(files: list[Path]) -> list[str]:
    """Return the name of each photo's copy: its own, without spaces, with the suffix .jpg; where two are alike, numbered."""
    names: list[str] = []
    for file in files:
        stem = re.sub(r"\s+", "_", file.stem)
        alike = sum(name == f"{stem}.jpg" or name.startswith(f"{stem}__") for name in names)
        names.append(f"{stem}__{alike + 1}.jpg" if alike else f"{stem}.jpg")
    return names


def _copy(file: Path, to: Path, longest: int) -> None:
    with Image.open(file) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        as_it_is = image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(ORIENTATION, 1) == 1
        if as_it_is and max(image.size) <= longest:
            shutil.copyfile(file, to)
            return
        # The focal length that a camera wrote there is a better first guess than none.
        exif = upright.getexif()
        upright.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        jpeg = BytesIO()  # PIL does not say of a file that it is the disk that is full
        upright.convert("RGB").save(jpeg, "JPEG", quality=QUALITY, exif=exif)
    to.write_bytes(jpeg.getvalue())


def _open_heic(files: list[Path]) -> None:
    """Teach PIL the format of iPhones' photos, where there are any.

    Raises:
        InputError: names the package that is missing.
    """
    if not any(file.suffix.lower() in (".heic", ".heif") for file in files):
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(
            'the photos are HEIC files, but pillow-heif is not installed; pip install "vlmgs-ns[prepare]", or convert them'
        ) from None
    register_heif_opener()
