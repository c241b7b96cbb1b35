"""Networks: backbone, pooling and head to unit rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from api_schemas.config import ModelConfig
from api_schemas.preprocessing import VectorInput
from common.errors import ConfigError
from encoder.inputs.row_input import VectorPreprocessing
from tests.training.runs import build_rule
from training.models.network import build_network


@pytest.mark.parametrize("backbone", ["linear", "mlp", "conv4"])
def test_embeddings_keep_all_their_digits_under_bfloat16(backbone: str) -> None:
    image, rule = backbone == "conv4", VectorPreprocessing(VectorInput(dim=6))
    more = {"pooling": "gem"} if image else {"hidden": []} if backbone == "mlp" else {}
    model = ModelConfig.model_validate({"backbone": backbone, "embedding_dim": 4, **more})
    network = build_network(model, build_rule((1, 16, 16)) if image else rule).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(5, *((1, 16, 16) if image else (6,))))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.norm(dim=1), torch.ones(5), rtol=0, atol=1e-6)


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
        ({"backbone": "tdnn", "widths": [4, 8]}, (1, 8, 20)),
        ({"backbone": "tdnn", "widths": [4, 4, 6, 8], "dropout": 0.5}, (3, 8, 5)),
        ({"backbone": "mlp", "hidden": [16]}, (7,)),
        ({"backbone": "linear"}, (7,)),
        ({"backbone": "linear"}, (1, 8, 8)),
        ({"backbone": "identity", "embedding_dim": 7}, (7,)),
    ],
)
def test_every_backbone_gives_unit_rows(model: dict[str, object], shape: tuple[int, ...]) -> None:
    config = ModelConfig.model_validate({"embedding_dim": 5, **model})
    network = build_network(config, build_rule(shape))
    for length in (config.view_dim, config.embedding_dim):
        embeddings = network(torch.randn(6, *shape))
        assert embeddings.shape == (6, length)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
        network.eval()


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
    ("model", "shape", "message"),
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
def test_a_wrong_model_is_one_sentence(
    model: dict[str, object], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(ModelConfig.model_validate(model), build_rule(shape))


def test_an_input_in_pieces_gets_the_direction_of_the_mean_of_its_pieces() -> None:
    config = ModelConfig.model_validate({"backbone": "tdnn", "embedding_dim": 5, "widths": [4, 8]})
    network = build_network(config, build_rule((1, 8, 20))).eval()
    counts = [3, 1, 100]
    inputs = torch.full((3, 100, 1, 8, 20), torch.nan)
    for row, count in enumerate(counts):
        inputs[row, :count] = torch.randn(count, 1, 8, 20)
    with torch.inference_mode():
        got = network(inputs)
        for row, count in enumerate(counts):
            mean = torch.stack([network(piece[None])[0] for piece in inputs[row, :count]]).mean(0)
            torch.testing.assert_close(got[row], mean / mean.norm(), rtol=0, atol=1e-6)


def test_a_tdnn_pools_mean_and_deviation_over_time() -> None:
    config = ModelConfig.model_validate({"backbone": "tdnn", "embedding_dim": 5, "widths": [4]})
    network = build_network(config, build_rule((1, 8, 20))).eval()
    inputs = torch.randn(2, 1, 8, 20)
    with torch.inference_mode():
        convolution, _, norm = network.backbone.chain[0][1:4]
        frames = norm(torch.relu(convolution(inputs[:, 0]))).numpy()
        expected = np.concatenate([frames.mean(axis=2), np.sqrt(frames.var(axis=2) + 1e-6)], axis=1)
        np.testing.assert_allclose(network.extract_features(inputs), expected, rtol=1e-5, atol=1e-6)
