"""The rasteriser against its slow twin, hand-computed cases, and the laws of alpha blending."""

from __future__ import annotations

import inspect
import itertools
import math
import threading

import pytest
import torch

from tests.rasterize.extremes import difference
from tests.rasterize.scenes import Scene, flat_splats, random_scene
from tests.rasterize.twin import twin_rasterization
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.threads import get_num_threads, set_num_threads

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")


def render(scene: Scene, width: int, height: int, **settings):
    return rasterization(*scene.tensors(), width, height, **settings)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


CASES = {
    "rgb": dict(sh_degree=3),
    "degree 0": dict(sh_degree=0),
    "degree 2 of 3": dict(sh_degree=2),
    "antialiased": dict(sh_degree=1, rasterize_mode="antialiased"),
    "rgb and depth": dict(sh_degree=3, render_mode="RGB+D"),
    "rgb and expected depth": dict(sh_degree=3, render_mode="RGB+ED"),
    "depth": dict(render_mode="D", channels=3),
    "expected depth": dict(render_mode="ED", channels=3),
    "features": dict(channels=7, background=True),
    "background": dict(sh_degree=3, background=True),
    "three cameras": dict(sh_degree=3, cameras=3, background=True),
    "saturated": dict(sh_degree=1, opacity=1.0, size=0.5),
    "uneven size": dict(sh_degree=1, width=37, height=21),
    "one pixel": dict(sh_degree=1, width=1, height=1),
    "large and small": dict(sh_degree=1, size=0.3, count=80),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_image_and_every_gradient_equal_the_twin(case: str, seed: int) -> None:
    options = dict(CASES[case])
    width, height = options.pop("width", 48), options.pop("height", 32)
    cameras = options.pop("cameras", 1)
    scene = random_scene(
        seed, options.pop("count", 60), width, height, cameras=cameras, opacity=options.pop("opacity", 0.9),
        size=options.pop("size", 0.12), colors=options.pop("channels", 0),
    )  # fmt: skip
    ours, theirs = scene.tensors(), scene.tensors(torch.float64)
    g = torch.Generator().manual_seed(seed + 100)
    backgrounds = [None, None]
    if options.pop("background", False):
        channels = scene.colors.shape[-1]
        floor = torch.rand(cameras, channels, generator=g)
        backgrounds = [floor.clone().requires_grad_(), floor.double().requires_grad_()]

    image, alphas, info = rasterization(*ours, width, height, absgrad=True, backgrounds=backgrounds[0], **options)
    info["means2d"].retain_grad()
    twin = twin_rasterization(*theirs, width, height, backgrounds=backgrounds[1], **options)
    twin.means2d.retain_grad()
    sound = ~twin.fragile
    assert sound.float().mean() > 0.5  # else this compares nothing
    assert relative_error(image[sound], twin.image[sound]) < 2e-5
    assert relative_error(alphas[sound], twin.alphas[sound]) < 2e-5

    weight = torch.randn(image.shape, generator=g) * sound[..., None]
    alpha_weight = torch.randn(alphas.shape, generator=g) * sound[..., None]
    ((image * weight).sum() + (alphas * alpha_weight).sum()).backward()
    ((twin.image * weight).sum() + (twin.alphas * alpha_weight).sum()).backward()
    for name, a, b in zip(NAMES[:6], ours, theirs, strict=False):
        if b.grad is not None:  # colours have none in depth modes
            assert relative_error(a.grad, b.grad) < 2e-4, name
    per_pixel = twin.means2d.grad
    if per_pixel.abs().max() > 0:
        assert relative_error(info["means2d"].grad, per_pixel.sum(1)) < 2e-4
        assert relative_error(info["means2d"].absgrad, per_pixel.abs().sum(1)) < 2e-4
    if backgrounds[0] is not None:
        assert relative_error(backgrounds[0].grad, backgrounds[1].grad) < 2e-5


def test_one_gaussian_by_hand() -> None:
    """At its centre alpha is the opacity; one standard deviation away it is opacity·exp(-1/2)."""
    scene = flat_splats([(8.5, 8.5)], [3.0], [0.6], [2.0], 20, 20)
    image, alphas, info = render(scene, 20, 20, eps2d=0.0, backgrounds=torch.tensor([[0.25]]))
    assert info["radii"].tolist() == [[9]] or info["radii"].tolist() == [[10]]  # 3 sigma, rounded up
    assert math.isclose(alphas[0, 8, 8, 0], 0.6, abs_tol=1e-5)
    assert math.isclose(image[0, 8, 8, 0], 0.6 + 0.4 * 0.25, abs_tol=1e-5)
    assert math.isclose(alphas[0, 8, 11, 0], 0.6 * math.exp(-0.5), abs_tol=1e-5)
    assert math.isclose(alphas[0, 11, 11, 0], 0.6 * math.exp(-1.0), abs_tol=1e-5)
    assert alphas[0, 19, 19, 0] == 0.0  # 0.6·exp(-13.4) < 1/255


def test_two_gaussians_blend_front_to_back_by_hand() -> None:
    scene = flat_splats([(8.5, 8.5), (8.5, 8.5)], [3.0, 3.0], [0.5, 0.8], [4.0, 2.0], 16, 16)
    image, alphas, _ = render(scene, 16, 16, eps2d=0.0)
    assert torch.allclose(image[0, 8, 8], torch.tensor([0.2 * 0.5, 0.8]), atol=1e-5)  # the second is in front
    assert math.isclose(alphas[0, 8, 8, 0], 1 - 0.2 * 0.5, abs_tol=1e-5)


def test_a_splat_that_would_close_the_pixel_is_left_out_by_hand() -> None:
    """Opacity 1 counts as 0.999; after one, T = 1e-3; a second would leave 1e-6 <= 1e-4, so it and all behind are left out."""
    scene = flat_splats([(8.5, 8.5)] * 3, [3.0] * 3, [1.0, 1.0, 0.5], [1.0, 2.0, 3.0], 16, 16)
    image, alphas, _ = render(scene, 16, 16, eps2d=0.0)
    assert torch.allclose(image[0, 8, 8], torch.tensor([0.999, 0.0, 0.0]), atol=1e-6)
    assert math.isclose(alphas[0, 8, 8, 0], 0.999, abs_tol=1e-6)


def test_opacity_gradient_by_hand() -> None:
    """d image / d opacity at the centre is colour - background; where alpha is capped at 0.999 it is zero."""
    for opacity, slope in ((0.6, 0.75), (1.0, 0.0)):
        tensors = flat_splats([(8.5, 8.5)], [0.5], [opacity], [2.0], 17, 17).tensors()
        image, _, _ = rasterization(*tensors, 17, 17, eps2d=0.0, backgrounds=torch.tensor([[0.25]]))
        image[0, 8, 8, 0].backward()
        assert math.isclose(tensors[3].grad.item(), slope, abs_tol=1e-5)


def test_no_gaussians_give_the_background() -> None:
    scene = random_scene(0, 0, 20, 20, colors=2)
    image, alphas, info = render(scene, 20, 20, backgrounds=torch.tensor([[0.5, 0.25]]))
    assert (image == torch.tensor([0.5, 0.25])).all() and (alphas == 0).all()
    assert info["radii"].shape == (1, 0) and len(info["flatten_ids"]) == 0
    image.sum().backward()


def test_no_cameras_give_no_pictures() -> None:
    tensors = random_scene(0, 5, 20, 20).tensors()
    tensors[5], tensors[6] = torch.zeros(0, 4, 4, requires_grad=True), torch.zeros(0, 3, 3)
    image, alphas, info = rasterization(*tensors, 20, 24, sh_degree=3, render_mode="RGB+D", absgrad=True)
    assert image.shape == (0, 24, 20, 4) and alphas.shape == (0, 24, 20, 1)
    assert info["radii"].shape == (0, 5) and info["means2d"].shape == (0, 5, 2)
    image.sum().backward()
    assert all((t.grad == 0).all() for t in tensors[:5])


def test_arguments_stand_in_gsplats_order() -> None:
    gsplat = pytest.importorskip("gsplat.rendering")
    theirs, ours = (inspect.signature(function).parameters for function in (gsplat.rasterization, rasterization))
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in list(theirs.items()):
        if name != "packed":  # only False here
            assert ours[name].default == parameter.default, name
    assert all(ours[name].kind == inspect.Parameter.KEYWORD_ONLY for name in ours.keys() - theirs.keys())


@pytest.mark.parametrize("seed", range(12))
def test_scenes_of_any_size_equal_the_twin(seed: int) -> None:
    assert difference(seed) < 1e-5


@pytest.mark.parametrize("where", ["behind", "beside"])
def test_what_is_not_seen_gets_no_radius_and_no_gradient(where: str) -> None:
    tensors = random_scene(3, 30, 32, 32).tensors()
    with torch.no_grad():
        if where == "behind":
            tensors[0][:, 2] = -3.0 - tensors[0][:, 2].abs()
        else:
            tensors[0][:, 0] = 1000.0
    image, alphas, info = rasterization(*tensors, 32, 32, sh_degree=3, absgrad=True)
    assert (alphas == 0).all() and (info["radii"] == 0).all()
    image.sum().backward()
    assert all((t.grad == 0).all() for t in tensors[:6])


def test_more_than_256_gaussians_on_one_pixel() -> None:
    n = 600
    scene = flat_splats([(8.5, 8.5)] * n, [2.0] * n, [0.01] * n, [1 + i / n for i in range(n)], 16, 16)
    _, alphas, _ = render(scene, 16, 16, eps2d=0.0)
    assert math.isclose(alphas[0, 8, 8, 0], 1 - 0.99**n, abs_tol=1e-4)


def test_a_splat_on_a_tile_border_is_whole() -> None:
    """Moved by whole pixels over a border of tiles, a splat keeps its picture."""
    pictures = []
    for x, y in ((24.5, 24.5), (32.5, 16.5), (16.0 + 16.5, 31.5)):
        _, alphas, _info = render(flat_splats([(x, y)], [1.5], [0.9], [2.0], 64, 64), 64, 64, eps2d=0.0)
        c, r = int(x), int(y)
        pictures.append(alphas[0, r - 6 : r + 7, c - 6 : c + 7, 0])
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5) and torch.allclose(pictures[0], pictures[2], atol=1e-5)
    assert pictures[0][6, 6] > 0.89 and (pictures[0][6] > 0).sum() >= 9


