"""A CLIP and a DINO feature for every Gaussian from its centre: two hash grids and two small networks (FMGS, 3.2).

The size of the field does not depend on the number of Gaussians. Both heads end in a matrix: f = W h + b, and for CLIP
f / ‖f‖. Blending is linear, so instead of f one can blend its *code*, (h, 1) / ‖W h + b‖ for CLIP and (h, 1) for DINO, and apply
[W b] to the blended code: the same map from fewer channels, and a text's scores from two small products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmgs_ns.system.errors import InputError

SHORTEST = 1e-6
"""Least length by which a CLIP vector is divided."""
CHUNK = 1 << 15
"""Gaussians at a time where no gradient is wanted; the grids hold about 12 KB of corners for each at the full size."""

Implementation = Literal["torch", "tcnn", "auto"]


@dataclass
class FieldConfig:
    """Sizes of the field. The defaults are FMGS' own."""

    levels: int = 12
    """Levels of each of the two hash grids."""
    features_per_level: int = 8
    """Features at each level."""
    log2_hashmap_size: int = 19
    """Logarithm to base 2 of the number of entries of a level's table."""
    coarse: tuple[int, int] = (16, 128)
    """Resolution of the first grid, from its first to its last level, over the contracted cube."""
    fine: tuple[int, int] = (128, 512)
    """Resolution of the second grid."""
    clip_hidden: int = 256
    """Width of the CLIP head's hidden layers."""
    clip_layers: int = 4
    """Number of the CLIP head's hidden layers."""
    clip_dim: int = 512
    """Dimensions of a CLIP feature."""
    dino_hidden: int = 256
    """Width of the DINO head's one hidden layer."""
    dino_dim: int = 384
    """Dimensions of a DINO feature."""
    implementation: Implementation = "torch"
    """Hash grids by torch, which run on any device, or by tiny-cuda-nn (CUDA; its checkpoints load only there). "auto" takes
    tiny-cuda-nn where it is installed and there is a GPU."""


LITE = FieldConfig(levels=6, log2_hashmap_size=13, clip_hidden=64, clip_layers=2, dino_hidden=64)
"""For a CPU: 0.9 M parameters instead of 101 M, because every step of the optimiser passes over all of them."""


def contract(
    means: Tensor,  # [N, 3]
) -> Tensor:
    """Map space into the unit cube: L2 contraction into a ball of radius 2 (mip-NeRF 360), then (x + 2) / 4. [N, 3] in [0, 1].

    Points up to distance 1 from the origin keep their proportions, so centre and scale the scene before.
    """
    distance = torch.linalg.vector_norm(means, dim=-1, keepdim=True).clamp_min(1.0)
    return (means * ((2 - 1 / distance) / distance) + 2) / 4


class Head(nn.Module):
    """Hidden layers with ReLU, then a matrix; optionally unit vectors."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int, unit: bool) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * layers
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [nn.Linear(before, after), nn.ReLU()]
        self.trunk = nn.Sequential(*steps)
        self.output = nn.Linear(widths[-1], outputs)
        self.unit = unit

    @property
    def code_size(self) -> int:
        """Channels of a code: the hidden layer's and one for the bias."""
        return self.output.in_features + 1

    def forward(
        self,
        features: Tensor,  # [N, inputs]
    ) -> Tensor:
        """[N, outputs]."""
        out = self.output(self.trunk(features))
        return F.normalize(out, dim=-1, eps=SHORTEST) if self.unit else out

    def code(
        self,
        features: Tensor,  # [N, inputs]
    ) -> Tensor:
        """Return codes, which `decode` maps to this head's outputs by one matrix. [N, code_size]."""
        hidden = self.trunk(features)
        code = F.pad(hidden, (0, 1), value=1.0)
        if not self.unit:
            return code
        lengths = torch.linalg.vector_norm(self.output(hidden), dim=-1, keepdim=True)
        return code / lengths.clamp_min(SHORTEST)

    def decode(
        self,
        codes: Tensor,  # [..., code_size]
    ) -> Tensor:
        """Return outputs of codes, or of any linear combination of codes. [..., outputs]."""
        return F.linear(codes[..., :-1], self.output.weight) + codes[..., -1:] * self.output.bias

    def scores(
        self,
        codes: Tensor,  # [..., code_size]
        vectors: Tensor,  # [T, outputs]
    ) -> Tensor:
        """Return ⟨decode(codes), vector⟩ without decoding. [..., T]."""
        matrix = torch.cat([self.output.weight, self.output.bias[:, None]], dim=1)  # [outputs, code_size]
        return codes @ (vectors @ matrix).T


