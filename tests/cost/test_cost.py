"""What `profile` counts and how it divides costs: against formulas by hand, a fake clock, and made records."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from in_process import here
from rich.console import Console

from benchmarks.cost import children, counting, tables
from benchmarks.cost.backbone_only import NAME, BackboneOnly
from benchmarks.cost.counting import backbone_name, build, count, empty_backbone
from benchmarks.cost.counting import counting as counted_flops
from benchmarks.cost.decoding import picture, workers_needed
from benchmarks.cost.labels import label_space
from benchmarks.cost.parts import PARTS, PartMeter
from benchmarks.cost.record import (
    Decoding,
    Estimate,
    Flops,
    Labels,
    Profile,
    Row,
    Settings,
    Spread,
    Timing,
)
from errors import UserError
from methods.base import MethodConfig

ROOT = Path(__file__).parents[2]
LABELS = "ut_zappos"  # the fewest pairs: a pass of text for every few dozen of them is counted
TINY = Settings(methods=("csp",), backbone="tiny-icons", labels=LABELS, batch=4, steps=1, warmup=0)


@cache
def row(method: str) -> Row:
    return count(method, TINY, label_space(LABELS))


def tower_flops(tokens: int, width: int, hidden: int, layers: int) -> int:
    """A transformer's forward pass over one sequence: four projections, an MLP, two products of attention."""
    return layers * (2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width)


# What is counted ----------------------------------------------------------------------------------------------------


def test_an_image_in_the_tower_costs_what_a_formula_says():
    clip = empty_backbone("tiny-icons").clip
    visual = clip.visual
    patches, width, patch = len(visual.positional_embedding) - 1, visual.conv1.out_channels, visual.conv1.kernel_size[0]
    hidden = visual.transformer.resblocks[0].mlp.c_fc.out_features
    image = 2 * patches * width * 3 * patch**2  # the patch embedding
    image += tower_flops(patches + 1, width, hidden, len(visual.transformer.resblocks))
    image += 2 * width * visual.proj.shape[1]  # only the class token is projected
    assert row("csp").flops.eval_parts["vision"] == 4 * image
    assert row("csp").flops.train_parts["vision"] == 4 * image, "a frozen tower runs forward only"


def test_the_text_of_all_candidates_costs_what_a_formula_says_and_less_with_shared_prefixes():
    labels = label_space("icon_states")
    candidates = labels.dataset.candidates("train")
    found = {}
    for shared in (False, True):
        backbone = empty_backbone("tiny-icons")
        backbone.shared_prefix = shared
        method = BackboneOnly(backbone, labels.dataset.vocabulary, MethodConfig())
        counting.fake_weights(method)
        with torch.no_grad(), counted_flops() as total:
            method.prepare(candidates)
            found[shared] = total()
    clip = empty_backbone("tiny-icons").clip
    width, hidden = clip.token_embedding.embedding_dim, clip.transformer.resblocks[0].mlp.c_fc.out_features
    prompt = tower_flops(7, width, hidden, len(clip.transformer.resblocks)) + 2 * width * clip.text_projection.shape[1]
    assert found[False] == len(candidates) * prompt
    assert found[True] < found[False] / 2.5


@pytest.mark.parametrize("method", ["csp", "msci"])
def test_parts_add_up_to_the_whole(method):
    flops = row(method).flops
    assert sum(flops.train_parts.values()) == flops.train_step > 0
    assert sum(flops.eval_parts.values()) == flops.eval_batch > 0
    assert flops.train_image * 4 == flops.train_step
    assert flops.train_epoch == flops.train_image * label_space(LABELS).train_images


def test_adapters_need_the_image_towers_backward_pass_and_cross_attention_is_interaction():
    csp, msci = row("csp").flops, row("msci").flops
    assert msci.train_parts["vision"] > 2 * csp.train_parts["vision"]
    assert msci.train_parts["interaction"] > 10 * csp.train_parts["interaction"]


def test_trained_parameters_at_full_size():
    labels = label_space("mit_states")
    for method, total in (("csp", 360 * 768), ("msci", 26_707_200), ("troika", 29_065_728)):
        built, _ = build(method, empty_backbone("ViT-L-14-quickgelu"), labels)
        assert sum(tensor.numel() for tensor in built.trained().values()) == total