def test_order_of_the_gaussians_does_not_matter() -> None:
    scene = random_scene(5, 200, 64, 48)
    shuffle = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    moved = Scene(*(getattr(scene, n)[shuffle] for n in NAMES[:5]), scene.viewmats, scene.Ks)
    assert torch.equal(render(scene, 64, 48, sh_degree=2)[0], render(moved, 64, 48, sh_degree=2)[0])


def test_a_list_of_cameras_equals_one_at_a_time() -> None:
    scene = random_scene(6, 100, 48, 32, cameras=3)
    together = render(scene, 48, 32, sh_degree=3)[0]
    for c in range(3):
        one = Scene(*(getattr(scene, n) for n in NAMES[:5]), scene.viewmats[c : c + 1], scene.Ks[c : c + 1])
        assert torch.equal(render(one, 48, 32, sh_degree=3)[0][0], together[c])


def test_lists_of_tiles_are_sorted_by_depth_and_agree_with_their_counts() -> None:
    _, _, info = render(random_scene(7, 300, 80, 48, cameras=2), 80, 48, sh_degree=0)
    depths, ids = info["depths"].flatten().detach(), info["flatten_ids"].long()
    starts = [*info["isect_offsets"].flatten().tolist(), len(ids)]
    for begin, end in itertools.pairwise(starts):
        assert (depths[ids[begin:end]].diff() >= 0).all()
    assert torch.equal(torch.bincount(ids, minlength=600), info["tiles_per_gauss"].flatten().long())


