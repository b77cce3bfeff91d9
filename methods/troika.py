"""Troika: pair, state and object each recognised by a branch, with text drawn towards the image by cross-attention.

Huang et al., "Troika: Multi-Path Cross-Modal Traction for Compositional Zero-Shot Learning", CVPR 2024 (arXiv
2303.15230); the authors' code is bighuang624/Troika. Learned are three prompts over one table of words, adapters in the
frozen image tower, two disentanglers, and the cross-modal traction: a stack of cross-attention layers, shared by the
branches, in which the prompts read the tokens of the last vision block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from datasets.base import Vocabulary
from methods.backbone.clip import Backbone
from methods.backbone.heads import head_count
from methods.base import Ablation, MethodConfig, MethodInfo
from methods.parts.attention import CrossAttentionStack, Memory
from methods.parts.branch_settings import Probability, ThreeBranchConfig, three_branch_ablations
from methods.parts.branches import ThreeBranch
from methods.parts.prompt_families import Branch


class TroikaConfig(ThreeBranchConfig):
    """Settings of Troika beside those of every three-branch method; names of the released configurations in brackets.

    traction_layers [cmt_layers]: cross-attention layers, 0 for none at all
    traction_dropout [cross_attn_dropout]: of these layers
    heads: of cross-attention, None is one for every 64 channels
    lambda_init [init_lamda], learn_lambda: the factor of the drawn text, one number per channel
    class_token: whether prompts also read the class token
    compound_norm: the released loop overwrites its tokens, so that the k-th branch reads them after k LayerNorms
    """

    traction_layers: int = Field(3, ge=0)
    traction_dropout: Probability = 0.1
    heads: int | None = Field(None, ge=1)
    lambda_init: float = 0.1
    learn_lambda: bool = True
    class_token: bool = True
    compound_norm: bool = False


class Troika(ThreeBranch):
    """Multi-path cross-modal traction."""

    Config: ClassVar[type[MethodConfig]] = TroikaConfig
    config: TroikaConfig
    info = MethodInfo(
        name="troika",
        title="Multi-Path Cross-Modal Traction",
        paper="Huang et al., Troika: Multi-Path Cross-Modal Traction for Compositional Zero-Shot Learning",
        venue="CVPR 2024",
        arxiv="2303.15230",
        needs=("soft_prompt", "patch_tokens", "adapters"),
        ablations=(
            *three_branch_ablations(),
            Ablation("no_traction", {"traction_layers": 0}, "Does drawing the text towards the image help?"),
            Ablation("one_layer", {"traction_layers": 1}, "How deep must the traction be?"),
            Ablation("two_layers", {"traction_layers": 2}, "How deep must the traction be?"),
            Ablation("fixed_lambda", {"learn_lambda": False}, "Must the weight of the drawn text be learned?"),
            Ablation("patches_only", {"class_token": False}, "Do prompts need the class token among the tokens?"),
            Ablation("compound_norm", {"compound_norm": True}, "Does the released code's repeated LayerNorm matter?"),
        ),
        deviations=(
            "every epoch is in training mode; the released loop is from its second epoch on in evaluation mode "
            "(train_mode)",
            "a pair's score is its logit plus the product of the primitives' probabilities, as released; the paper "
            "writes the pair's probability in place of the logit (inference)",
            "states and objects are listed once; the released test script lists them once per 1,024 pairs, which "
            "divides their probabilities (test_primitive_divisor)",
            "tokens pass one LayerNorm for every branch; released: one, two, three (compound_norm)",
            "the class token is among the tokens, as released; the paper writes patch tokens (class_token)",
            "the epoch is chosen by validation AUC; released: by validation loss on MIT-States",
            "queries are not normalised, residuals and 'MLPs' of one layer are as released; the paper omits them",
            "a last batch of one image uses BatchNorm's running statistics, where the released code fails",
            "visual tuning other than by adapters (bias, projection, prompts, full) is not built",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: TroikaConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        width = backbone.embed_dim
        heads = head_count(width) if config.heads is None else config.heads
        self.traction = CrossAttentionStack(width, heads, config.traction_layers, config.traction_dropout)
        strength = torch.full((width,), config.lambda_init)
        if config.learn_lambda and config.traction_layers:
            self.strength = nn.Parameter(strength)
        else:
            self.register_buffer("strength", strength, persistent=False)

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the image feature of each branch [B, d] and the last block's projected "tokens" [B, T, d]."""
        (last,) = self.backbone.image_tokens(images, adapters=self.adapters.slots)
        tokens = self.backbone.joint_tokens(last)
        read = tokens if self.config.class_token else tokens[:, 1:]
        return self.image_vectors(tokens[:, 0]) | {"tokens": read}

    def memories(self, features: Mapping[str, Tensor]) -> dict[Branch, Memory]:
        """Return keys and values of every layer: one memory for all branches, or one for each if norms compound."""
        branches, tokens = self.config.branches, features["tokens"]
        if self.config.compound_norm:
            return {
                branch: self.traction.memory(self.traction.normalise(tokens, times))
                for times, branch in enumerate(branches, start=1)
            }
        return dict.fromkeys(branches, self.traction.memory(self.traction.normalise(tokens)))

    def attract(self, text: Tensor, memory: Memory) -> Tensor:
        """Return t + lambda * q_N, where q_0 = t and each layer adds what it reads of the image; t without layers."""
        if not memory:
            return text
        return text + self.strength * self.traction(text, memory)
