"""Each reader against files that are written here in its data set's format, and against the same files with one thing wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmgs_ns.evaluation.labels import Keyframe, LabelledObject, LabelledScene, LabelledView, merged
from vlmgs_ns.evaluation.lerf import read_lerf
from vlmgs_ns.evaluation.lerf_ovs import polygon_mask, read_lerf_ovs
from vlmgs_ns.evaluation.threed_ovs import read_3d_ovs
from vlmgs_ns.evaluation.toy_labels import read_toy
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene

Edit = Callable[[Any], None]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def mask_of(view: LabelledView, phrase: str) -> np.ndarray:
    (thing,) = (thing for thing in view.objects if thing.phrase == phrase)
    assert thing.mask is not None
    return thing.mask()


# LERF's boxes


def labelme() -> dict[str, Any]:
    def box(label: str, a: list[float], b: list[float]) -> dict[str, Any]:
        return {"label": label, "points": [a, b], "group_id": None, "shape_type": "rectangle", "flags": {}}

    return {
        "version": "5.2.0",
        "imagePath": "rgb_0.jpg",
        "imageData": None,
        "imageWidth": 200,
        "imageHeight": 100,
        "shapes": [box("egg", [20, 10], [60, 30]), box("bowl", [150, 90], [100, 50]), box("egg ", [0, 0], [20, 100.5])],
    }


def test_lerf_boxes(tmp_path: Path) -> None:
    write(tmp_path / "ramen" / "rgb_0.json", labelme())
    write(tmp_path / "ramen" / "path.json", {"camera_path": []})
    scene = read_lerf(tmp_path / "ramen")
    assert (scene.name, scene.phrases, scene.background) == ("ramen", ("bowl", "egg"), ())
    assert scene.settings == {"labels": "lerf"}
    (view,) = scene.views
    assert (view.image, view.stem, view.width, view.height) == ("rgb_0.jpg", "rgb_0", 200, 100)
    egg, bowl = view.objects
    assert egg == LabelledObject("egg", ((0.1, 0.1, 0.3, 0.3), (0.0, 0.0, 0.1, 1.0)))
    assert bowl == LabelledObject("bowl", ((0.5, 0.5, 0.75, 0.9),))


def keyframes(count: int) -> dict[str, Any]:
    """A path as nerfstudio's viewer of early 2023 saved it; the k-th camera stands at (k, 0, 2)."""
    matrices = [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, k, 0, 2, 1] for k in range(count)]
    frames = [{"matrix": json.dumps(matrix), "properties": '[["FOV", 40],["NAME","Camera"],["TIME",0]]'} for matrix in matrices]
    return {"keyframes": frames, "camera_path": [], "render_width": 1920, "render_height": 1080}


def test_lerf_keyframes(tmp_path: Path) -> None:
    write(tmp_path / "keyframes.json", keyframes(3))
    write(tmp_path / "2_rgb.json", labelme())
    (view,) = read_lerf(tmp_path).views
    assert view.keyframe == Keyframe(((1, 0, 0, 2), (0, 1, 0, 0), (0, 0, 1, 2)), 40)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["keyframes"].pop(), "none of its 2 is that of 2_rgb.json"),
        (lambda c: c["keyframes"][2].update(matrix="[1, 2"), r"keyframes\[2\].matrix is .* is not JSON"),
        (lambda c: c["keyframes"][2].update(matrix="[1, 2]"), "a pose must be 16 numbers"),
        (lambda c: c["keyframes"][2].update(properties='[["NAME", "Camera"]]'), "has no pair of FOV"),
        (lambda c: c["keyframes"][2].update(fov=180), "between 0 and 180 degrees"),
    ],
)
def test_a_fault_in_lerf_keyframes_is_told(tmp_path: Path, edit: Edit, message: str) -> None:
    content = keyframes(3)
    edit(content)
    write(tmp_path / "keyframes.json", content)
    write(tmp_path / "2_rgb.json", labelme())
    with pytest.raises(InputError, match=message):
        read_lerf(tmp_path)


def test_the_picture_may_be_named_by_a_path_of_any_system(tmp_path: Path) -> None:
    content = labelme()
    content["imagePath"] = "..\\images\\rgb_0.jpg"
    write(tmp_path / "rgb_0.json", content)
    assert read_lerf(tmp_path).views[0].image == "rgb_0.jpg"


