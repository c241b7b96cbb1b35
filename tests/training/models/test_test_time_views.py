"""Test-time views: rotations and flips of an image, embedded together."""

from __future__ import annotations

import pytest
import torch

from api_schemas.config import ModelConfig
from tests.training.runs import build_rule
from training.models.network import build_network
from training.models.test_time_views import make_views, rotate_quarters


def test_quarter_turns_are_exact() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    for quarter in range(4):
        assert torch.equal(rotate_quarters(image, quarter)[0, 0], torch.rot90(image[0, 0], quarter))


def test_views_are_the_turned_and_mirrored_images() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    seen = [tuple(view.flatten().int().tolist()) for view in make_views(image, 8)]
    rotations, flips = [(1, 2, 3, 4), (2, 4, 1, 3), (4, 3, 2, 1), (3, 1, 4, 2)], [(2, 1, 4, 3), (1, 3, 2, 4)]
    assert seen[:4] == rotations
    assert seen[4:6] == flips
    assert len(set(seen)) == 8
    for count in (1, 2, 4):
        views = [tuple(view.flatten().int().tolist()) for view in make_views(image, count)]
        assert views == [seen[0], seen[4]] if count == 2 else views == seen[:count]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_cosine_of_two_images_is_the_mean_over_their_views(count: int) -> None:
    torch.manual_seed(1)
    settings = {"backbone": "conv4", "widths": [4, 8], "embedding_dim": 3 * count, "views": count}
    joined = build_network(ModelConfig.model_validate(settings), build_rule((1, 9, 9))).eval()
    single = build_network(
        ModelConfig.model_validate({**settings, "embedding_dim": 3, "views": 1}), build_rule((1, 9, 9))
    )
    single.load_state_dict(joined.state_dict())
    single.eval()
    images = torch.randn(5, 1, 9, 9)
    apart = [single(view) for view in make_views(images, count).chunk(count)]
    embeddings = joined(images)
    torch.testing.assert_close(embeddings @ embeddings.T, sum(view @ view.T for view in apart) / count)
    torch.testing.assert_close(embeddings[:, :3] * count**0.5, apart[0])
