"""Networks of transformers and timm, made here in small and loaded from a folder: nothing is downloaded."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from api_schemas.config import Config, ModelConfig
from api_schemas.preprocessing import ImageInput, TokenInput
from common.errors import BundleError, ConfigError, InputError
from encoder.encoder import Encoder
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.text_input import Tokenizer, TokenPreprocessing
from tests.conftest import absent
from tests.training.runs import MakeConfig, export_run
from training.loop.train import train
from training.models.network import build_network

WORDS = ["[PAD]", "[UNK]", "card", "lost", "balance", "low", "transfer", "money", "please", "now", "help"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny text encoder and its tokenizer, as transformers saves them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import transformers
        except ModuleNotFoundError:
            absent("transformers")
    import tokenizers

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        vocab_size=128,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    transformers.BertModel(shape).save_pretrained(folder)
    words = tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny image transformer of transformers for 12 x 12 images."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    shape = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=12,
        patch_size=4,
    )
    transformers.ViTModel(shape).save_pretrained(folder)
    return folder


def write_texts(path: Path) -> Path:
    topics = ["card lost", "balance low", "transfer money", "money low", "help card", "transfer now"]
    endings = ["please", "now", "help", "", "please help"]
    rows = [json.dumps({"text": f"{topic} {end}", "label": topic}) for topic in topics for end in endings]
    path.write_text("\n".join(rows))
    return path


def make_text_config(small: MakeConfig, folder: Path, path: Path, **model: object) -> Config:
    return small(
        data={"kind": "text", "path": str(path), "split": {"train": 2, "validation": 2, "test": 2}},
        model={"backbone": f"hf:{folder}", "embedding_dim": 8, **model},
        sampler={"batch_size": 8, "items_per_class": 2},
    )


def test_a_text_encoder_is_trained_exported_and_served_without_torch(
    small: MakeConfig, bert: Path, tmp_path: Path
) -> None:
    run = train(make_text_config(small, bert, write_texts(tmp_path / "t.jsonl")), tmp_path / "run")
    assert run.load_preprocessing().shape == (4,), "as many tokens as the longest training text has"
    assert export_run(run, tmp_path / "encoder") <= 1e-5
    names = {path.name for path in (tmp_path / "encoder").iterdir()}
    assert names == {"encoder.onnx", "preprocessing.json", "tokenizer.json"}
    stored = run.load_embeddings("test")
    assert stored is not None
    rows = (tmp_path / "t.jsonl").read_text().splitlines()
    encoder = Encoder.open(tmp_path / "encoder")
    assert encoder.preprocessing.kind == "text"
    served = encoder.encode([json.loads(rows[int(row)])["text"] for row in stored.ids])
    np.testing.assert_allclose(served, stored.vectors, atol=1e-5)
    (tmp_path / "encoder" / "tokenizer.json").write_bytes(b'{"other": 1}')
    with pytest.raises(BundleError, match="tokenizer"):
        Encoder.open(tmp_path / "encoder")


def test_a_finished_run_fetches_no_weights_or_shape(small: MakeConfig, bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "bert"))
    config = make_text_config(small, folder, write_texts(tmp_path / "t.jsonl"))
    run = train(config, tmp_path / "run")
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    assert export_run(run, tmp_path / "encoder") <= 1e-5
    stored = run.load_embeddings("test")
    again = train(config, tmp_path / "run", resume=True).load_embeddings("test")
    assert stored is not None
    assert again is not None
    np.testing.assert_array_equal(stored.vectors, again.vectors)


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        ({"train": "head"}, "none"),
        ({"train": "last_n", "last_n": 1}, "some"),
        ({"train": "lora", "lora": {"rank": 2, "layers": ["query", "value"]}}, "some"),
        ({"train": "all"}, "all"),
    ],
)
def test_a_part_of_the_network_is_trained(
    small: MakeConfig,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, object],
    changed: str,
) -> None:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "cache"))
    config = make_text_config(small, bert, write_texts(tmp_path / "t.jsonl"), **how)
    run = train(config, tmp_path / "run")
    fresh = build_network(config.model, run.load_preprocessing()).backbone.state_dict()
    after = run.load_network().backbone.state_dict()
    moved = [not torch.equal(after[name], value) for name, value in fresh.items() if "pooler" not in name]
    assert fresh.keys() == after.keys(), "what was learned beside the weights is merged into them"
    assert {"none": not any(moved), "some": any(moved) and not all(moved), "all": sum(moved) > 20}[changed]
    assert export_run(run, tmp_path / "encoder") <= 1e-5


def test_padding_changes_nothing(bert: Path) -> None:
    tokenizer = Tokenizer.open(bert / "tokenizer.json")
    short, long = (
        TokenPreprocessing(TokenInput(length=n, tokenizer_sha256=tokenizer.sha256), tokenizer) for n in (2, 8)
    )
    from training.models.backbones.hub import HfText

    network = HfText((8,), str(bert)).eval()
    cut, padded = (torch.from_numpy(rule.prepare(["card lost"])) for rule in (short, long))
    torch.testing.assert_close(network(cut), network(padded), atol=1e-5, rtol=1e-4)
    assert short.compute_ids("card card lost").tolist() == [3, 3], "a longer text loses its end"


@pytest.mark.parametrize("pooling", [None, "max", "gem", "flat"])
def test_an_image_transformer_takes_grey_images(vit: Path, pooling: str | None) -> None:
    rule = ImagePreprocessing(ImageInput(mode="L", height=12, width=12, mean=[0.0], std=[1.0]))
    model = ModelConfig.model_validate({"backbone": f"hf:{vit}", "embedding_dim": 5, "pooling": pooling})
    network = build_network(model, rule)
    assert network.backbone.feature_shape == (16, 3, 3)
    assert network(torch.rand(4, 1, 12, 12)).shape == (4, 5)


def test_an_image_transformer_is_exported(small: MakeConfig, vit: Path, tmp_path: Path) -> None:
    config = small(model={"backbone": f"hf:{vit}", "embedding_dim": 4})
    assert export_run(train(config, tmp_path / "run"), tmp_path / "encoder") <= 1e-5


def test_timm_networks_are_built_where_timm_is() -> None:
    rule = ImagePreprocessing(ImageInput(mode="L", height=32, width=32, mean=[0.0], std=[1.0]))
    model = ModelConfig.model_validate(
        {"backbone": "timm:resnet10t", "embedding_dim": 5, "pretrained": False, "pooling": "gem"}
    )
    try:
        import timm  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ConfigError, match="timm:resnet10t needs timm, which is not installed: pip inst"):
            build_network(model, rule)
        return
    assert build_network(model, rule)(torch.rand(2, 1, 32, 32)).shape == (2, 5)


class OfTimm(nn.Module):
    """A network as ``timm.create_model`` gives it without classifier and pooling: feature map or tokens."""

    def __init__(self, channels: int, tokens: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 4, stride=4)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 6, 1)
        self.tokens = tokens

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.last(self.norm(self.stem(images)))
        if not self.tokens:
            return features
        patches = features.flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)  # a class token comes first


@pytest.fixture
def timm_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A stand-in for timm, which brings torchvision; the calls of its one function."""
    timm_calls: list[dict[str, object]] = []

    def create_model(name: str, **settings: object) -> nn.Module:
        timm_calls.append({"name": name, **settings})
        if name == "resnet5000":
            raise RuntimeError("Unknown model (resnet5000)")
        return OfTimm(int(str(settings["in_chans"])), tokens=name.startswith("vit"))

    stand_in = ModuleType("timm")
    stand_in.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    return timm_calls


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch4", "local-dir:some/folder"])
def test_a_timm_network_is_trained_in_part_and_exported(
    small: MakeConfig, timm_calls: list[dict[str, object]], tmp_path: Path, name: str
) -> None:
    config = small(
        model={
            "backbone": f"timm:{name}",
            "embedding_dim": 4,
            "train": "last_n",
            "last_n": 1,
            "pretrained": False,
        }
    )
    run = train(config, tmp_path / "run")
    expected = {"name": name, "num_classes": 0, "global_pool": "", "in_chans": 1, "pretrained": False}
    assert all(call == expected for call in timm_calls)
    torch.manual_seed(config.seed)
    fresh = build_network(config.model, run.load_preprocessing()).backbone.state_dict()
    network = run.load_network()
    assert network.backbone.feature_shape == (6, 3, 3), "a map, without the class token"
    moved = [
        key for key, value in network.backbone.state_dict().items() if not torch.equal(fresh[key], value)
    ]
    assert moved == ["network.last.weight", "network.last.bias"], "the frozen norm keeps its statistics too"
    assert export_run(run, tmp_path / "encoder") <= 1e-5


