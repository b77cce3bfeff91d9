"""CAILA's settings, the ablations they make, and how the released code spells labels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from methods.base import Ablation, MethodConfig
from methods.parts.branch_settings import Probability, Weights
from methods.parts.sequential_adapters import Combination, UpInit

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class CAILAConfig(MethodConfig):
    """Settings of CAILA; names of the released configurations in brackets.

    reduction [reduction_factor]: width of a tower / width of its adapters
    text_adapters [enable_text_adapter], vision_adapters: whether a tower has adapters
    adapter_start, adapter_end [adapter_start_layer, adapter_end_layer]: blocks of the vision tower that have them, None
        to the last; the others run as in CLIP
    up_init: whether a fresh adapter adds nothing, or is random as released
    mixture_layers [fusion_start_layer, counted from the other end]: last vision blocks that see both streams at once,
        None is half of them; with 0 the final class tokens are averaged
    combine_latent, combine_output: join the latents, and the outputs, of the three adapters of a place, or neither; in
        the released code combine_output has no effect
    combination [combination_ops]: how they are joined
    pair_text: what stands for a pair, the mean of the features of its own sentence, its state's and its object's, or
        the first alone

    image_dropout: of the mixture's unit image feature; with dropout_after_norm False of the feature before that
    shift [concept_shift_prob], object_shift_share [obj_shift_ratio]: how often a sample's stream of states or of
        objects gets another image, and how many of these are shifts of the object
    shift_without_alternative: what becomes of a sample whose other primitive is seen with nothing else, see `ShiftRule`
    loss_weights: of the cross-entropies of (pair, state, object)

    learn_tokens: whether the token table is trained
    template_gradient: whether "a photo of a" is trained where it begins a sentence
    token_decay: whether weight decay moves rows of the table; with "coupled" it moves those without gradient too, by
        about the learning rate at each step
    primitive_scale: factor on CLIP's own scale at which those of states and objects begin
    half_logits: whether autocast may round cosines and logits in training; the released code trains in fp16, whose
        steps are an eighth of those of bf16
    score: the trained scale times the cosine, or as released the cosine alone; they rank the same
    test_view: how images of validation and test are cut out, as the backbone asks or as released, see `resizing`
    """

    score_only: ClassVar[frozenset[str]] = frozenset({"score"})

    reduction: int = Field(4, ge=1)
    text_adapters: bool = True
    vision_adapters: bool = True
    adapter_start: int = Field(0, ge=0)
    adapter_end: int | None = Field(None, ge=0)
    up_init: UpInit = "zero"
    mixture_layers: int | None = Field(None, ge=0)
    combine_latent: bool = True
    combine_output: bool = True
    combination: Combination = "mean"
    pair_text: Literal["mean", "pair"] = "mean"
    image_dropout: Probability = 0.5
    dropout_after_norm: bool = True
    shift: Share = 0.1
    object_shift_share: Share = 0.5
    shift_without_alternative: Literal["skip", "replace_image"] = "skip"
    loss_weights: Weights = (1.0, 1.0, 1.0)
    learn_tokens: bool = True
    template_gradient: bool = False
    token_decay: Literal["none", "coupled"] = "none"
    primitive_scale: float = Field(1.0, gt=0)
    half_logits: bool = False
    score: Literal["logit", "cosine"] = "logit"
    test_view: Literal["backbone", "released"] = "backbone"


ABLATIONS = (
    Ablation("no_shift", {"shift": 0.0}, "Do second images that share a primitive help?"),
    Ablation("shift_objects_only", {"object_shift_share": 1.0}, "Must both primitives be shifted?"),
    Ablation("shift_twice_as_often", {"shift": 0.2}, "How often should a stream get another image?"),
    Ablation("vision_adapters_only", {"text_adapters": False}, "Do adapters in the text tower help?"),
    Ablation("text_adapters_only", {"vision_adapters": False}, "Do adapters in the image tower help?"),
    Ablation("no_mixture", {"mixture_layers": 0}, "Must the two streams see each other?"),
    Ablation("one_mixture_layer", {"mixture_layers": 1}, "For how many blocks must the two streams see each other?"),
    Ablation(
        "mixture_alone",
        {"combine_latent": False, "combine_output": False},
        "Does it help that the mixture reuses the adapters of states and objects?",
    ),
    Ablation("latents_alone", {"combine_output": False}, "Is it enough to join what the adapters compress to?"),
    Ablation("outputs_alone", {"combine_latent": False}, "Is it enough to join what the adapters give?"),
    Ablation("sum", {"combination": "sum"}, "Does it matter how three adapters are joined?"),
    Ablation("product", {"combination": "product"}, "Does it matter how three adapters are joined?"),
    Ablation("concatenation", {"combination": "concat"}, "Should the way to join adapters be learned?"),
    Ablation("pair_text_only", {"pair_text": "pair"}, "Do texts of states and objects help to name pairs?"),
    Ablation("no_primitive_losses", {"loss_weights": [1.0, 0.0, 0.0]}, "Must the streams recognise their primitive?"),
    Ablation("frozen_tokens", {"learn_tokens": False}, "Does training the token table help?"),
    Ablation("no_dropout", {"image_dropout": 0.0}, "Does dropout on the image feature help unseen pairs?"),
    Ablation("random_start", {"up_init": "uniform"}, "What does it cost to start far from CLIP, as released?"),
    Ablation(
        "steep_primitives", {"primitive_scale": 20.0}, "What does the released scale of 2,000 for primitives change?"
    ),
    Ablation(
        "decayed_tokens",
        {"token_decay": "coupled"},
        "What does it change that weight decay moves the words that no sentence holds, as released?",
    ),
)

WORDS = {
    "Faux.Fur": "fake fur",
    "Faux.Leather": "fake leather",
    "Full.grain.leather": "thick leather",
    "Hair.Calf": "hairy leather",
    "Patent.Leather": "shiny leather",
    "Boots.Ankle": "ankle boots",
    "Boots.Knee.High": "kneehigh boots",
    "Boots.Mid-Calf": "midcalf boots",
    "Shoes.Boat.Shoes": "boatshoes",
    "Shoes.Clogs.and.Mules": "clogs shoes",
    "Shoes.Flats": "flats shoes",
    "Shoes.Heels": "heels",
    "Shoes.Loafers": "loafers",
    "Shoes.Oxfords": "oxford shoes",
    "Shoes.Sneakers.and.Athletic.Shoes": "sneakers",
    "traffic_light": "traficlight",
    "trash_can": "trashcan",
    "dry-erase_board": "dry_erase_board",
    "black_and_white": "black_white",
    "eiffel_tower": "tower",
}
"""Labels of UT-Zappos and VAW-CZSL as the released code writes them into a sentence, its spelling included."""
