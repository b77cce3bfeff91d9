"""MSCI: prompts read local tokens from the first vision blocks, then global tokens from the last ones.

Wang, Xu, Zhu, Li, "MSCI: Addressing CLIP's Inherent Limitations for Compositional Zero-Shot Learning", IJCAI 2025
(arXiv 2505.10289); the authors' code is ltpwy/MSCI. Prompts, adapters, disentanglers, losses and scores are Troika's.
New are two aggregators, which squeeze the tokens of the first N and of the last M vision blocks into local and global
tokens, and two stages of cross-attention in series, shared by the branches: each prompt reads the local tokens, and
with what it found the global ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Vocabulary
from errors import UserError
from methods.backbone.clip import Backbone
from methods.backbone.heads import head_count
from methods.backbone.products import Linear
from methods.base import Ablation, MethodConfig, MethodInfo
from methods.parts.attention import CrossAttentionStack, Memory
from methods.parts.branch_settings import Probability, ThreeBranchConfig, three_branch_ablations
from methods.parts.branches import ThreeBranch
from methods.parts.prompt_families import Branch
from methods.parts.shares import image_dropout

Pooling = Literal["linear", "max", "mean"]


class MSCIConfig(ThreeBranchConfig):
    """Settings of MSCI beside those of every three-branch method; names of the released configurations in brackets.

    n_low, n_high [selected_low_layers, selected_high_layers]: N first and M last blocks; None is a sixth of the blocks
        (4 of 24), at least two
    low_pooling, high_pooling, aggregator_dropout: how they are squeezed, see `Aggregator`
    interaction: "serial" gives stage 2 what stage 1 found, "parallel" the prompt itself
    fused: which of the stages' results are added to the prompt
    fusion: weigh them by one learned number per channel each ("lambda"), or let a gated linear map of both make what is
        added ("gated", in the released code but never called), with fusion_dropout
    stage_*: layers, heads (None: one for every 64 channels) and dropout of a stage
    lambda_init [init_lamda], learn_lambda: the weights of "lambda"
    """

    n_low: int | None = Field(None, ge=1)
    n_high: int | None = Field(None, ge=1)
    low_pooling: Pooling = "linear"
    high_pooling: Pooling = "linear"
    aggregator_dropout: Probability = 0.1
    interaction: Literal["serial", "parallel"] = "serial"
    fused: Literal["both", "local", "global", "none"] = "both"
    fusion: Literal["lambda", "gated"] = "lambda"
    fusion_dropout: Probability = 0.1
    stage_1_layers: int = Field(1, ge=1)
    stage_2_layers: int = Field(1, ge=1)
    stage_1_heads: int | None = Field(None, ge=1)
    stage_2_heads: int | None = Field(None, ge=1)
    stage_1_dropout: Probability = 0.1
    stage_2_dropout: Probability = 0.1
    lambda_init: float = 0.1
    learn_lambda: bool = True

    @model_validator(mode="after")
    def _gate_needs_both(self) -> MSCIConfig:
        if self.fusion == "gated" and self.fused != "both":
            raise ValueError("fusion 'gated' needs the results of both stages (fused 'both')")
        return self

    @property
    def uses_local(self) -> bool:
        """Whether stage 1 has a part in the result."""
        return self.fused in ("both", "local") or (self.fused == "global" and self.interaction == "serial")

    @property
    def uses_global(self) -> bool:
        """Whether stage 2 has a part in the result."""
        return self.fused in ("both", "global")


def block_range(asked: int | None, blocks: int, what: str) -> int:
    """Return how many of a tower's blocks a level reads: `asked`, or where that is None a sixth, but at least two.

    A sixth is four of 24 blocks, MSCI's choice on two of its three data sets; a level of one block has nothing to
    aggregate. More than there are is a `UserError` that calls the setting `what`.
    """
    if asked is None:
        return min(blocks, max(2, round(blocks / 6)))
    if asked > blocks:
        raise UserError(
            f"The setting {what} asks for {asked} vision blocks.",
            f"The backbone has {blocks}.",
            f"Choose at most {blocks}, or leave {what} out.",
        )
    return asked


class Aggregator(nn.Module):
    """Squeezes the tokens of n blocks into one set, token by token (MSCI section 5).

    "linear": Dropout(ReLU(LayerNorm(W [F_1; ...; F_n] + b))), channels concatenated in the order of the blocks. "max"
    and "mean" take the largest or the mean entry and learn nothing. Of a single block the tokens are taken as they are.
    """

    def __init__(self, width: int, n_blocks: int, pooling: Pooling = "linear", dropout: float = 0.1) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = dropout
        learned = n_blocks > 1 and pooling == "linear"
        self.linear = Linear(n_blocks * width, width) if learned else None
        self.norm = nn.LayerNorm(width) if learned else None

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return [B, T, width] of one [B, T, width] per block."""
        if len(tokens) == 1:
            return tokens[0]
        if self.linear is None or self.norm is None:
            stacked = torch.stack(list(tokens))
            return stacked.amax(dim=0) if self.pooling == "max" else stacked.mean(dim=0)
        hidden = functional.relu(self.norm(self.linear(torch.cat(list(tokens), dim=-1))))
        return image_dropout(hidden, self.dropout, self.training)