LERF_FAULTS: list[tuple[Edit, str]] = [
    (lambda c: c.pop("shapes"), "shapes is missing"),
    (lambda c: c.update(shapes={}), r"shapes is {}, but must be a list"),
    (lambda c: c.update(shapes=[]), "labels nothing in 1 views"),
    (lambda c: c.update(imageWidth=0), "imageWidth is 0, but must be a whole number"),
    (lambda c: c.update(imageWidth=True), "imageWidth is True, but must be a number"),
    (lambda c: c.update(imageHeight="100"), "imageHeight is '100', but must be a number"),
    (lambda c: c.update(imageWidth=10**6, imageHeight=10**6), "larger than 268,435,456"),
    (lambda c: c.update(imagePath="  "), "imagePath is '  ', but must be text"),
    (lambda c: c["shapes"][1].update(label=7), r"shapes\[1\].label is 7, but must be text"),
    (
        lambda c: c["shapes"][1].update(shape_type="polygon"),
        r"shapes\[1\].shape_type is 'polygon', but a box must be a rectangle",
    ),
    (lambda c: c["shapes"][0].update(points=[[1, 1]]), r"shapes\[0\].points is \[\[1, 1\]\], but a rectangle has two"),
    (lambda c: c["shapes"][0]["points"].__setitem__(0, [1]), r"points\[0\] is \[1\], but a corner must be \[x, y\]"),
    (lambda c: c["shapes"][0]["points"].__setitem__(0, [-2, 1]), r"\(-2, 1\) lies outside the picture of 200 x 100"),
    (lambda c: c["shapes"][0]["points"].__setitem__(1, [1, 102]), r"\(1, 102\) lies outside the picture"),
    (lambda c: c["shapes"][0]["points"].__setitem__(1, [20, 30]), "a box without any area"),
    (lambda c: c["shapes"].__setitem__(0, 3), r"shapes\[0\] is 3, but must be an object"),
]


