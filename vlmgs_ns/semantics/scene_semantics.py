"""What a scene's Gaussians mean, as it is kept with the model: a field or lifted features, and the words that were embedded.

From Gaussians and phrases to relevancy per Gaussian and per pixel. Phrases that the checkpoint holds need no encoder; for others
the one that looked at the photos must be on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.semantics.config import Mode
from vlmgs_ns.semantics.embedded import model_folder
from vlmgs_ns.semantics.encoders import ImageTextEncoder, OpenClipEncoder
from vlmgs_ns.semantics.field import CHUNK, FieldConfig, SemanticField
from vlmgs_ns.semantics.lifting import Lifted
from vlmgs_ns.semantics.relevancy import PcaBasis, pca_basis, pca_colours, relevancy_from_scores
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.errors import InputError

CODES_KEPT = 1 << 30
"""Bytes up to which the Gaussians' codes are kept between queries."""
SAMPLE = 1 << 14
"""Gaussians from which the basis of colours is made."""


@dataclass(frozen=True)
class About:
    """How a scene's semantics were made."""

    mode: Mode
    sizes: FieldConfig
    """With the dimensions of the encoders."""
    clip: str
    """Model, as `OpenClipEncoder` takes it."""
    clip_pretrained: str
    clip_fingerprint: str
    negatives: tuple[str, ...]
    settings: str
    """Everything that decides the result, to tell whether a checkpoint's is the one that is wanted."""


