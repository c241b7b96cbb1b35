"""A teacher's features of the training items, and training that follows them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from api_schemas.config import Config, TeacherConfig
from common.errors import ConfigError, InputError
from encoder.encoder import Encoder
from tests.training.runs import EVERYTHING, MakeConfig, load_made, make_data
from training.config_checks import check_config
from training.data.kinds import open_kind
from training.data.load_data import load_data
from training.data.teacher import load_teacher_features, load_unlabelled
from training.loop.train import train
from training.losses.nd import ND
from training.run_folder.run_folder import Run


def test_nd_takes_the_direction_of_the_teacher_s_class_and_the_length_of_its_feature() -> None:
    directions = F.normalize(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), dim=1)
    loss = ND(directions)
    student = torch.tensor([[1.0, 1.0], [6.0, 8.0], [0.5, 0.0]], requires_grad=True)
    features = torch.tensor([[4.0, 0.0], [0.0, 5.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0])
    # 1 - 1 / 4, 1 - 10 / 10, 1 - 0.5 / 2
    value = loss(student, labels, None, features, labels)
    torch.testing.assert_close(value, torch.tensor((0.75 + 0 + 0.75) / 3))
    value.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[2], torch.tensor([-1 / 6, 0.0]))  # along the class, to grow


def test_vectors_are_found_by_id_and_keep_their_lengths(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors, ids = random.normal(size=(30, 5)).astype(np.float32) * 7, [f"item-{n}" for n in range(30)]
    labels = np.repeat(np.arange(10), 3)
    np.savez(tmp_path / "data.npz", embeddings=random.normal(size=(30, 4)), labels=labels, ids=ids)
    order = random.permutation(30)
    np.savez(
        tmp_path / "teacher.npz", embeddings=vectors[order], labels=labels[order], ids=np.array(ids)[order]
    )
    data = make_data(tmp_path / "data.npz", kind="embeddings")
    train_items = load_made(tmp_path / "data.npz", kind="embeddings").train
    teacher = TeacherConfig(vectors=str(tmp_path / "teacher.npz"))
    features = load_teacher_features(teacher, data, train_items)
    expected = vectors[[ids.index(name) for name in train_items.ids.tolist()]]
    np.testing.assert_array_equal(features, expected)

    gone = int(np.flatnonzero(np.array(ids)[order] == train_items.ids[3])[0])
    kept = np.arange(30) != gone
    np.savez(
        tmp_path / "teacher.npz",
        embeddings=vectors[order][kept],
        labels=labels[order][kept],
        ids=np.array(ids)[order][kept],
    )
    with pytest.raises(InputError, match=f"no vector of 1 training items, e.g. '{train_items.ids[3]}'"):
        load_teacher_features(teacher, data, train_items)


def test_the_encoder_of_a_bundle_is_asked_with_its_own_preprocessing(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    encoder = run.ensure_encoder()
    data = run.config.data.model_copy(update={"image_size": 20})  # the student sees larger images
    items = load_data(data).train
    features = load_teacher_features(TeacherConfig(bundle=str(encoder)), data, items)
    embedded = run.load_embeddings("train")
    assert embedded is not None
    rows = [embedded.ids.tolist().index(name) for name in items.ids.tolist()]
    np.testing.assert_allclose(features, embedded.vectors[rows], atol=1e-5)


def test_inputs_without_labels_are_read_and_shown_to_the_teacher(
    small: MakeConfig, drawings: Path, finished: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted(drawings.rglob("*.png"))[:7]):
        shutil.copy(file, tmp_path / f"{number}.png")  # in no class folder
    encoder = Run.open(finished).ensure_encoder()
    teacher = TeacherConfig(bundle=str(encoder), data=str(tmp_path))
    data = small().data
    unlabelled = load_unlabelled(teacher, data, load_data(data).preprocessing)
    assert unlabelled.items.ids.tolist() == [f"{number}.png" for number in range(7)]
    assert unlabelled.items.inputs.shape[0] == 7
    served = Encoder.open(encoder, threads=1)
    expected = served.embed(served.preprocessing.normalise(unlabelled.items.inputs))
    np.testing.assert_allclose(unlabelled.features, expected, atol=1e-5)
    with pytest.raises(InputError, match=r"0\.png is in no class folder"):
        load_data(make_data(tmp_path))


@pytest.mark.parametrize("kind", ["text", "table"])
def test_tables_without_a_label_column_are_read_where_none_is_needed(tmp_path: Path, kind: str) -> None:
    rows = ["text,a,b", *(f"text {k},{k},{k % 3}" for k in range(6))]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    reader = open_kind(make_data(tmp_path / "rows.csv", kind=kind))
    with pytest.raises(InputError, match="label"):
        reader.read([tmp_path / "rows.csv"])
    reader.needs_labels = False
    if kind == "table":
        (tmp_path / "numbers.csv").write_text("a,b\n" + "\n".join(f"{k},{k % 3}" for k in range(6)) + "\n")
    items = reader.read([tmp_path / ("rows.csv" if kind == "text" else "numbers.csv")])
    assert items.labels.tolist() == [""] * 6


def test_a_student_follows_its_teacher(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(12), 5)
    means, sight = random.normal(size=(12, 16)), random.normal(size=(16, 6))
    inputs = means[labels] + 0.1 * random.normal(size=(60, 16))
    directions = F.normalize(torch.from_numpy(means @ sight), dim=1).numpy()
    np.savez(tmp_path / "data.npz", embeddings=inputs, labels=labels)
    np.savez(tmp_path / "teacher.npz", embeddings=3 * directions[labels], labels=labels)

    def measure(**changes: object) -> tuple[float, float]:
        config = Config.model_validate(
            {
                "data": {"kind": "embeddings", "path": str(tmp_path / "data.npz"), "split": EVERYTHING},
                "model": {"backbone": "linear", "embedding_dim": 6},
                "loss": ["multi_similarity", {"name": "nd", "weight": 4.0}],
                "sampler": {"batch_size": 30, "items_per_class": 5},
                "optimizer": {"lr": 0.05},
                "schedule": {"epochs": 1, "steps_per_epoch": 60, "patience": None},
                **changes,
            }
        )
        run = train(config, tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        items = run.load_embeddings("train")
        assert items is not None
        network = run.load_network()
        with torch.inference_mode():
            rows = F.normalize(torch.from_numpy(inputs.astype(np.float32)), dim=1)
            lengths = network.compute_outputs(network.backbone(rows)).norm(dim=1)
        along = (items.vectors * directions[items.labels.astype(int)]).sum(1)
        return float(along.mean()), float(lengths.mean())

    followed, length = measure(teacher={"vectors": str(tmp_path / "teacher.npz")})
    alone, _ = measure()
    assert followed > 0.8 > 0.5 > alone
    assert length > 2  # up to the teacher's 3


def test_teachers_that_do_not_fit_are_refused_before_training(
    small: MakeConfig, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="give either vectors, a file, or bundle"):
        TeacherConfig()
    vectors = {"vectors": str(finished / "embeddings" / "train.npz")}
    with pytest.raises(ConfigError, match="none of the losses follows a teacher: leave it out, or add nd"):
        check_config(small(teacher=vectors))
    follows = ["multi_similarity", {"name": "nd"}]
    data = {**small().data.model_dump(), "augmentation": {"rotations_as_classes": True}}
    with pytest.raises(ConfigError, match="not rotated or mirrored as classes"):
        check_config(small(teacher=vectors, loss=follows, data=data))
    longer = small(teacher=vectors, loss=follows, model={"backbone": "conv4", "embedding_dim": 16})
    with pytest.raises(ConfigError, match=r"8 numbers, an embedding, which nd compares, has 16.*dim to 8"):
        train(longer, tmp_path / "run")
    encoder = {"bundle": str(Run.open(finished).ensure_encoder())}
    check_config(small(teacher=encoder, loss=follows))
    table = {"data": {"kind": "text", "path": "x.csv"}, "model": {"backbone": "ngram"}}
    with pytest.raises(ConfigError, match=r"takes image inputs, data\.kind is 'text'"):
        check_config(small(**table, teacher=encoder, loss=follows))
