"""Whatever is written as a document is read back equal, hash and all, and written again byte for byte."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_schemas.base import Schema
from api_schemas.build_config import BuildConfig
from api_schemas.comparison import Comparison
from api_schemas.config import Config
from api_schemas.diagnosis import Diagnosis
from api_schemas.http.gallery import Feedback
from api_schemas.manifest import Manifest
from api_schemas.operating_point import OperatingPoint, Score
from api_schemas.preprocessing import PreprocessingDocument
from api_schemas.report import Report
from api_schemas.yaml_config import read_mapping, validate_mapping
from common.errors import ConfigError
from decision.operating_point_files import SavedPoint, read_point
from embeddings.embedding_set import EmbeddingSet, normalise_queries, normalise_rows
from embeddings.files import read_embeddings, save_embeddings
from embeddings.hashes import hash_cohort, hash_items
from index.gallery.backup import BackupRecord
from index.gallery.generation_folders import GenerationRecord
from service.auth.api_keys import KeyFile
from service.models.model_registry import SavedChoice
from tests.properties.documents import build_documents

FEW = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
EXAMPLES = [12, pytest.param(60, marks=pytest.mark.full)]
DOCUMENTS: list[type[Schema]] = [
    BackupRecord,
    Comparison,
    Diagnosis,
    Feedback,
    GenerationRecord,
    KeyFile,
    Manifest,
    OperatingPoint,
    PreprocessingDocument,
    Report,
    SavedChoice,
]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("model", DOCUMENTS, ids=[model.__name__ for model in DOCUMENTS])
def test_a_document_is_read_back_equal(model: type[Schema], examples: int) -> None:
    @settings(FEW, max_examples=examples)
    @given(build_documents(model))
    def check(document: Schema) -> None:
        with TemporaryDirectory() as folder:
            document.save(Path(folder, "a.json"))
            read = model.load(Path(folder, "a.json"))
            read.save(Path(folder, "b.json"))
            assert read == document
            assert Path(folder, "a.json").read_bytes() == Path(folder, "b.json").read_bytes()

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_configuration_is_read_back_equal(monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    monkeypatch.setenv("HOME", "elsewhere")

    @settings(FEW, max_examples=examples)
    @given(build_documents(Config))
    def check(config: Config) -> None:
        with TemporaryDirectory() as folder:
            config.save(Path(folder, "config.yaml"))
            assert Config.load(Path(folder, "config.yaml")) == config

    check()


@pytest.mark.parametrize(
    "text",
    [
        "1e5",
        "1E-3",
        "0x1f",
        "1_000",
        "on",
        "null",
        "~",
        "2024-01-31",
        "12:30:00",
        "a${HOME}b",
        "$${HOME}",
        "${X:-y}",
        "$$",
        "a\nb",
        "\x85",
        "\u2028 x",
        " padded ",
        "\ufeff",
        "- a",
        "a: b",
        "#",
        "=",
        "<<",
        "\U0001f600",
        "\t",
        "'\"",
    ],
)
def test_texts_that_yaml_could_take_for_something_else_stay_texts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "elsewhere")
    config = Config.model_validate(
        {
            "data": {"path": [text, text], "unknown_labels": [text]},
            "model": {"note": text, "deep": {text: [text]}},
        }
    )
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
    config.save(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "config.yaml").read_bytes()


def test_variables_are_still_replaced_and_two_dollars_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOS", "somewhere")
    (tmp_path / "a.yaml").write_text("data: {path: ['${PHOTOS}/x', '${NONE:-y}', '$${PHOTOS}', 'cost $5']}\n")
    assert Config.load(tmp_path / "a.yaml").data.path == ["somewhere/x", "y", "${PHOTOS}", "cost $5"]
    (tmp_path / "a.yaml").write_text("data: {path: '${NONE_SUCH}'}\n")
    with pytest.raises(ConfigError, match="NONE_SUCH is not set"):
        Config.load(tmp_path / "a.yaml")


@FEW
@given(build_documents(BuildConfig))
def test_the_settings_of_a_bundle_are_read_back_equal(config: BuildConfig) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(config.to_yaml(), "utf-8")
        assert validate_mapping(BuildConfig, read_mapping(Path(folder, "config.yaml")), [], "x") == config


@st.composite
def draw_vectors(draw: st.DrawFn) -> np.ndarray:
    """Unit rows as any computation may leave them: normalised in float64 or float32, or stored coarser."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 200))
    rows = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, (shape[0], 1))
    rows[rows.any(axis=1) == 0] = 1.0
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    if draw(st.booleans()):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        if draw(st.booleans()):
            rows = rows * (1 + 1e-6 * rng.uniform(-1.5, 1.5, (shape[0], 1)))  # around the tolerance
    return np.asarray(rows, dtype=dtype)


@settings(FEW, max_examples=60)
@given(draw_vectors())
def test_rows_that_were_normalised_keep_their_bits(rows: np.ndarray) -> None:
    once = normalise_rows(rows)
    for again in (
        normalise_rows(once),
        normalise_rows(once.astype(np.float64)),
        normalise_rows(once.tolist()),
        normalise_queries(once, once.shape[1]),
        normalise_queries(once.astype(np.float64), once.shape[1]),
    ):
        assert again.tobytes() == once.tobytes()


@settings(FEW, max_examples=20)
@given(draw_vectors(), st.data())
def test_embeddings_are_read_back_equal_hash_and_all(rows: np.ndarray, data: st.DataObject) -> None:
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
    n = len(rows)
    labels = data.draw(st.lists(texts, min_size=n, max_size=n))
    ids = data.draw(st.lists(texts, min_size=n, max_size=n, unique=True))
    items = EmbeddingSet.from_arrays(rows, labels, ids)
    with TemporaryDirectory() as folder:
        save_embeddings(items, Path(folder, "a.npz"))
        read = read_embeddings(Path(folder, "a.npz"))
    assert hash_items(read) == hash_items(items)
    assert read.ids.tolist() == items.ids.tolist()
    assert read.labels.tolist() == items.labels.tolist()


@settings(FEW, max_examples=12)
@given(draw_vectors(), build_documents(OperatingPoint))
def test_a_density_point_is_read_back_with_its_cohort(rows: np.ndarray, point: OperatingPoint) -> None:
    cohort = EmbeddingSet.from_arrays(rows, ["c"] * len(rows))
    score = Score(
        kind="density",
        form="csls",
        parameters={"neighbours": 1, "weights": 1.0, "slope": 2.0, "intercept": 0.0},
        cohort_sha256=hash_cohort(cohort.vectors),
    )
    saved = SavedPoint(point.with_changes(score=score), cohort)
    with TemporaryDirectory() as folder:
        saved.save(Path(folder, "far.1.json"))
        read = read_point(Path(folder, "far.1.json"))
        assert read.point == saved.point
        assert read.cohort is not None
        assert read.cohort.vectors.tobytes() == cohort.vectors.tobytes()
        assert read.scorer.score == score