def test_compact_box_is_exact_at_one_and_lighter_below() -> None:
    scene = random_scene(8, 400, 96, 80, size=0.25)
    plain, at_one, below = (render(scene, 96, 80, sh_degree=3, compact_box=b) for b in (None, 1.0, 0.5))
    assert torch.equal(plain[0], at_one[0])
    assert 0 < len(below[2]["flatten_ids"]) < len(at_one[2]["flatten_ids"])
    assert 0 < (plain[0] - below[0]).abs().max() < 0.5  # it is an approximation, and not an empty picture


def test_compact_box_keeps_exactly_the_tiles_that_meet_the_ellipse() -> None:
    scene, beta = random_scene(9, 60, 96, 80, size=0.2), 0.5
    _, _, info = render(scene, 96, 80, sh_degree=0, compact_box=beta)
    starts = [*info["isect_offsets"].flatten().tolist(), len(info["flatten_ids"])]
    v, u = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    for n in torch.nonzero(info["radii"][0] > 0).flatten().tolist():
        x, y = info["means2d"][0, n].tolist()
        a, b, c = info["conics"][0, n].tolist()
        q = beta * 2 * math.log(255 * info["opacities"][0, n].item())
        inside = a * (u - x) ** 2 + 2 * b * (u - x) * (v - y) + c * (v - y) ** 2 <= q
        meets = inside.reshape(5, 16, 6, 16).any(3).any(1).flatten()
        kept = torch.tensor([n in info["flatten_ids"][i:j].tolist() for i, j in itertools.pairwise(starts)])
        in_box = torch.zeros(5, 6, dtype=torch.bool)
        r = info["radii"][0, n].item()
        in_box[
            max(0, math.floor((y - r) / 16)) : math.ceil((y + r) / 16), max(0, math.floor((x - r) / 16)) : math.ceil((x + r) / 16)
        ] = True
        assert (kept | ~(meets & in_box.flatten())).all()  # none is missing
        assert (kept & ~meets).sum() <= 2  # an ellipse may slip between pixel centres


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    scene, count = random_scene(10, 9000, 160, 120, size=0.03), get_num_threads()

    def everything() -> list[torch.Tensor]:
        tensors = scene.tensors()
        floor = torch.full((1, 3), 0.5, requires_grad=True)
        image, alphas, info = rasterization(*tensors, 160, 120, sh_degree=3, absgrad=True, backgrounds=floor)
        info["means2d"].retain_grad()
        (image.square().sum() + alphas.sum()).backward()
        grads = [t.grad for t in tensors[:6]] + [floor.grad, info["means2d"].grad, info["means2d"].absgrad]
        return [image.detach(), alphas.detach(), *grads]

    reference = everything()
    set_num_threads(threads)
    try:
        assert all(torch.equal(a, b) for a, b in zip(reference, everything(), strict=True))
    finally:
        set_num_threads(count)