def test_weights_of_timm_are_asked_for_once(
    small: MakeConfig, timm_calls: list[dict[str, object]], tmp_path: Path
) -> None:
    config = small(model={"backbone": "timm:resnet10t", "embedding_dim": 4})
    run = train(config, tmp_path / "run")
    assert [call["pretrained"] for call in timm_calls] == [True], "the copy that is measured too"
    run.load_network()
    train(config, tmp_path / "run", resume=True)
    assert [call["pretrained"] for call in timm_calls] == [True, False, False]


def test_a_name_that_timm_does_not_know_is_one_sentence(
    small: MakeConfig, timm_calls: list[dict[str, object]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"timm:resnet5000 cannot be loaded: Unknown model \(resnet5000\)"):
        train(small(model={"backbone": "timm:resnet5000"}), tmp_path / "run")


def test_what_cannot_be_loaded_is_one_sentence(small: MakeConfig, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty/tokenizer\.json cannot be read as a tokenizer"):
        train(
            make_text_config(small, tmp_path / "empty", write_texts(tmp_path / "t.jsonl")), tmp_path / "run"
        )
    config = small(model={"backbone": f"hf:{tmp_path / 'empty'}"})
    with pytest.raises(InputError, match="empty cannot be loaded: "):
        train(config, tmp_path / "images")
    with pytest.raises(ConfigError, match="unknown parameter 'pol': did you mean 'pool'"):
        train(make_text_config(small, bert, tmp_path / "t.jsonl", pol="mean"), tmp_path / "other")
    texts = make_text_config(small, bert, write_texts(tmp_path / "t.jsonl"), train="last_n", last_n=3)
    with pytest.raises(ConfigError, match=r"model\.last_n: hf:.*bert.* has 2 blocks, found 3"):
        train(texts, tmp_path / "other")
