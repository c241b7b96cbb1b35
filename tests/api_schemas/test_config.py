"""The configuration: what it takes, what it refuses, and that it comes back as it was saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_schemas.build_config import BuildConfig
from api_schemas.config import Config
from common.errors import ConfigError, InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("name: a\ndata: {builtin: glyphs}\nloss: triplet\n")
    return path


def test_a_saved_configuration_is_read_back_equal(file: Path, tmp_path: Path) -> None:
    config = Config.load(
        file,
        ["loss.margin=0.2", "model.widths=[8, 8]", "data.test_path=x", "mixup=metrix", "index.kind=hnsw"],
    )
    config.save(tmp_path / "saved.yaml")
    assert Config.load(tmp_path / "saved.yaml") == config


def test_overrides_are_yaml_values_and_reach_into_sections(file: Path) -> None:
    config = Config.load(
        file, ["optimizer.lr=1e-3", "schedule.patience=null", "loss.margin=0.2", "model.w=7"]
    )
    assert config.optimizer.lr == 0.001
    assert config.schedule.patience is None
    assert config.loss[0].name == "triplet"
    assert config.loss[0].parameters == {"margin": 0.2}
    assert config.model.parameters == {"w": 7}


def test_overrides_win_over_the_file_and_later_ones_over_earlier(file: Path) -> None:
    assert Config.load(file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "unknown key 'optimiser': did you mean 'optimizer'?"),
        ("schedule.epoch=3", "unknown key 'schedule.epoch': did you mean 'epochs'?"),
        ("data.split.trian=1", "unknown key 'data.split.trian': did you mean 'train'?"),
        ("data.augmentation.xyz=1", "unknown key 'data.augmentation.xyz': valid are: blur, brightness,"),
        ("schedule.epochs=many", "schedule.epochs: Input should be a valid integer, found 'many'"),
        ("schedule.epochs='3'", "schedule.epochs: Input should be a valid integer, found '3'"),
        ("schedule.epochs=true", "schedule.epochs"),
        ("optimizer.lr=.nan", "optimizer.lr"),
        ("optimizer.lr=0", "optimizer.lr: Input should be greater than 0, found 0"),
        ("sampler.batch_size=6", "batch_size must be at least twice items_per_class"),
        ("data.kind=images", "kind 'images' needs data.path"),
        ("calibration.targets={far: 2}", "far must be between 0 and 1"),
        ("calibration.targets={cost: 0.1}", "'cost' needs its costs"),
        ("data.path=${LIMEN_NOT_SET}/x", "LIMEN_NOT_SET is not set"),
        ("seed", "expected key.path=value"),
        ("seed=-1", "seed: Input should be greater than or equal to 0, found -1"),
        ("data.split.seed=4294967296", "data.split.seed: Input should be less than 4294967296"),
        ("loss={name: triplet, weight: -1}", "a weight must not be negative, found -1"),
        ("loss={name: triplet, weight: {start: 0, end: -1}}", "loss.weight.end: Input should be greater"),
        ("loss={name: triplet, weight: {start: 0}}", "loss.weight.end: Field required"),
        ("loss={name: triplet, weight: much}", "loss.weight: Input should be a valid number, found 'much'"),
        ("evaluation.monitor=recall", "evaluation.monitor: Input should be 'map_at_r', 'recall_at_1'"),
        ("evaluation.monitor={eer: -1, map_at_r: 1}", "weights must not be negative: of eer and opis_debias"),
        ("data.text={characters: [], words: []}", "characters and words must not both be empty"),
        ("data.text.words=[9]", "Input should be less than or equal to 8, found 9"),
        ("seed=[", "not valid YAML"),
        ("name=a/b", "name"),
    ],
)
def test_a_wrong_key_or_value_is_named(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load(file, [override])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_configuration_are_named(tmp_path: Path) -> None:
    for content, message in [
        (b"[1, 2]", "must hold keys"),
        (b"a: [", "line"),
        (b"a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
        (b"\xff\xfe\x00", "UTF-8"),
    ]:
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(InputError, match=message):
            Config.load(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        Config.load(tmp_path / "none.yaml")


def test_variables_have_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    override = ["data={kind: images, path: '${LIMEN_SOMEWHERE:-there}/x'}"]
    assert Config.load(file, override).data.paths == [Path("there/x")]
    monkeypatch.setenv("LIMEN_SOMEWHERE", "/here")
    assert Config.load(file, override).data.paths == [Path("/here/x")]


def test_a_separate_test_set_takes_the_place_of_the_test_part(file: Path) -> None:
    assert Config.load(file, ["data.test_path=x"]).data.split.test == 0
    with pytest.raises(ConfigError, match=r"data\.split\.test must be 0"):
        Config.load(file, ["data.test_path=x", "data.split.test=0.2"])


def test_build_takes_index_and_calibration_alone() -> None:
    config = BuildConfig.from_overrides(["index.kind=hnsw", "index.m=16", "calibration.targets={eer: null}"])
    assert (config.index.kind, config.index.m) == ("hnsw", 16)
    assert config.calibration.targets == {"eer": None}
    with pytest.raises(ConfigError, match="unknown key 'seed'"):
        BuildConfig.from_overrides(["seed=1"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_of_the_repository_is_valid(path: Path) -> None:
    Config.load(path)


@pytest.mark.parametrize(
    ("data", "backbone"),
    [
        ({"path": "photos"}, "conv4"),
        ({"builtin": "glyphs"}, "conv4"),
        ({"kind": "text", "path": "t.csv"}, "ngram"),
        ({"kind": "table", "path": "t.csv"}, "mlp"),
        ({"kind": "embeddings", "path": "t.npz"}, "linear"),
    ],
)
def test_the_backbone_follows_the_kind_of_the_data(
    data: dict[str, str], backbone: str, tmp_path: Path
) -> None:
    config = Config.model_validate({"data": data})
    assert config.model.backbone == backbone
    sized = Config.model_validate({"data": data, "model": {"embedding_dim": 32}})
    assert (sized.model.backbone, sized.model.embedding_dim) == (backbone, 32)
    named = Config.model_validate({"data": data, "model": {"backbone": "resnet"}})
    assert named.model.backbone == "resnet"
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