def test_real_and_fake_tensors_count_the_same():
    from benchmarks.cost.timing import random_batch
    from methods.backbone import load_backbone

    labels = label_space(LABELS)
    train = labels.dataset.candidates("train")
    backbone = load_backbone("tiny-icons")
    method, _ = build("csp", backbone, labels)
    method.train()
    batch = random_batch(backbone, train, 4, seed=0)
    with counted_flops() as total:
        method.training_loss(batch, train).total.backward()
        assert total() == row("csp").flops.train_step


def test_label_spaces_are_the_real_ones():
    sizes = {"mit_states": (1262, 1662), "ut_zappos": (83, 116), "cgqa": (5592, 6503)}
    for name, (train, test) in sizes.items():
        dataset = label_space(name).dataset
        assert len(dataset.candidates("train")) == train
        assert len(dataset.candidates("test")) >= train
        assert len(dataset.candidates("test", "open")) == len(dataset.vocabulary.states) * len(
            dataset.vocabulary.objects
        )
        assert test >= train
    assert label_space("mit_states").train_images == 30338


# Which part a cost belongs to ---------------------------------------------------------------------------------------


def test_every_tick_of_a_clock_belongs_to_one_part():
    clock = itertools.count()
    meter = PartMeter(lambda: next(clock))
    inner = meter.call("text", lambda: None)
    outer = meter.call("interaction", lambda: (inner(), inner()))
    meter.reset()
    start = meter._last
    outer()
    meter.switch("optimizer")
    meter.settle()
    assert sum(meter.costs.values()) == meter._last - start
    assert meter.costs["text"] == 2 and meter.costs["interaction"] == 3
    assert set(meter.costs) == set(PARTS)


def test_the_backward_pass_is_charged_to_the_part_that_made_each_node():
    work = {"done": 0.0}

    class Costly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value, cost):
            ctx.cost = cost
            return value * 2

        @staticmethod
        def backward(ctx, gradient):
            work["done"] += ctx.cost
            return gradient * 2, None

    meter = PartMeter(lambda: work["done"])
    vision = meter.call("vision", lambda value: Costly.apply(value, 10.0))
    text = meter.call("text", lambda value: Costly.apply(value, 100.0))
    whole = meter.call("interaction", lambda value: Costly.apply(vision(value) + text(value), 1.0).sum())
    meter.reset()
    loss = whole(torch.ones(3, requires_grad=True))
    meter.follow_backward(loss)
    loss.backward()
    meter.settle()
    assert {part: cost for part, cost in meter.costs.items() if cost} == {"vision": 10, "text": 100, "interaction": 1}


def test_watching_a_method_leaves_no_trace():
    from methods.parts.prompts import SoftPrompt

    method, _ = build("csp", empty_backbone("tiny-icons"), label_space("icon_states"))
    before = dict(vars(method)), dict(vars(method.backbone)), SoftPrompt.encode, torch.nn.functional.cross_entropy
    with PartMeter(lambda: 0.0).watching(method):
        assert "training_loss" in vars(method)
    assert (dict(vars(method)), dict(vars(method.backbone)), SoftPrompt.encode) == before[:3]
    assert torch.nn.functional.cross_entropy is before[3]


# Records and tables -------------------------------------------------------------------------------------------------


def made_row(method: str, scale: float = 1.0) -> Row:
    flops = Flops(
        train_step=int(2.6e13 * scale),
        train_parts={"vision": int(1e13 * scale), "text": int(1.6e13 * scale)},
        eval_batch=10**13,
        eval_parts={"vision": 10**13},
        prepare=2 * 10**13,
        train_image=1.6e12 * scale,
        eval_image=6e11,
        train_epoch=1e16,
    )
    step = Spread(median=1.8e2 * scale, least=1.7e2, most=1.9e2, count=3)
    timing = Timing(
        step=step,
        step_parts={"vision": 90.0, "text": 80.0, "other": 10.0},
        metered_step=180.0,
        evaluation=Spread(median=99.0, least=98.0, most=100.0, count=3),
        eval_parts={"vision": 99.0},
        prepare=1.0,
        memory_base=10**8,
        memory_training=23 * 10**9,
        memory_evaluation=10**9,
    )
    estimate = Estimate(weights=10**9, training=21 * 10**9, evaluation=2 * 10**9)
    return Row(
        method=method, batch=16, preset_batch=64, epochs=20, parameters=29 * 10**6, flops=flops, estimate=estimate,
        timing=timing,
    )  # fmt: skip