@pytest.mark.parametrize(("edit", "message"), LERF_FAULTS)
def test_a_fault_in_lerf_labels_is_told(tmp_path: Path, edit: Edit, message: str) -> None:
    content = labelme()
    edit(content)
    path = write(tmp_path / "rgb_0.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_lerf(tmp_path)
    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "must be an object"),
        (b'{"imageWidth": NaN}', "NaN is not a number"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_told(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "rgb_0.json").write_bytes(text)
    with pytest.raises(InputError, match=message) as error:
        read_lerf(tmp_path)
    assert "rgb_0.json" in str(error.value)


@pytest.mark.parametrize("read", [read_lerf, read_lerf_ovs])
def test_a_folder_without_labels_is_told(tmp_path: Path, read: Callable[[Path], LabelledScene]) -> None:
    with pytest.raises(InputError, match="holds no json file"):
        read(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        read(tmp_path / "ramen")


def test_a_view_that_is_labelled_twice_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.json", labelme())
    with pytest.raises(InputError, match="'rgb_0' is there twice"):
        read_lerf(tmp_path)


# LERF-OVS polygons


def isat() -> dict[str, Any]:
    def thing(category: str, outline: list[list[float]], box: list[float]) -> dict[str, Any]:
        return {"category": category, "group": 1, "segmentation": outline, "bbox": box, "area": 1, "iscrowd": False, "note": ""}

    return {
        "info": {
            "description": "ISAT",
            "folder": "",
            "name": "frame_00041.jpg",
            "width": 20,
            "height": 10,
            "depth": 3,
            "note": "",
        },
        "objects": [
            thing("egg", [[1, 1], [4, 1], [4, 3], [1, 3]], [1, 1, 4, 3]),
            thing("bowl", [[10.9, 2.9], [12.1, 2.2], [12.8, 4.4]], [12.8, 4.4, 10.9, 2.2]),
            thing("egg", [[4, 3], [6, 3], [6, 5], [4, 5]], [4, 3, 6, 5]),
        ],
    }


def test_lerf_ovs_polygons(tmp_path: Path) -> None:
    write(tmp_path / "ramen" / "frame_00041.json", isat())
    scene = read_lerf_ovs(tmp_path / "ramen")
    assert (scene.name, scene.phrases, scene.settings) == ("ramen", ("bowl", "egg"), {"labels": "lerf-ovs"})
    (view,) = scene.views
    assert (view.image, view.width, view.height) == ("frame_00041.jpg", 20, 10)
    egg, bowl = view.objects
    assert egg.boxes == ((0.05, 0.1, 0.2, 0.3), (0.2, 0.3, 0.3, 0.5))
    assert bowl.boxes == (pytest.approx((0.545, 0.22, 0.64, 0.44)),)
    # The outline's pixels are inside: 4 x 3, and 3 x 3 that share one.
    expected = np.zeros((10, 20), bool)
    expected[1:4, 1:5] = expected[3:6, 4:7] = True
    assert np.array_equal(mask_of(view, "egg"), expected)
    # Corners fall to the pixels (10, 2), (12, 2) and (12, 4).
    assert {(int(x), int(y)) for y, x in np.argwhere(mask_of(view, "bowl"))} == {
        (10, 2),
        (11, 2),
        (12, 2),
        (11, 3),
        (12, 3),
        (12, 4),
    }


def test_a_corner_on_the_edge_of_the_picture_is_cut_there() -> None:
    assert polygon_mask([(0, 0), (4, 0), (4, 3), (0, 3)], 4, 3).all()


def test_a_polygon_is_even_odd_where_it_crosses_itself() -> None:
    # A five-pointed star: the pentagon in its middle is surrounded twice.
    angles = np.pi / 2 + np.arange(5) * 4 * np.pi / 5
    star = polygon_mask([(50 + 45 * np.cos(a), 50 - 45 * np.sin(a)) for a in angles], 100, 100)
    assert not star[50, 50]
    assert star[15, 50]
    with pytest.raises(ValueError, match="2 corners enclose nothing"):
        polygon_mask([(0, 0), (1, 1)], 4, 4)


OVS_FAULTS: list[tuple[Edit, str]] = [
    (lambda c: c.pop("info"), "info is missing"),
    (lambda c: c["info"].pop("name"), "info.name is missing"),
    (lambda c: c["info"].update(height=2.5), "info.height is 2.5, but must be a whole number"),
    (lambda c: c["info"].update(width=8), "lies outside the picture of 8 x 10 pixels"),
    (
        lambda c: c["objects"][0].update(segmentation=[[1, 1], [2, 2]]),
        r"objects\[0\].segmentation is .* 2 corners enclose nothing",
    ),
    (lambda c: c["objects"][0].update(segmentation=[1, 1, 2, 2, 3, 3]), r"segmentation\[0\] is 1, but must be a list"),
    (lambda c: c["objects"][0]["segmentation"].__setitem__(2, [4, "3"]), r"segmentation\[2\]\[1\] is '3', but must be a number"),
    (lambda c: c["objects"][2].update(bbox=[1, 2, 3]), r"objects\[2\].bbox is \[1, 2, 3\], but a box must be"),
    (lambda c: c["objects"][2].update(bbox=[1, 2, 30, 4]), r"\(30, 4\) lies outside the picture of 20 x 10"),
    (lambda c: c["objects"][2].update(bbox=[1, 2, 1, 4]), "a box without any area"),
    (lambda c: c["objects"][1].update(category=""), r"objects\[1\].category is '', but must be text"),
]


@pytest.mark.parametrize(("edit", "message"), OVS_FAULTS)
def test_a_fault_in_lerf_ovs_labels_is_told(tmp_path: Path, edit: Edit, message: str) -> None:
    content = isat()
    edit(content)
    path = write(tmp_path / "frame_00041.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_lerf_ovs(tmp_path)
    assert str(path) in str(error.value)


# 3D-OVS masks

BANANA = np.zeros((6, 8), np.uint8)
BANANA[1:3, 2:5] = 255


@pytest.fixture
def bed(tmp_path: Path) -> Path:
    """A scene of three pictures, of which two have masks; the banana is not in the second."""
    root = tmp_path / "bed"
    (root / "images").mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (16, 12)).save(root / "images" / f"{k:02d}.jpg")
    for frame, banana in (("00", BANANA), ("02", np.zeros_like(BANANA))):
        folder = root / "segmentations" / frame
        folder.mkdir(parents=True)
        Image.fromarray(banana).save(folder / "banana.png")
        Image.fromarray(np.stack([255 - banana] * 3, axis=-1)).save(folder / "white sheet.png")
    (root / "segmentations" / "classes.txt").write_text("white sheet\nbanana \n\n", encoding="utf-8")
    return root


def test_3d_ovs_masks(bed: Path) -> None:
    (bed / "segmentations" / ".DS_Store").write_bytes(b"")
    scene = read_3d_ovs(bed)
    assert (scene.name, scene.phrases, scene.settings) == ("bed", ("white sheet", "banana"), {"labels": "3d-ovs"})
    assert [(view.image, view.width, view.height) for view in scene.views] == [("00.jpg", 8, 6), ("02.jpg", 8, 6)]
    first, second = scene.views
    assert [thing.boxes for thing in first.objects] == [(), ()]
    assert np.array_equal(mask_of(first, "banana"), BANANA > 0)
    assert np.array_equal(mask_of(first, "white sheet"), BANANA == 0)
    assert not mask_of(second, "banana").any()
    assert mask_of(second, "white sheet").all()


def test_half_white_is_inside(bed: Path) -> None:
    Image.fromarray(np.tile(np.array([0, 127, 128, 255], np.uint8), (6, 2))).save(bed / "segmentations" / "00" / "banana.png")
    assert mask_of(read_3d_ovs(bed).views[0], "banana")[0, :4].tolist() == [False, False, True, True]


def test_frames_are_numbers_in_order_of_names(bed: Path) -> None:
    for k in range(3):
        (bed / "images" / f"{k:02d}.jpg").rename(bed / "images" / f"IMG_{7 + k}.jpg")
    assert [view.image for view in read_3d_ovs(bed).views] == ["IMG_7.jpg", "IMG_9.jpg"]


OVS3D_FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda r: (r / "segmentations" / "classes.txt").unlink(), "classes.txt cannot be read"),
    (lambda r: (r / "segmentations" / "classes.txt").write_text("\n"), "classes.txt names no class"),
    (lambda r: (r / "segmentations" / "classes.txt").write_bytes(b"\xff\xfe\xff"), "classes.txt is not text"),
    (
        lambda r: (r / "segmentations" / "classes.txt").write_text("banana\n"),
        "white sheet.png is of a class that classes.txt does not",
    ),
    (lambda r: (r / "segmentations" / "classes.txt").write_text("banana\nbanana\nwhite sheet"), "'banana' is there twice"),
    (lambda r: (r / "segmentations" / "00" / "banana.png").unlink(), "00 has no mask banana.png"),
    (lambda r: (r / "segmentations" / "00" / "banana.png").write_bytes(b"PNG"), "banana.png cannot be read as a picture"),
    (lambda r: Image.new("L", (9, 6)).save(r / "segmentations" / "00" / "banana.png"), "has (9|8) x 6 pixels, but another mask"),
    (lambda r: (r / "segmentations" / "02").rename(r / "segmentations" / "03"), "is named '03', but .* number, 0 to 2"),
    (lambda r: (r / "segmentations" / "02").rename(r / "segmentations" / "b"), "is named 'b', but"),
    (lambda r: (r / "images" / "01.jpg").unlink(), r"is named '02', but"),
    (
        lambda r: (r / "images" / "00.jpg").rename(r / "images" / "03.jpg"),
        "means picture number 2 .* 03.jpg, but another is called 02",
    ),
    (lambda r: shutil.rmtree(r / "images"), "images holds no pictures"),
    (lambda r: [shutil.rmtree(r / "segmentations" / f) for f in ("00", "02")], "labels nothing in 0 views"),
]


