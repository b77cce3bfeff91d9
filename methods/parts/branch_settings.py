"""Settings and ablations that all three-branch methods share (see `branches.py`)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from methods.base import Ablation, MethodConfig
from methods.parts.adapters import Placement
from methods.parts.fusion import Rule
from methods.parts.prompt_families import BRANCHES, Branch

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Weights = tuple[Weight, Weight, Weight]


class ThreeBranchConfig(MethodConfig):
    """Settings of a three-branch method. Weights are those of (pair, state, object).

    branches: those that are trained and scored with
    dropout: of the table of words
    learn_context, shared_context, shared_words: see `PromptFamilies`
    adapters: beside which sub-layers of the image tower
    adapter_width, adapter_dropout, adapter_scale: of these adapters, see `AdapterBank`
    disentangle: give the state and object branches a feature of their own

    loss_weights: of the three cross-entropies
    inference, score_weights: rule and weights of a pair's score, see `ScoreFusion`
    test_score_weights, test_primitive_divisor: replace weights and divisor (1) in the final evaluation alone, as the
        released test scripts do; those with open_ do so in the open world
    train_mode: "first_epoch_only" reproduces released loops that never leave the evaluation mode of their first
        validation: from the second epoch on no dropout, and BatchNorm with the statistics of the first
    validation_loss: "scores" puts the fused scores in the place of the pair logits, as the released codes do
    """

    score_only: ClassVar[frozenset[str]] = frozenset(
        {
            "inference",
            "score_weights",
            "test_score_weights",
            "open_test_score_weights",
            "test_primitive_divisor",
            "open_test_primitive_divisor",
            "validation_loss",
        }
    )

    branches: tuple[Branch, ...] = BRANCHES
    dropout: Probability = 0.3
    learn_context: bool = True
    shared_context: bool = False
    shared_words: bool = True
    adapters: Placement = "both"
    adapter_width: int = Field(64, ge=1)
    adapter_dropout: Probability = 0.1
    adapter_scale: float = 0.1
    disentangle: bool = True
    disentangler_dropout: Probability = 0.5
    loss_weights: Weights = (1.0, 1.0, 1.0)
    inference: Rule = "logit_product"
    score_weights: Weights = (1.0, 1.0, 1.0)
    test_score_weights: Weights | None = None
    open_test_score_weights: Weights | None = None
    test_primitive_divisor: int = Field(1, ge=1)
    open_test_primitive_divisor: int = Field(1, ge=1)
    train_mode: Literal["every_epoch", "first_epoch_only"] = "every_epoch"
    validation_loss: Literal["logits", "scores"] = "logits"

    @field_validator("branches")
    @classmethod
    def _in_order(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        if not branches:
            raise ValueError("at least one branch is needed")
        return tuple(branch for branch in BRANCHES if branch in branches)


def three_branch_ablations() -> tuple[Ablation, ...]:
    """Return the switches that every three-branch method has."""
    return (
        Ablation("pair_only", {"branches": ["pair"]}, "What do the state and object branches bring?"),
        Ablation(
            "primitives_only", {"branches": ["state", "object"]}, "How far do states and objects go without pairs?"
        ),
        Ablation("no_object_branch", {"branches": ["pair", "state"]}, "What does the object branch bring?"),
        Ablation("no_state_branch", {"branches": ["pair", "object"]}, "What does the state branch bring?"),
        Ablation("pair_score_only", {"inference": "pair"}, "Are the primitive branches needed once trained with?"),
        Ablation(
            "probability_product",
            {"inference": "probability_product"},
            "What changes with the rule of Troika's paper, where a pair's probability stands in for its logit?",
        ),
        Ablation("log_sum", {"inference": "log_sum"}, "Is it better to add log-probabilities?"),
        Ablation("no_adapters", {"adapters": "none"}, "How much comes from training the image tower?"),
        Ablation("adapters_on_mlp", {"adapters": "mlp"}, "Do adapters beside the MLPs suffice?"),
        Ablation("adapters_on_attention", {"adapters": "attn"}, "Do adapters beside attention suffice?"),
        Ablation("no_disentanglers", {"disentangle": False}, "Do states and objects need image features of their own?"),
        Ablation("shared_context", {"shared_context": True}, "Do the branches need a learned context each?"),
        Ablation("separate_words", {"shared_words": False}, "Does it help that branches share their word vectors?"),
        Ablation("fixed_context", {"learn_context": False}, "Does learning 'a photo of' help?"),
        Ablation("no_dropout", {"dropout": 0.0}, "Does dropout on the word vectors help unseen pairs?"),
        Ablation(
            "first_epoch_only",
            {"train_mode": "first_epoch_only"},
            "What does it change that the released loop trains in evaluation mode after its first epoch?",
        ),
    )