def made_profile(**changes) -> Profile:
    failed = Row(method="troika", batch=16, preset_batch=64, epochs=20, error="Not measured: it fell over")
    values = {
        "settings": Settings(methods=("refiner_style", "troika"), backbone="ViT-L-14-quickgelu", labels="cgqa"),
        "labels": Labels(states=413, objects=674, train_pairs=5592, candidates=278362, train_images=26920),
        "environment": {"cpu": {"name": "a processor", "count": 2}, "threads": 2},
        "backbone": made_row(NAME, 0.5),
        "rows": (made_row("refiner_style"), failed),
        "decoding": Decoding(
            width=480, height=360, bytes=40000, augmentation="clip", images_per_second=150.0, images=150
        ),
    }
    return Profile(**{**values, **changes})


def test_a_record_is_read_as_it_was_written(tmp_path):
    profile = made_profile()
    profile.write(tmp_path / "profile.json")
    assert Profile.read(tmp_path / "profile.json") == profile
    (tmp_path / "other.json").write_text(json.dumps({"a": 1}))
    for name in ("other.json", "none.json"):
        with pytest.raises(UserError, match="is no profile"):
            Profile.read(tmp_path / name)


def test_tables_fit_80_columns_and_a_failure_is_a_row(monkeypatch):
    from benchmarks.commands import cost

    console = Console(width=80, file=open(os.devnull, "w"), record=True)  # noqa: SIM115, PTH123
    monkeypatch.setattr(cost, "out", console)
    made = tables.tables(made_profile())
    for table in made:
        cost.show(table)
        assert all(len(cells) == len(table.heads) for cells in table.rows)
    text = console.export_text()
    drawn = [line for line in text.splitlines() if line.startswith(("│", "┃"))]
    assert max(map(len, drawn)) <= 80 and "…" not in "".join(drawn)
    assert "refiner_style" in text and "failed" in text and "it fell over" in text
    assert "ratio" in tables.markdown(made)
    assert {"2.00"} <= set(made[0].rows[0]) and {"2.00"} <= set(made[1].rows[0])


def test_a_csv_has_a_line_for_each_method(tmp_path):
    tables.write_csv(made_profile(), tmp_path / "profile.csv")
    lines = (tmp_path / "profile.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["method", "refiner_style", "troika", NAME]
    assert len({line.count(",") for line in lines}) == 1


def test_the_figure_is_drawn_from_times_or_from_flops(tmp_path):
    from benchmarks.cost.figure import draw

    profile = made_profile()
    assert len(draw(profile, tmp_path / "timed")) == 3
    plain = profile.backbone.model_copy(update={"timing": None})
    assert len(draw(made_profile(rows=(), backbone=plain), tmp_path / "counted")) == 3
    assert draw(made_profile(rows=(), backbone=profile.rows[1]), tmp_path / "nothing") == []


def test_a_process_that_fails_or_is_killed_says_why(monkeypatch):
    endings = {
        1: ("RuntimeError: it broke\n", "it broke"),
        -9: ("", "SIGKILL, which is what the system does when memory runs out"),
    }
    for code, (said, expected) in endings.items():
        done = subprocess.CompletedProcess([], code, stdout="", stderr=said)
        monkeypatch.setattr(children.subprocess, "run", lambda *args, done=done, **more: done)
        found = children.with_timing(made_row("csp").model_copy(update={"timing": None}), TINY)
        assert found.timing is None and expected in found.error


def test_a_method_that_cannot_be_counted_is_a_row(monkeypatch):
    def fail(*args):
        raise RuntimeError("no such\nshape")

    monkeypatch.setattr(counting, "count_flops", fail)
    found = counting.count_or_say("csp", TINY, label_space("icon_states"))
    assert (found.flops, found.error) == (None, "Not counted: no such shape")


def test_names_that_are_not_there():
    with pytest.raises(UserError, match="mit_states, ut_zappos, cgqa, icon_states"):
        label_space("mit_sates")
    with pytest.raises(UserError, match="no backbone 'ViT-B-31/random'"):
        empty_backbone("ViT-B-31")
    assert backbone_name("ViT-B-32/openai") == "ViT-B-32/openai"


# Decoding -----------------------------------------------------------------------------------------------------------


def test_decoding_processes_that_keep_up():
    decoding = made_profile().decoding
    assert [workers_needed(rate, decoding) for rate in (1, 150, 151, 1000)] == [1, 1, 2, 7]
    assert picture(48, 36) == picture(48, 36) and picture(48, 36)[:2] == b"\xff\xd8"


# What is timed --------------------------------------------------------------------------------------------------------


def test_work_is_warmed_up_then_timed_then_metered_half_as_often(monkeypatch):
    from benchmarks.cost import timing

    meters, made, open_meters = [], [], []
    step, scores, watching = timing.Stepper.step, timing.score_images, PartMeter.watching

    @contextmanager
    def watched(meter, method):
        meters.append(meter)
        open_meters.append(meter)
        with watching(meter, method):
            yield
        open_meters.pop()

    def counted_step(*given):
        made.append(("step", bool(open_meters)))
        return step(*given)

    def counted_scores(*given, **more):
        made.append(("scores", bool(open_meters)))
        return scores(*given, **more)

    monkeypatch.setattr(PartMeter, "watching", watched)
    monkeypatch.setattr(timing.Stepper, "step", counted_step)
    monkeypatch.setattr(timing, "score_images", counted_scores)
    settings = TINY.model_copy(update={"steps": 4, "warmup": 1})
    found = timing.measure("csp", settings, label_space(LABELS))
    once = [False] * 5 + [True] * 2
    assert made == [(work, metered) for work in ("step", "scores") for metered in once]
    assert (found.step.count, found.evaluation.count) == (4, 4)
    assert len(set(map(id, meters))) == 2, "a meter for each kind of work"
    assert "optimizer" in found.step_parts and "optimizer" not in found.eval_parts
    assert found.prepare > 0 and found.memory_training is not None and found.memory_evaluation is not None
    made.clear()
    untrained = timing.measure("clip_zero_shot", settings, label_space(LABELS))
    assert made == [("scores", metered) for metered in once]
    assert (untrained.step, untrained.step_parts, untrained.metered_step, untrained.memory_training) == (
        None, {}, None, None,
    )  # fmt: skip


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_measures_and_writes(tmp_path):
    command = ["cost", "--methods", "csp", "--labels", LABELS, "--batch", "4", "--steps", "1"]
    command += ["--backbone", "tiny-icons"]
    done = here(*command, "--warmup", "0", "--output", tmp_path / "out", cwd=tmp_path)
    assert max(map(len, filter(lambda line: line.startswith("│"), done.stdout.splitlines()))) <= 80
    profile = Profile.read(tmp_path / "out/profile.json")
    timing = profile.rows[0].timing
    assert timing is not None and not profile.rows[0].error
    assert sum(timing.step_parts.values()) == pytest.approx(timing.metered_step, rel=0.2)
    assert {"vision", "text", "interaction", "loss", "optimizer"} <= set(timing.step_parts)
    assert profile.decoding is not None and timing.memory_training > 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"profile.{ending}" for ending in ("json", "csv", "md", "pdf", "svg", "png")}