def test_several_threads_may_render_at_once() -> None:
    scene = random_scene(11, 2000, 96, 64, size=0.05)
    expected = render(scene, 96, 64, sh_degree=3)[0]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(10):
            image = render(scene, 96, 64, sh_degree=3)[0]
            image.sum().backward()
            if not torch.equal(image, expected):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads) and not wrong


def test_gsplats_strategy_grows_and_prunes_on_our_info() -> None:
    """The info dict is what gsplat's own DefaultStrategy reads; a run of it must densify without a complaint."""
    from gsplat import DefaultStrategy

    scene = random_scene(12, 50, 48, 48, colors=3)
    params = {
        "means": scene.means, "scales": scene.scales.log(), "quats": scene.quats, "opacities": scene.opacities.logit(),
        "features": scene.colors,
    }  # fmt: skip
    params = {k: torch.nn.Parameter(v.clone()) for k, v in params.items()}
    optimizers = {k: torch.optim.Adam([p], lr=1e-3) for k, p in params.items()}
    strategy = DefaultStrategy(refine_start_iter=2, refine_every=3, grow_grad2d=1e-9, absgrad=True, verbose=False)
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(8):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(), params["features"],
            scene.viewmats, scene.Ks, 48, 48, absgrad=True,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        image.square().mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info)
    assert len(params["means"]) > 50


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_one_error_that_names_the_parameter(name: str) -> None:
    scene = random_scene(13, 10, 16, 16)
    getattr(scene, name).view(-1)[3] = float("nan")
    with pytest.raises(ValueError, match=rf"^{name} has 1 of"):
        render(scene, 16, 16, sh_degree=3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(sh_degree=4), "sh_degree=4"),
        (dict(packed=True), "packed"),
        (dict(distributed=True), "distributed"),
        (dict(camera_model="fisheye"), "camera_model='fisheye'"),
        (dict(covars=torch.zeros(10, 3, 3)), "covars"),
        (dict(tile_size=8), "tile_size=8"),
        (dict(render_mode="XYZ"), "XYZ"),
        (dict(compact_box=0.0), "compact_box=0.0"),
        (dict(rasterize_mode="blurred"), "blurred"),
        (dict(backgrounds=torch.zeros(1, 5)), "backgrounds"),
        (dict(sh_degree=None, colors_2d=True), "colors"),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    settings = {"sh_degree": 3, **settings}
    scene = random_scene(14, 10, 16, 16)
    if settings.pop("colors_2d", False):
        scene.colors = torch.zeros(7, 3)
    with pytest.raises(ValueError, match=words):
        render(scene, 16, 16, **settings)


def test_wrong_shape_and_type_are_named() -> None:
    tensors = random_scene(15, 10, 16, 16).tensors()
    with pytest.raises(ValueError, match="quats has shape"):
        rasterization(tensors[0], tensors[1][:5], *tensors[2:], 16, 16, sh_degree=3)
    with pytest.raises(ValueError, match=r"scales is torch\.float64"):
        rasterization(*tensors[:2], tensors[2].double(), *tensors[3:], 16, 16, sh_degree=3)
    with pytest.raises(ValueError, match="width=0"):
        rasterization(*tensors, 0, 16, sh_degree=3)
