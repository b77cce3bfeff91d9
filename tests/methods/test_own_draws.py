"""What a method draws by itself in training is found: in modules that are known, and while it happens."""

from __future__ import annotations

import copy

import open_clip
import pytest
import timm.layers
import torch
import torchvision
from small_world import VOCABULARY, every_pair, some_images
from torch import nn
from torch.nn import functional

from methods.parts import shares
from methods.parts.own_draws import DRAWING, Watch, drawing_modules
from methods.parts.shares import CommonDropout, ImageDropout, common_draws, common_dropout, image_dropout, image_noise
from registry import METHODS

DRAWS = {
    "dropout": nn.Dropout(0.1),
    "channel dropout": nn.Dropout1d(0.1),
    "map dropout": nn.Dropout2d(0.1),
    "volume dropout": nn.Dropout3d(0.1),
    "alpha": nn.AlphaDropout(0.1),
    "feature alpha": nn.FeatureAlphaDropout(0.1),
    "rrelu": nn.RReLU(),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True),
    "layer": nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True),
    "lstm": nn.LSTM(4, 4, num_layers=2, dropout=0.1),
    "gru": nn.GRU(4, 4, num_layers=2, dropout=0.1),
    "rnn": nn.RNN(4, 4, num_layers=2, dropout=0.1),
    "pool": nn.FractionalMaxPool2d(2, output_size=2),
    "drop path": timm.layers.DropPath(0.1),
    "timm patches": timm.layers.PatchDropout(0.5),
    "patches": open_clip.transformer.PatchDropout(0.5),
    "depth": torchvision.ops.StochasticDepth(0.1, "row"),
}
DRAWS_NOTHING = {
    "dropout": nn.Dropout(0),
    "attention": nn.MultiheadAttention(4, 2, batch_first=True),
    "layer": nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=True),
    "one layer": nn.LSTM(4, 4),
    "rrelu": nn.RReLU(0.2, 0.2),
    "drop path": timm.layers.DropPath(0.0),
    "patches": open_clip.transformer.PatchDropout(0.0),
    "for images": ImageDropout(0.5),
    "in common": CommonDropout(0.5),
    "norm": nn.BatchNorm1d(4),
}


class Holder(nn.Module):
    """A method with a part and a frozen part that stays in evaluation mode."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.head = nn.ModuleDict({"part": part})
        self.frozen = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> Holder:
        super().train(mode)
        self.frozen.eval()
        return self


@pytest.mark.parametrize("name", DRAWS)
def test_a_module_that_draws_is_named(name):
    method = Holder(DRAWS[name]).eval()
    found = drawing_modules(method)
    assert found and all(where.startswith("head.part") for where in found)
    assert not any(module.training for module in method.modules()), "modes are as they were"


@pytest.mark.parametrize("name", DRAWS_NOTHING)
def test_a_module_that_does_not_draw_is_let_through(name):
    assert drawing_modules(Holder(DRAWS_NOTHING[name])) == {}


def test_the_names_of_classes_are_those_of_the_libraries():
    for where in DRAWING:
        module, _, name = where.rpartition(".")
        found = getattr(__import__(module, fromlist=[name]), name)
        assert "forward" in vars(found), f"{where} does not define forward"


def draw_with_generator(values):
    return values + torch.rand(values.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "draw",
    [
        lambda values: functional.dropout(values, 0.5),
        lambda values: functional.alpha_dropout(values, 0.5, training=True),
        lambda values: functional.rrelu(values, training=True),
        lambda values: values + torch.randn_like(values),
        lambda values: values * torch.bernoulli(torch.full_like(values, 0.5)),
        lambda values: values[torch.randperm(len(values))],
        lambda values: values + torch.distributions.Beta(1.0, 1.0).sample(),
        lambda values: values[torch.multinomial(torch.ones(3), 1)],
        lambda values: functional.scaled_dot_product_attention(values, values, values, dropout_p=0.5),
        lambda values: functional.gumbel_softmax(values),
        draw_with_generator,
    ],
)
def test_a_draw_in_a_forward_method_is_found_where_it_happens(draw):
    class Part(nn.Module):
        def forward(self, values):
            return draw(values)

    method, values = Holder(Part()), torch.randn(3, 4, 4)
    with Watch(method) as watch:
        method.head["part"](values)
    assert watch.found is not None
    assert watch.found.startswith("its module 'head.part' (Part), line ") and "of test_own_draws.py (" in watch.found


def test_what_is_drawn_through_shares_is_not_found():
    values = torch.rand(3, 4, requires_grad=True)
    share = shares.Share(0, 3, 5, join=None)
    with Watch(nn.Module()) as watch, shares.in_force(share):
        image_dropout(values, 0.5, training=True)
        common_dropout(values, 0.5, training=True)
        values + image_noise(values)
        with common_draws():
            values * torch.rand(4)
        functional.scaled_dot_product_attention(values, values, values)
        functional.dropout(values, 0.5, training=False)
        torch.utils.checkpoint.checkpoint(ImageDropout(0.5), values, use_reentrant=False).sum().backward()
    assert watch.found is None


CASES = [(name, None) for name in METHODS.names()]
CASES += [(name, ablation.name) for name in METHODS.names() for ablation in METHODS.get(name).info.ablations]


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_the_methods_of_the_suite_draw_through_shares(name, ablation, backbone):
    method_class = METHODS.get(name)
    changes = {item.name: item.changes for item in method_class.info.ablations}.get(ablation, {})
    values = {key: value for key, value in changes.items() if key in method_class.Config.model_fields}
    if "map_noise" in method_class.Config.model_fields:
        values |= {"map_noise": 0.1}
    if name == "vp_cmjl":
        values |= {"heads": 8}  # 16 do not divide the small CLIP's 24 channels
    # All but the tokenizer, whose tables are large and never changed.
    own = copy.deepcopy(backbone, {id(backbone.tokenizer): backbone.tokenizer})
    method = method_class(own, VOCABULARY, method_class.Config(**values)).train()
    assert drawing_modules(method) == {}
    if not (method.info.trains and method.info.batch_independent):
        return
    share, images = shares.Share(0, 8, 8, join=lambda rows, _: rows), some_images()
    with shares.in_force(share), Watch(method) as watch:
        method.training_loss(images, every_pair())
    assert watch.found is None


def test_dropout_in_common_is_torchs():
    values = torch.rand(5, 8)
    torch.manual_seed(3)
    expected = functional.dropout(values, 0.3)
    torch.manual_seed(3)
    assert torch.equal(CommonDropout(0.3)(values), expected)