@pytest.mark.parametrize(("damage", "message"), OVS3D_FAULTS)
def test_a_fault_in_3d_ovs_labels_is_told(bed: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(bed)
    with pytest.raises(InputError, match=message) as error:
        read_3d_ovs(bed)
    assert str(bed) in str(error.value)


def test_a_class_that_looks_like_a_path_reads_no_file_elsewhere(bed: Path) -> None:
    shutil.copy(bed / "segmentations" / "00" / "banana.png", bed / "banana.png")
    (bed / "segmentations" / "classes.txt").write_text("white sheet\nbanana\n../../banana\n")
    with pytest.raises(InputError, match=r"has no mask \.\./\.\./banana\.png"):
        read_3d_ovs(bed)


def test_a_truncated_mask_is_told_when_it_is_asked_for(bed: Path) -> None:
    path = bed / "segmentations" / "00" / "banana.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    scene = read_3d_ovs(bed)
    with pytest.raises(InputError, match=r"banana\.png cannot be read as a picture"):
        mask_of(scene.views[0], "banana")


# The embedded scene


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "room"
    write_scene(out, seed=3, views=8, width=64, height=48, held_out=3, points=100)
    return out


def labels_of(room: Path) -> dict[str, Any]:
    return json.loads((room / "labels.json").read_text(encoding="utf-8"))


def test_the_embedded_scene(room: Path) -> None:
    labels = labels_of(room)
    scene = read_toy(room)
    assert len(scene.views) == 3
    assert scene.phrases == tuple(entry["name"] for entry in labels["objects"])
    assert scene.background == tuple(labels["background"])
    assert scene.settings == {"labels": "toy", "split": "val"}
    for view in scene.views:
        entry = labels["views"][f"images/{view.image}"]
        assert entry["split"] == "val"
        assert [thing.phrase for thing in view.objects] == list(entry["boxes"])
        for thing in view.objects:
            mask = mask_of(view, thing.phrase)
            assert mask.sum() == entry["visible_pixels"][thing.phrase]
            # The box is the tightest around the mask.
            ((x1, y1, x2, y2),) = thing.boxes
            rows, columns = np.nonzero(mask)
            assert (columns.min() / 64, rows.min() / 48) == pytest.approx((x1, y1))
            assert ((columns.max() + 1) / 64, (rows.max() + 1) / 48) == pytest.approx((x2, y2))


TOY_FAULTS: list[tuple[Edit, str]] = [
    (lambda c: c.update(writer="me"), "is not of version 1 by 'vlmgs scene'"),
    (lambda c: c.update(version=2), "is not of version 1"),
    (lambda c: c.update(masks="../elsewhere"), "masks is '../elsewhere', but must be the name of a folder"),
    (lambda c: c.update(masks=".."), "masks is '..', but must be the name of a folder"),
    (lambda c: c["objects"][0].update(name="cat"), "'wooden table' is none of the objects"),
    (lambda c: c["objects"][1].update(name="wooden table"), r"objects\[1\].name is 'wooden table', but another object"),
    (lambda c: c["objects"][1].update(id=0), r"objects\[1\].id is 0, but must be a whole number"),
    (lambda c: c["background"].append("wooden table"), "'wooden table' is there twice"),
    (lambda c: [v["boxes"].update({"wooden table": [1, 2, 3]}) for v in c["views"].values()], "a box must be"),
    (lambda c: [v["boxes"].update({"wooden table": [0, 0, 66, 9]}) for v in c["views"].values()], r"\(66, 9\) lies outside"),
    (
        lambda c: [v["visible_pixels"].pop("wooden table", 0) for v in c["views"].values()],
        r"visible_pixels.wooden table is missing",
    ),
    (
        lambda c: c["views"].update({"images/frame_9.png": {**c["views"]["images/frame_00001.png"], "split": "val"}}),
        "frame_9.png is missing",
    ),
    (lambda c: [v.update(split="train") for v in c["views"].values()], "has no view of split 'val'"),
]


@pytest.mark.parametrize(("edit", "message"), TOY_FAULTS)
def test_a_fault_in_the_embedded_scene_is_told(room: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    content = labels_of(room)
    edit(content)
    write(tmp_path / "labels.json", content)
    shutil.copytree(room / "masks_instance", tmp_path / "masks_instance")
    with pytest.raises(InputError, match=message) as error:
        read_toy(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_masks_that_do_not_belong_to_the_labels_are_told(room: Path, tmp_path: Path) -> None:
    shutil.copy(room / "labels.json", tmp_path)
    shutil.copytree(room / "masks_instance", tmp_path / "masks_instance")
    view = read_toy(tmp_path).views[0]
    thing = view.objects[0]
    path = tmp_path / "masks_instance" / view.image
    Image.new("L", (64, 48)).save(path)
    with pytest.raises(InputError, match=r"shows object 1 in 0 pixels, but labels\.json says"):
        mask_of(view, thing.phrase)
    Image.new("L", (48, 64)).save(path)
    with pytest.raises(InputError, match="has 48 x 64 pixels, but its view has 64 x 48"):
        mask_of(view, thing.phrase)


# What all of them share


def test_objects_of_one_phrase_become_one() -> None:
    left, right = np.array([[True, False, False]]), np.array([[False, False, True]])
    one, other = (0.0, 0.0, 0.3, 1.0), (0.7, 0.0, 1.0, 1.0)
    ball, cube = merged(
        [
            LabelledObject("ball", (one,), lambda: left),
            LabelledObject("cube", (one,)),
            LabelledObject("ball", (other,), lambda: right),
        ]
    )
    assert (ball.phrase, ball.boxes) == ("ball", (one, other))
    assert ball.mask is not None
    assert ball.mask().tolist() == [[True, False, True]]
    assert cube == LabelledObject("cube", (one,))


def test_names_in_a_scene_are_unique_and_known() -> None:
    view = LabelledView("a.jpg", 4, 3, (LabelledObject("ball"),))
    twice = LabelledView("a.jpg", 4, 3, (LabelledObject("ball"), LabelledObject("ball")))
    with pytest.raises(ValueError, match=r"phrase in view a\.jpg 'ball' is there twice"):
        LabelledScene("s", (twice,), ("ball",))
    with pytest.raises(ValueError, match="view of scene s 'a' is there twice"):
        LabelledScene("s", (view, LabelledView("a.png", 4, 3, ())), ("ball",))
    with pytest.raises(ValueError, match="'ball' of scene s is not in its label set"):
        LabelledScene("s", (view,), ("cube",))