class SemanticField(nn.Module):
    """CLIP and DINO features at points in the world. Points receive no gradient: the geometry is frozen.

    Args:
        config: sizes.
        centre: of the scene, world coordinates; moved to the origin.
        scale: radius of the scene's inner part, world units; what lies within is not contracted.

    Raises:
        InputError: the configuration names tiny-cuda-nn, which cannot run here.
        ValueError: a scale that is not positive.
    """

    centre: Tensor  # [3]
    scale: Tensor  # []

    def __init__(self, config: FieldConfig, centre: Sequence[float] | Tensor = (0.0, 0.0, 0.0), scale: float = 1.0) -> None:
        from nerfstudio.field_components.encodings import HashEncoding

        if not scale > 0:
            raise ValueError(f"scale={scale}: the radius of the scene must be positive")
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32).clone())
        self.register_buffer("scale", torch.tensor(float(scale)))
        implementation = hash_implementation(config.implementation)
        self.grids = nn.ModuleList(
            HashEncoding(
                num_levels=config.levels,
                min_res=low,
                max_res=high,
                log2_hashmap_size=config.log2_hashmap_size,
                features_per_level=config.features_per_level,
                implementation=implementation,
            )
            for low, high in (config.coarse, config.fine)
        )
        width = 2 * config.levels * config.features_per_level
        self.clip_head = Head(width, config.clip_hidden, config.clip_layers, config.clip_dim, unit=True)
        self.dino_head = Head(width, config.dino_hidden, 1, config.dino_dim, unit=False)

    def hash_features(
        self,
        means: Tensor,  # [N, 3] world
    ) -> Tensor:
        """Return both grids' features, coarse first. [N, 2 · levels · features_per_level]."""
        places = contract((means.detach() - self.centre) / self.scale)
        if places.is_cuda:
            return torch.cat([grid(places).float() for grid in self.grids], dim=-1)
        from vlmgs_ns.rasterize.jit import announce_compilation  # brings numba

        with announce_compilation():
            from vlmgs_ns.semantics.hash_grid import HashGrids
        scalings = torch.stack([grid.scalings for grid in self.grids])
        features: Tensor = HashGrids.apply(places, scalings, *[grid.hash_table for grid in self.grids])
        return features

    def clip(
        self,
        means: Tensor,  # [N, 3] world
    ) -> Tensor:
        """Return CLIP features, unit vectors. [N, clip_dim]."""
        return self.clip_head(self.hash_features(means))

    def forward(
        self,
        means: Tensor,  # [N, 3] world
    ) -> tuple[Tensor, Tensor]:
        """Return CLIP [N, clip_dim] and DINO [N, dino_dim] features, reading the grids once."""
        features = self.hash_features(means)
        return self.clip_head(features), self.dino_head(features)

    def codes(
        self,
        means: Tensor,  # [N, 3] world
    ) -> Tensor:
        """Return the codes to blend instead of features: CLIP, then DINO. [N, (clip_hidden + 1) + (dino_hidden + 1)]."""
        features = self.hash_features(means)
        return torch.cat([self.clip_head.code(features), self.dino_head.code(features)], dim=-1)

    def decode(
        self,
        codes: Tensor,  # [..., (clip_hidden + 1) + (dino_hidden + 1)]
    ) -> tuple[Tensor, Tensor]:
        """Return CLIP [..., clip_dim] and DINO [..., dino_dim] of blended `codes`: equal to blending the features."""
        clip, dino = codes.split([self.clip_head.code_size, self.dino_head.code_size], dim=-1)
        return self.clip_head.decode(clip), self.dino_head.decode(dino)

    @torch.no_grad()
    def clip_codes(
        self,
        means: Tensor,  # [N, 3] world
    ) -> Tensor:
        """Return CLIP codes, computed in chunks: keep them, and every further query is `scores`. [N, clip_hidden + 1]."""
        codes = means.new_empty(len(means), self.clip_head.code_size)
        for begin in range(0, len(means), CHUNK):
            part = slice(begin, begin + CHUNK)
            codes[part] = self.clip_head.code(self.hash_features(means[part]))
        return codes

    @torch.no_grad()
    def scores(
        self,
        clip_codes: Tensor,  # [..., clip_hidden + 1]
        texts: Tensor,  # [T, clip_dim]
    ) -> Tensor:
        """Return ⟨CLIP feature, text⟩ of Gaussians, or of pixels of a blended code. [..., T]."""
        return self.clip_head.scores(clip_codes, texts)


def hash_implementation(implementation: Implementation) -> Literal["torch", "tcnn"]:
    """Return the implementation of the hash grids, with "auto" resolved.

    Raises:
        InputError: "tcnn", but tiny-cuda-nn is not installed or there is no GPU.
    """
    if implementation == "torch":
        return "torch"
    from nerfstudio.utils.external import TCNN_EXISTS

    if TCNN_EXISTS and torch.cuda.is_available():
        return "tcnn"
    if implementation == "auto":
        return "torch"
    lacks = "no CUDA device is visible" if TCNN_EXISTS else "tiny-cuda-nn is not installed"
    raise InputError(f"the field's implementation is 'tcnn', but {lacks}: set it to 'auto' or 'torch', which runs anywhere")