class StageMemories(NamedTuple):
    """Keys and values of both stages; () where a stage does not exist."""

    local: Memory
    whole: Memory


class MSCI(ThreeBranch):
    """Multi-stage cross-modal interaction. What has no part in the result is not built."""

    Config: ClassVar[type[MethodConfig]] = MSCIConfig
    config: MSCIConfig
    info = MethodInfo(
        name="msci",
        title="Multi-Stage Cross-modal Interaction",
        paper="Wang, Xu, Zhu, Li, MSCI: Addressing CLIP's Inherent Limitations for Compositional Zero-Shot Learning",
        venue="IJCAI 2025",
        arxiv="2505.10289",
        needs=("soft_prompt", "patch_tokens", "taps", "adapters"),
        ablations=(
            Ablation("no_interaction", {"fused": "none"}, "Does letting prompts read the image help at all?"),
            Ablation("no_global_stage", {"fused": "local"}, "What does the global stage bring?"),
            Ablation(
                "no_local_stage", {"fused": "global", "interaction": "parallel"}, "What does the local stage bring?"
            ),
            Ablation("parallel", {"interaction": "parallel"}, "Must the global stage know what the local one found?"),
            Ablation("last_stage_only", {"fused": "global"}, "Is the last stage's result enough by itself?"),
            Ablation("gated_fusion", {"fusion": "gated"}, "Is a gated map of both stages better than two vectors?"),
            *(
                Ablation(f"{side}_{n}", {f"n_{side}": n}, f"How many {which} blocks make the {tokens} tokens?")
                for side, which, tokens in (("low", "first", "local"), ("high", "last", "global"))
                for n in (1, 2, 3)
            ),
            Ablation("max_and_mean", {"low_pooling": "max", "high_pooling": "mean"}, "Must aggregation be learned?"),
            Ablation("local_depth_2", {"stage_1_layers": 2}, "Does a deeper local stage help?"),
            Ablation("global_depth_2", {"stage_2_layers": 2}, "Does a deeper global stage help?"),
            Ablation(
                "depth_2", {"stage_1_layers": 2, "stage_2_layers": 2}, "Do two deeper stages help, at twice the cost?"
            ),
            Ablation("fixed_lambdas", {"learn_lambda": False}, "Must the weights of the stages be learned?"),
            *three_branch_ablations(),
        ),
        deviations=(
            "every epoch is in training mode; the released loop is from its second epoch on in evaluation mode "
            "(train_mode)",
            "a pair's score is its logit plus the product of the primitives' probabilities, as released; the paper's "
            "own wording was not at hand (inference)",
            "the same score weights in selection and test, and states and objects listed once; released: other weights "
            "and divided probabilities in the test script (test_score_weights, test_primitive_divisor)",
            "Adam on every data set, as the paper says; released: an AdamW variant on UT-Zappos",
            "one head for every 64 channels: the 12 of the paper; a released open-world file has 16",
            "the released code builds three more modules, trains and saves them, and never uses them",
            "a last batch of one image uses BatchNorm's running statistics, where the released code fails",
            "gated fusion adds its result to the prompt; the released code does not show how it was used",
            "the variance loss and rescaling that are commented out in the released code are not built",
        ),
    )

    lambda_1: Tensor
    lambda_2: Tensor

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: MSCIConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        width, blocks = backbone.embed_dim, backbone.n_vision_blocks
        self.n_low = block_range(config.n_low, blocks, "n_low")
        self.n_high = block_range(config.n_high, blocks, "n_high")
        self.local = self.stage_1 = self.whole = self.stage_2 = self.gate = None
        if config.uses_local:
            heads = head_count(width) if config.stage_1_heads is None else config.stage_1_heads
            self.local = Aggregator(width, self.n_low, config.low_pooling, config.aggregator_dropout)
            self.stage_1 = CrossAttentionStack(width, heads, config.stage_1_layers, config.stage_1_dropout)
        if config.uses_global:
            heads = head_count(width) if config.stage_2_heads is None else config.stage_2_heads
            self.whole = Aggregator(width, self.n_high, config.high_pooling, config.aggregator_dropout)
            self.stage_2 = CrossAttentionStack(width, heads, config.stage_2_layers, config.stage_2_dropout)
        if config.fusion == "gated":
            self.gate = nn.Sequential(nn.Linear(2 * width, width), nn.LayerNorm(width))
        for name, used in (("lambda_1", config.fused in ("both", "local")), ("lambda_2", config.uses_global)):
            strength = torch.full((width,), config.lambda_init)
            if used and config.fusion == "lambda" and config.learn_lambda:
                self.register_parameter(name, nn.Parameter(strength))
            else:
                self.register_buffer(name, strength, persistent=False)

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the image feature of each branch [B, d], and the "local" and "global" tokens [B, T, d] in use."""
        blocks = self.backbone.n_vision_blocks
        low = range(self.n_low) if self.local is not None else ()
        high = range(blocks - self.n_high, blocks) if self.whole is not None else ()
        taps = sorted({*low, *high, blocks - 1})
        after = dict(zip(taps, self.backbone.image_tokens(images, taps, self.adapters.slots), strict=True))
        projected = {tap: self.backbone.joint_tokens(after[tap]) for tap in {*low, *high}}
        last = projected.get(blocks - 1)
        image = self.backbone.pool_tokens(after[blocks - 1]) if last is None else last[:, 0]
        features = self.image_vectors(image)
        if self.local is not None:
            features["local"] = self.local([projected[tap] for tap in low])
        if self.whole is not None:
            features["global"] = self.whole([projected[tap] for tap in high])
        return features

    def memories(self, features: Mapping[str, Tensor]) -> dict[Branch, StageMemories]:
        """Return the keys and values of both stages, one memory for all branches."""
        stages = ((self.stage_1, "local"), (self.stage_2, "global"))
        memory = (() if stage is None else stage.memory(stage.normalise(features[key])) for stage, key in stages)
        return dict.fromkeys(self.config.branches, StageMemories(*memory))

    def stages(self, text: Tensor, memory: StageMemories) -> tuple[Tensor, Tensor]:
        """Return q1 and q2, what the stages make of unit text features [K, d]: [B, K, d] each, the input where unused.

        Stages are residual: q1 and q2 contain the text feature itself.
        """
        q1 = text if self.stage_1 is None else self.stage_1(text, memory.local)
        start = q1 if self.config.interaction == "serial" else text
        return q1, text if self.stage_2 is None else self.stage_2(start, memory.whole)

    @torch.no_grad()
    def attention(self, text: Tensor, memory: StageMemories) -> dict[str, list[Tensor]]:
        """Return the attention weights of unit text features [K, d] over the image's tokens, for people to look at.

        By stage in use, "local" and "global", one [B, heads, K, T] for each of its layers. Token 0 is the class token,
        the patches follow row by row.
        """
        found: dict[str, list[Tensor]] = {}
        if self.stage_1 is not None:
            found["local"] = self.stage_1.weights(text, memory.local)
        if self.stage_2 is not None:
            q1 = text if self.stage_1 is None else self.stage_1(text, memory.local)
            found["global"] = self.stage_2.weights(q1 if self.config.interaction == "serial" else text, memory.whole)
        return found

    def attract(self, text: Tensor, memory: StageMemories) -> Tensor:
        """Return t + lambda_1 * q1 + lambda_2 * q2 with the terms that `fused` names, or the gated sum."""
        q1, q2 = self.stages(text, memory)
        if self.gate is not None:
            gated = functional.relu(self.gate(torch.cat([q1, q2], dim=-1)))
            return text + image_dropout(gated, self.config.fusion_dropout, self.training)
        drawn = text
        if self.config.fused in ("both", "local"):
            drawn = drawn + self.lambda_1 * q1
        if self.config.uses_global:
            drawn = drawn + self.lambda_2 * q2
        return drawn
