"""Samplers, augmentation, schedule, networks, registry: the parts the loop is made of."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from api_schemas.config import AugmentationConfig, ModelConfig, SamplerConfig, ScheduleConfig
from api_schemas.preprocessing import ImageInput, ImageMode, TableInput, VectorInput
from common.errors import ConfigError
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from encoder.inputs.row_input import TablePreprocessing, VectorPreprocessing
from training.batches.augmentation import _compute_sampling_grid, _draw_transforms, augment_images
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.batches.samplers import batches
from training.data.items import Items
from training.models.backbones.conv4 import Conv4
from training.models.network import build_network
from training.models.test_time_views import make_views, rotate_quarters
from training.optim.lr_schedule import rate_factor
from training.registry import build_entry


def rule_of(shape: tuple[int, ...]) -> Preprocessing:
    """A rule for images of that shape, or for table rows of that length."""
    if len(shape) == 1:
        columns = [str(number) for number in range(shape[0])]
        return TablePreprocessing(TableInput(columns=columns, means=[0.0] * shape[0], stds=[1.0] * shape[0]))
    zeros, ones = [0.0] * shape[0], [1.0] * shape[0]
    mode: ImageMode = "L" if shape[0] == 1 else "RGB"
    return ImagePreprocessing(ImageInput(mode=mode, height=shape[1], width=shape[2], mean=zeros, std=ones))


def test_a_batch_holds_so_many_distinct_items_of_each_class() -> None:
    labels = np.repeat(np.arange(10), 7)
    sampler = SamplerConfig(batch_size=12, items_per_class=3)
    for batch in batches(labels, sampler, 20, seed=0, epoch=0):
        assert len(np.unique(batch)) == 12
        assert np.unique(labels[batch], return_counts=True)[1].tolist() == [3, 3, 3, 3]


def test_every_item_comes_before_one_comes_again() -> None:
    labels = np.repeat(np.arange(6), 8)
    sampler = SamplerConfig(batch_size=12, items_per_class=2)
    seen = np.concatenate(batches(labels, sampler, 4, seed=3, epoch=1))
    assert sorted(seen.tolist()) == list(range(48))


def test_batches_follow_from_seed_and_epoch() -> None:
    labels, sampler = np.repeat(np.arange(9), 5), SamplerConfig(batch_size=8, items_per_class=2)

    def rows(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in batches(labels, sampler, 3, seed, epoch)]

    assert rows(0, 0) == rows(0, 0)
    assert rows(0, 0) != rows(0, 1)
    assert rows(0, 0) != rows(1, 0)


def test_classes_smaller_than_asked_give_what_they_have() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    sampler = SamplerConfig(batch_size=10, items_per_class=4)
    (batch,) = batches(labels, sampler, 1, seed=0, epoch=0)
    assert sorted(batch.tolist()) == list(range(10))


def test_an_episode_holds_whole_classes_drawn_anew() -> None:
    labels = np.repeat(np.arange(8), [2, 5, 5, 5, 9, 9, 9, 9])  # class 0 is too small for an episode
    sampler = SamplerConfig(name="episodic", batch_size=12, items_per_class=4)
    episodes = batches(labels, sampler, 200, seed=0, epoch=0)
    for rows in episodes:
        assert len(np.unique(rows)) == 12
        ways, counts = np.unique(labels[rows], return_counts=True)
        assert counts.tolist() == [4, 4, 4]
        assert 0 not in ways
        assert np.array_equal(labels[rows], np.repeat(labels[rows][::4], 4))  # class by class
    first_shots = np.concatenate([rows[::4] for rows in episodes])
    assert set(np.concatenate(episodes)) == set(range(2, len(labels)))
    assert set(first_shots) == set(range(2, len(labels)))  # every item is support some time
    again = batches(labels, sampler, 200, seed=0, epoch=0)
    assert all(np.array_equal(one, other) for one, other in zip(episodes, again, strict=True))
    assert not np.array_equal(episodes[0], batches(labels, sampler, 200, seed=0, epoch=1)[0])
    with pytest.raises(ConfigError, match="needs 9 classes of at least 4 items, found 7"):
        batches(labels, SamplerConfig(name="episodic", batch_size=36, items_per_class=4), 1, 0, 0)


def test_an_episode_of_broken_classes_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of items_per_class"):
        SamplerConfig(name="episodic", batch_size=10, items_per_class=4)
    with pytest.raises(ValidationError, match="a batch needs two classes"):
        SamplerConfig(name="episodic", batch_size=4, items_per_class=4)


@pytest.mark.parametrize("name", ["class_balanced", "shuffled"])
def test_the_other_samplers_fill_their_batches(name: str) -> None:
    labels = np.array([0] * 90 + [1] * 10)
    sampler = SamplerConfig.model_validate({"name": name, "batch_size": 50})
    drawn = np.concatenate(batches(labels, sampler, 40, seed=0, epoch=0))
    assert len(drawn) == 2_000
    share = (labels[drawn] == 1).mean()
    assert abs(share - (0.5 if name == "class_balanced" else 0.1)) < 0.05


def test_no_augmentation_changes_nothing_and_each_kind_changes_something() -> None:
    images = torch.rand(4, 1, 16, 16)
    assert torch.equal(augment_images(images, AugmentationConfig(), torch.Generator()), images)
    for kind in ("rotate_degrees", "scale", "shear", "shift", "elastic", "noise", "brightness", "erase"):
        settings = AugmentationConfig.model_validate({kind: 0.3 if kind != "rotate_degrees" else 20.0})
        once, again = (augment_images(images, settings, torch.Generator().manual_seed(5)) for _ in range(2))
        assert once.shape == images.shape
        assert torch.equal(once, again), kind
        assert not torch.equal(once, images), kind


def test_an_affine_transform_moves_ink_where_it_should() -> None:
    image = torch.zeros(200, 1, 21, 21)
    image[:, :, 10, 15] = 1
    moved = augment_images(image, AugmentationConfig(shift=0.2), torch.Generator().manual_seed(0))
    columns = (moved.sum(dim=(1, 2)) * torch.arange(21)).sum(1) / moved.sum(dim=(1, 2, 3))
    inside = moved.sum(dim=(1, 2, 3)) > 0.99
    assert (columns[inside] - 15).abs().max() <= 0.2 * 21 + 0.01
    assert (columns[inside] - 15).abs().max() > 3
    turned = augment_images(image, AugmentationConfig(rotate_degrees=180), torch.Generator().manual_seed(0))
    rows, cols = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(21) - 10.0, indexing="ij")
    radius = ((turned[:, 0] * (rows**2 + cols**2).sqrt()).sum((1, 2)) / turned.sum((1, 2, 3))).mean()
    assert abs(float(radius) - 5) < 0.3, "turning keeps the distance to the centre"


def test_every_form_of_an_item_is_a_class_of_its_own() -> None:
    drawn = np.random.default_rng(0).integers(0, 255, size=(3, 1, 6, 6)).astype(np.uint8)
    items = Items(drawn, np.array(["b", "a", "b"]), np.array(["0", "1", "2"]))
    prepare = DeviceInputs(rule_of((1, 6, 6)), torch.device("cpu"))
    for rotations, mirrors in ((False, False), (True, False), (False, True), (True, True)):
        augmentation = AugmentationConfig(rotations_as_classes=rotations, mirrors_as_classes=mirrors)
        inputs = TrainingInputs(items, prepare, augmentation)
        wanted = [
            (code, np.rot90(image[0], quarter)[:, :: -1 if mirror else 1])
            for code, image in zip((1, 0, 1), drawn, strict=True)
            for mirror in range(1 + mirrors)
            for quarter in range(1 + 3 * rotations)
        ]
        rows = np.arange(len(inputs.codes))
        assert len(rows) == len(wanted)
        shown = inputs(rows, torch.Generator())
        for row, (code, image) in enumerate(wanted):
            assert inputs.codes[row] // inputs.forms == code
            assert inputs.codes[row] % inputs.forms == row % inputs.forms
            expected = prepare(np.ascontiguousarray(image)[None, None])[0]
            torch.testing.assert_close(shown[row], expected)


def test_a_mirror_image_is_the_same_class_or_another() -> None:
    with pytest.raises(ValidationError, match="mirrors_as_classes makes it another"):
        AugmentationConfig(flip=True, mirrors_as_classes=True)


def test_an_elastic_distortion_bends_smoothly() -> None:
    images = torch.zeros(400, 1, 41, 41)
    images[:200, :, 20, 14] = images[200:, :, 20, 16] = 1
    settings = AugmentationConfig(elastic=0.08)
    halves = [augment_images(part, settings, torch.Generator().manual_seed(0)) for part in images.split(200)]
    columns = [(half.sum((1, 2)) * torch.arange(41)).sum(1) / half.sum((1, 2, 3)) for half in halves]
    moved = columns[0] - 14
    assert 0.08 * 41 / 2 < moved.abs().max() < 1.5 * 0.08 * 41
    assert abs(float(moved.mean())) < 0.3, "to either side"
    apart = columns[1] - columns[0]
    assert (apart > 1).all(), "nothing folds over"
    assert (apart < 3).all(), "neighbours stay neighbours"
    ends = augment_images(torch.ones(50, 1, 41, 41), settings, torch.Generator().manual_seed(1))
    assert ends[:, :, 10:31, 10:31].min() > 0.999


def test_quarter_turns_are_exact() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    for quarter in range(4):
        assert torch.equal(rotate_quarters(image, quarter)[0, 0], torch.rot90(image[0, 0], quarter))


def test_the_sampling_grid_is_that_of_torch() -> None:
    settings = AugmentationConfig(rotate_degrees=30, scale=0.2, shear=0.2, shift=0.1, flip=True)
    transforms = _draw_transforms(7, settings, torch.Generator().manual_seed(0))
    expected = F.affine_grid(transforms, [7, 1, 5, 9], align_corners=False)
    torch.testing.assert_close(_compute_sampling_grid(transforms, 5, 9), expected)


def test_a_transform_is_a_rotation_of_scales_and_shears() -> None:
    def drawn(rotate_degrees: float, scale: float, shear: float) -> torch.Tensor:
        settings = AugmentationConfig(rotate_degrees=rotate_degrees, scale=scale, shear=shear)
        return _draw_transforms(50, settings, torch.Generator().manual_seed(0))[:, :, :2]

    turned, stretched = drawn(60, 0, 0), drawn(0, 0.2, 0.3)
    torch.testing.assert_close(drawn(60, 0.2, 0.3), turned @ stretched)
    torch.testing.assert_close(turned.det(), torch.ones(50))


@pytest.mark.parametrize("backbone", ["linear", "mlp", "conv4"])
def test_embeddings_keep_all_their_digits_under_bfloat16(backbone: str) -> None:
    image, rule = backbone == "conv4", VectorPreprocessing(VectorInput(dim=6))
    more = {"pooling": "gem"} if image else {"hidden": []} if backbone == "mlp" else {}
    model = ModelConfig.model_validate({"backbone": backbone, "embedding_dim": 4, **more})
    network = build_network(model, rule_of((1, 16, 16)) if image else rule).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network(torch.randn(5, *((1, 16, 16) if image else (6,))))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", ["cosine", "one_cycle", "constant"])
def test_the_rate_rises_then_falls_within_its_bounds(shape: str) -> None:
    schedule = ScheduleConfig.model_validate({"shape": shape, "warmup": 0.1})
    factors = [rate_factor(step, 100, schedule) for step in range(100)]
    assert min(factors) > 0
    assert max(factors) == pytest.approx(1)
    top = int(np.argmax(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(1 if shape == "constant" else 0.01)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ({"backbone": "conv4", "widths": [4, 4]}, (1, 12, 12)),
        ({"backbone": "conv4", "pooling": "gem"}, (3, 28, 28)),
        ({"backbone": "conv4", "widths": [4, 4, 8], "pool_first": True, "dropout": 0.5}, (1, 20, 12)),
        ({"backbone": "conv4", "widths": [4, 8], "strided_stem": True, "residuals": [0, 2]}, (1, 15, 13)),
        ({"backbone": "conv4", "widths": [4, 8], "embedding_dim": 16, "views": 8}, (1, 12, 12)),
        ({"backbone": "resnet", "widths": [4, 8], "blocks": [1, 2], "pooling": "average"}, (1, 15, 15)),
        ({"backbone": "resnet", "widths": [4], "blocks": [1], "pooling": "max"}, (1, 16, 16)),
        ({"backbone": "mlp", "hidden": [16]}, (7,)),
        ({"backbone": "linear"}, (7,)),
        ({"backbone": "linear"}, (1, 8, 8)),
        ({"backbone": "identity", "embedding_dim": 7}, (7,)),
    ],
)
def test_every_backbone_gives_unit_rows(model: dict[str, object], shape: tuple[int, ...]) -> None:
    config = ModelConfig.model_validate({"embedding_dim": 5, **model})
    network = build_network(config, rule_of(shape))
    for length in (config.view_dim, config.embedding_dim):
        embeddings = network(torch.randn(6, *shape))
        assert embeddings.shape == (6, length)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
        network.eval()


def test_pooling_first_normalises_a_quarter_of_the_numbers() -> None:
    shapes: dict[bool, list[torch.Size]] = {}
    for pool_first in (False, True):
        backbone = Conv4((1, 12, 12), widths=(4, 8, 8), pool_first=pool_first)
        seen = shapes.setdefault(pool_first, [])
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape))
        assert backbone(torch.randn(2, 1, 12, 12)).shape == (2, *backbone.feature_shape) == (2, 8, 3, 3)
    assert [shape[2] for shape in shapes[False]] == [12, 6, 3]
    assert [shape[2] for shape in shapes[True]] == [6, 3, 3]


def test_a_strided_stem_halves_what_pooling_would_and_residuals_keep_it() -> None:
    backbone = Conv4((1, 48, 48), widths=(4, 8, 8), strided_stem=True, residuals=(0, 1, 2), pool_first=True)
    sides: list[tuple[int, int]] = []
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(
                lambda _, inputs, output: sides.append((inputs[0].shape[2], output.shape[2]))
            )
    assert backbone(torch.randn(2, 1, 48, 48)).shape == (2, *backbone.feature_shape) == (2, 8, 6, 6)
    assert sides == [(48, 24), (24, 24), (12, 12), (12, 12), (6, 6), (6, 6)]


def test_a_residual_adds_to_what_it_is_given() -> None:
    torch.manual_seed(0)
    plain = Conv4((1, 8, 8), widths=(4,)).eval()
    deeper = Conv4((1, 8, 8), widths=(4,), residuals=(1,)).eval()
    deeper.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(3, 1, 8, 8)
    further = plain(images)
    added = torch.relu(deeper.layers[-1].norm(deeper.layers[-1].convolution(further)))
    assert added.abs().max() > 0.01
    torch.testing.assert_close(deeper(images), further + added)


def test_views_are_the_turned_and_mirrored_images() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    seen = [tuple(view.flatten().int().tolist()) for view in make_views(image, 8)]
    turned, mirrored = [(1, 2, 3, 4), (2, 4, 1, 3), (4, 3, 2, 1), (3, 1, 4, 2)], [(2, 1, 4, 3), (1, 3, 2, 4)]
    assert seen[:4] == turned
    assert seen[4:6] == mirrored
    assert len(set(seen)) == 8
    for count in (1, 2, 4):
        views = [tuple(view.flatten().int().tolist()) for view in make_views(image, count)]
        assert views == [seen[0], seen[4]] if count == 2 else views == seen[:count]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_cosine_of_two_images_is_the_mean_over_their_views(count: int) -> None:
    torch.manual_seed(1)
    whole = {"backbone": "conv4", "widths": [4, 8], "embedding_dim": 3 * count, "views": count}
    joined = build_network(ModelConfig.model_validate(whole), rule_of((1, 9, 9))).eval()
    one = build_network(
        ModelConfig.model_validate({**whole, "embedding_dim": 3, "views": 1}), rule_of((1, 9, 9))
    )
    one.load_state_dict(joined.state_dict())
    one.eval()
    images = torch.randn(5, 1, 9, 9)
    apart = [one(view) for view in make_views(images, count).chunk(count)]
    embeddings = joined(images)
    torch.testing.assert_close(embeddings @ embeddings.T, sum(view @ view.T for view in apart) / count)
    torch.testing.assert_close(embeddings[:, :3] * count**0.5, apart[0])


def test_views_share_the_embedding_evenly() -> None:
    with pytest.raises(ValidationError, match=r"embedding_dim must be a multiple of views \(8\), found 60"):
        ModelConfig(embedding_dim=60, views=8)
    with pytest.raises(ValidationError, match=r"embedding_dim must be at least twice views \(8\), found 8"):
        ModelConfig(embedding_dim=8, views=8)


def test_vectors_of_any_length_give_the_same_embedding() -> None:
    network = build_network(
        ModelConfig(backbone="linear", embedding_dim=3), VectorPreprocessing(VectorInput(dim=4))
    )
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(network(inputs), network(inputs * 7))


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ({"backbone": "conv5"}, (1, 8, 8), "unknown name 'conv5': did you mean 'conv4'"),
        ({"backbone": "conv4", "width": [4]}, (1, 8, 8), "unknown parameter 'width': did you mean 'widths'"),
        ({"backbone": "conv4", "input_shape": 4}, (1, 8, 8), "unknown parameter 'input_shape'"),
        ({"backbone": "conv4"}, (7,), "'conv4' does not take table inputs: choose identity or linear or mlp"),
        ({"backbone": "resnet", "blocks": [1]}, (1, 8, 8), "widths and blocks must be of equal length"),
        ({"backbone": "identity", "embedding_dim": 3}, (7,), "keeps the input's 7 numbers"),
        ({"backbone": "conv4", "residuals": [1]}, (1, 8, 8), "widths and residuals must be of equal length"),
        ({"backbone": "mlp", "views": 2}, (7,), "is for networks that look at images, found mlp on table"),
        ({"backbone": "identity", "views": 4}, (1, 8, 8), "found identity on image inputs"),
    ],
)
def test_a_wrong_model_is_one_sentence(model: dict[str, object], shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_network(ModelConfig.model_validate(model), rule_of(shape))


def test_a_parameter_without_default_must_be_given() -> None:
    def make(margin: float, size: int) -> float:
        return margin * size

    assert build_entry(make, {"margin": 2.0}, "loss (x)", size=3) == 6
    with pytest.raises(ConfigError, match=r"loss \(x\): parameter 'margin' must be given"):
        build_entry(make, {}, "loss (x)", size=3)
    assert "size" in inspect.signature(make).parameters