class SceneSemantics(nn.Module):
    """CLIP features of a scene's Gaussians. `from_state` builds it again from its state dict, which has an extra state.

    Args:
        about: how it is made.
        centre, scale: of the scene, as `SemanticField` takes them.
    """

    features: Tensor  # [N, d] float16, or [0, 0]
    axes: Tensor  # [d, D], or [0, 0] where features are not projected
    vectors: Tensor  # [T, D] of the phrases in `texts`

    def __init__(self, about: About, centre: Tensor | Sequence[float] = (0.0, 0.0, 0.0), scale: float = 1.0) -> None:
        super().__init__()
        self.about = about
        self.complete = False
        """Whether nothing is left to do."""
        self.step = 0
        """Rendered steps done."""
        self.moments: dict[str, Any] | None = None
        """The optimiser's state of an unfinished field."""
        self.texts: list[str] = []
        self.field: SemanticField | None = None
        if about.mode != "lift":
            # The first weights depend on nothing but the seed that the caller set.
            self.field = SemanticField(about.sizes, centre, scale)
        empty = torch.zeros(0, 0)
        self.register_buffer("features", empty.half())
        self.register_buffer("axes", empty)
        self.register_buffer("vectors", torch.zeros(0, about.sizes.clip_dim))
        self.register_buffer("pca_mean", torch.zeros(about.sizes.clip_dim))
        self.register_buffer("pca_axes", torch.zeros(about.sizes.clip_dim, 3))
        self.register_buffer("pca_spread", torch.zeros(3))
        self._encoder: ImageTextEncoder | None = None
        self._codes: tuple[Tensor, int, Tensor] | None = None  # of which means, at which version of them

    # state

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside tensors, in plain values."""
        return {
            "about": {**asdict(self.about), "sizes": asdict(self.about.sizes)},
            "complete": self.complete,
            "step": self.step,
            "moments": self.moments,
            "texts": list(self.texts),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from `get_extra_state`."""
        self.complete, self.step, self.moments = state["complete"], state["step"], state["moments"]
        self.texts = list(state["texts"])
        self._codes = None

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> SceneSemantics:
        """Return semantics with the shapes of a state dict, whose tensors are still to be loaded."""
        about = state["_extra_state"]["about"]
        sizes = FieldConfig(
            **{**about["sizes"], "coarse": tuple(about["sizes"]["coarse"]), "fine": tuple(about["sizes"]["fine"])}
        )
        scene = SceneSemantics(About(**{**about, "sizes": sizes, "negatives": tuple(about["negatives"])}))
        for name in ("features", "axes", "vectors"):
            setattr(scene, name, torch.zeros_like(state[name]))
        return scene

    def keep_lifted(self, lifted: Lifted) -> None:
        """Take over lifted features, as unit vectors, 0 where a Gaussian was not seen."""
        self.features = lifted.features.new_empty(lifted.features.shape, dtype=torch.half)
        for kept, part in zip(self.features.split(CHUNK), lifted.features.split(CHUNK), strict=True):
            kept.copy_(nn.functional.normalize(part, dim=-1))
        if lifted.projection is not None:
            self.axes = lifted.projection.axes.to(self.features.device)
        self._codes = None

    @torch.no_grad()
    def finish(self, splats: Splats) -> None:
        """Nothing will change any more: fix the colours of `pca` and drop what was needed to go on."""
        opaque = torch.nonzero(splats.opacities >= splats.opacities.median())[:, 0]
        sample = opaque[:: max(1, len(opaque) // SAMPLE)]
        basis = pca_basis(self.clip(splats.means, sample))
        self.pca_mean, self.pca_axes, self.pca_spread = basis.mean, basis.axes, basis.spread
        self.complete, self.moments = True, None
        self.prepare(splats.means)

    @torch.no_grad()
    def clip(
        self,
        means: Tensor,  # [N, 3] world, of all Gaussians
        ids: Tensor,  # [M]
    ) -> Tensor:  # [M, D]
        """Return the CLIP features of some Gaussians, of any length."""
        if self.field is not None:
            return torch.cat([self.field.clip(part) for part in means[ids].split(CHUNK)])
        rows = self.features[ids].float()
        return rows @ self.axes if self.axes.numel() else rows

    def typical(self) -> Tensor:  # [D]
        """Return the direction of the scene's mean feature; 0 where it has none."""
        return nn.functional.normalize(self.pca_mean, dim=0)

    # words

    def embed(self, phrases: Sequence[str]) -> Tensor:  # [P, D]
        """Return unit vectors of phrases; the encoder is loaded for new ones, and released.

        Raises:
            InputError: the encoder is not on this machine, or is another one than looked at the photos.
        """
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.texts]
        if new:
            encoder = self._find_encoder()
            found = encoder.embed_texts(new).to(self.vectors)
            encoder.release()
            self.vectors = torch.cat([self.vectors, found])
            self.texts += new
        return self.vectors[[self.texts.index(phrase) for phrase in phrases]]

    def embed_picture(
        self,
        picture: Tensor,  # [3, H, W] in [0, 1]
    ) -> Tensor:  # [D]
        """Return the unit vector of a picture, which is stretched to the square that the encoder takes. Raises as `embed`."""
        encoder = self._find_encoder()
        size = (encoder.tile_size, encoder.tile_size)
        square = nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True, align_corners=False)
        (vector,) = encoder.embed_images(square)
        encoder.release()
        return vector.to(self.vectors)

    def use(self, encoder: ImageTextEncoder) -> None:
        """Embed phrases with this encoder, which looked at the photos."""
        self._encoder = encoder

    def _find_encoder(self) -> ImageTextEncoder:
        if self._encoder is None:
            about = self.about
            found = OpenClipEncoder(model_folder(about.clip), about.clip_pretrained, device="cpu")
            # What may follow is a precision, which changes a vector in its last digits only.
            if not about.clip_fingerprint.startswith(found.fingerprint):
                raise InputError(
                    f"the scene was seen by {about.clip_fingerprint}, but {about.clip} on this machine is {found.fingerprint}: "
                    "phrases of one mean nothing to the other; copy that model to this machine, or train the semantic stage again"
                )
            self._encoder = found
        return self._encoder

    def size(self) -> str:
        """Return the size in words."""
        if self.field is not None:
            return f"a field of {sum(values.numel() for values in self.field.parameters()) / 1e6:.1f} M parameters"
        return f"{self.features.shape[1]} numbers for each of {len(self.features):,} Gaussians"

    # queries

    @torch.no_grad()
    def pictures(
        self,
        splats: Splats,
        camera: Pinhole,
        phrases: Sequence[str],
        inside: Tensor | None = None,  # [N] bool
    ) -> tuple[Tensor, Tensor]:
        """Return relevancy maps [H, W, P], 0.5 where nothing is, and the features in colours [H, W, 3].

        Blended are P + M + 3 channels, never D.

        Args:
            inside: which Gaussians are drawn; None: all.

        Raises:
            InputError: as `embed` and `scores`.
        """
        texts = self.embed([*phrases, *self.about.negatives])
        channels = self.scores(splats.means, torch.cat([texts, self.pca_axes.T]))
        if inside is not None:
            splats, channels = splats[inside], channels[inside]
        image, alpha = blend(splats, camera, channels)
        maps = relevancy_from_scores(image[..., : len(texts)], len(phrases))
        # Along the axes the mean is one number each: what is not covered shows as grey.
        along = image[..., len(texts) :] - alpha[..., None] * (self.pca_mean @ self.pca_axes)
        flat = PcaBasis(along.new_zeros(3), torch.eye(3, device=along.device), self.pca_spread)
        return maps, pca_colours(along, flat)

    def scores(
        self,
        means: Tensor,  # [N, 3] world, of all Gaussians
        texts: Tensor,  # [T, D]
        ids: Tensor | None = None,  # [M]
    ) -> Tensor:  # [N, T], or [M, T]
        """Return ⟨CLIP feature, text⟩ of all Gaussians, or of some.

        Raises:
            InputError: the Gaussians are not those that features were lifted for.
        """
        if self.field is None:
            if len(self.features) != len(means):
                raise InputError(
                    f"features were lifted for {len(self.features)} Gaussians, but the scene has {len(means)}: "
                    "train the semantic stage again (--max-num-iterations 0)"
                )
            weights = texts.T if self.axes.numel() == 0 else self.axes @ texts.T
            features = self.features if ids is None else self.features[ids]
            return torch.cat([part.float() @ weights for part in features.split(CHUNK)])
        codes = self._kept_codes(means)
        if codes is None:
            means = means if ids is None else means[ids]
            return torch.cat([self.field.scores(self.field.clip_codes(part), texts) for part in means.split(CHUNK)])
        return self.field.scores(codes if ids is None else codes[ids], texts)

    @torch.no_grad()
    def prepare(
        self,
        means: Tensor,  # [N, 3] world, of all Gaussians
    ) -> None:
        """Compute what all queries share, so that the first takes no longer than the next. Lifted features need nothing; a
        field's codes are kept until the means change, unless there are too many of them (`CODES_KEPT`)."""
        if self.field is not None:
            self._kept_codes(means)

    def _kept_codes(self, means: Tensor) -> Tensor | None:  # [N, clip_hidden + 1]
        assert self.field is not None
        if len(means) * self.field.clip_head.code_size * 4 > CODES_KEPT:
            return None
        # A version of the tensor counts changes in place; the field itself changes only until it is complete. The means are kept
        # along, so that no other tensor can come to lie at their address.
        if self._codes is not None and self.complete:
            known, version, codes = self._codes
            if (known.data_ptr(), known.shape, version) == (means.data_ptr(), means.shape, means._version):
                return codes
        codes = self.field.clip_codes(means)
        self._codes = means.detach(), means._version, codes
        return codes