def test_the_command_refuses_wrong_words():
    for words, said in (
        (["--methods", "msic"], "Did you mean 'msci'?"),
        (["--backbone", "ViT-B-33"], "There is no backbone"),
        (["--backbone", "ViT-B-32/openai"], "random weights"),
        (["--image", "big"], "is no size of an image"),
    ):
        done = here("cost", *words, check=False)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("place", ["a file", "a file/below", "link to nowhere/below"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, monkeypatch, place):
    (tmp_path / "a file").write_text("kept")
    (tmp_path / "link to nowhere").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("benchmarks.cost.whole.take", lambda *given: pytest.fail("it was measured"))
    done = here("cost", "--methods", "csp", "--labels", LABELS, "--output", tmp_path / place, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"Nothing can be written below {tmp_path / place}." in done.stderr and "--output" in done.stderr
    assert (tmp_path / "a file").read_text() == "kept" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["profile.json", "profile.csv", "profile.md", "profile.pdf", ""])
def test_a_file_that_cannot_be_written_takes_nothing_of_what_was_printed(tmp_path, monkeypatch, name):
    folder = tmp_path / "out"

    def take(*given):
        if name:
            (folder / name).mkdir(parents=True)
        else:  # the folder was free when it was looked at
            folder.write_text("")
        return made_profile()

    monkeypatch.setattr("benchmarks.cost.whole.take", take)
    done = here("cost", "--methods", "csp", "--labels", LABELS, "--output", folder, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr and "refiner_style" in done.stdout


def test_the_old_name_of_the_command_says_the_new_one(counted_once):
    words = ("--methods", "csp", "--labels", LABELS, "--flops-only", "--backbone", "tiny-icons")
    old, new = here("profile", *words), here("cost", *words)
    assert old.stdout == new.stdout and "cost now" not in new.stderr
    assert "profile is called cost now; the old name goes with the next release" in old.stderr
    shown = here("--help").stdout
    assert " cost " in shown and " profile " not in shown
