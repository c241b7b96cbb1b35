"""``data.kind: audio``: recordings in class folders, zips of those, or lists of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from api_schemas.base import describe_first_problem
from api_schemas.preprocessing import AudioInput
from common.array_types import Float32s
from common.errors import ConfigError
from common.progress import Track
from embeddings.embedding_set import convert_columns
from encoder.inputs.audio_decoder import check_bytes, decode_audio, resample
from encoder.inputs.audio_input import AudioPreprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.data.decoded.file_store import FileStore
from training.data.items import Items
from training.data.kinds.data_kind import DataKind
from training.data.labelled_files import FileForm, LabelledFile, find_files, read_each

SAMPLED = 64  # recordings that sample rate and statistics are taken from
USUAL_RATE = 16_000  # what networks of speech take; a lower one is kept


class AudioFile(LabelledFile):
    """One recording."""

    def read_samples(self) -> tuple[Float32s, int]:
        """Samples float32 [n] and how many a second; raises InputError naming the file."""
        with self.name_errors():
            return decode_audio(self.read())

    def read_pieces(self, preprocessing: AudioPreprocessing) -> Float32s:
        """The network's input, float32 [pieces, 1, mels, frames]; raises InputError naming the file."""
        with self.name_errors():
            return self.decode(self.read(), preprocessing)

    def decode(self, content: bytes, preprocessing: Preprocessing) -> Float32s:
        """``read_pieces`` of bytes that were read before."""
        assert isinstance(preprocessing, AudioPreprocessing)
        samples = resample(*decode_audio(content), preprocessing.rule.sample_rate)
        return preprocessing.compute_pieces(samples)


RECORDINGS = FileForm(
    AudioFile,
    "recording",
    frozenset((".wav", ".wave", ".flac")),
    ".wav or .flac",
    check_bytes,
    "WAV and FLAC are: convert others, e.g. with ffmpeg -i IN -ar 16000 -ac 1 OUT.flac.",
)


class Audio(DataKind[AudioPreprocessing]):
    """Raw inputs are ``AudioFile`` objects [n]; they are stored as ``Pieces``, float32 [n, most pieces, 1,
    mels, frames]."""

    noun = "recording"

    def read(self, paths: Sequence[Path], preprocessing: AudioPreprocessing | None = None) -> Items:
        """Ids are the files' names, columns the folder above the class's and those that all lists have."""
        data = self.data
        files = find_files(
            RECORDINGS,
            paths,
            data.path_column,
            data.label_column,
            data.encoding,
            self.say,
            self.needs_labels,
        )
        shared = set(files[0].columns).intersection(*(file.columns for file in files))
        inputs = np.empty(len(files), dtype=object)
        inputs[:] = files
        times = {"file_time": np.array([file.read_time() for file in files])} if data.file_times else {}
        return Items(
            inputs,
            np.array([file.label for file in files]),
            np.array([file.name for file in files]),
            {
                "folder": np.array([file.folder for file in files]),
                **times,
                **convert_columns({name: [file.columns[name] for file in files] for name in sorted(shared)}),
            },
        )

    def fit_preprocessing(self, train: Items) -> AudioPreprocessing:
        """Sample rate, mean and deviation of a sample of the training recordings, where they are not said."""
        files: list[AudioFile] = train.inputs[:: max(1, len(train) // SAMPLED)].tolist()
        audio = self.data.audio
        rates = (
            [] if audio.sample_rate else read_each(files, lambda file: file.read_samples()[1], "recording")
        )
        said = {"sample_rate": min(USUAL_RATE, int(np.median(rates)))} if rates else {}
        plain = AudioPreprocessing(self._build_rule(**said).model_copy(update={"mean": 0.0, "std": 1.0}))
        if audio.mean is None or audio.std is None:
            pieces = np.concatenate(read_each(files, lambda file: file.read_pieces(plain), "recording"))
            mean, std = round(float(pieces.mean()), 4), round(max(float(pieces.std()), 1e-3), 4)
            return AudioPreprocessing(self._build_rule(**said, mean=mean, std=std))
        return AudioPreprocessing(self._build_rule(**said))

    def build_placeholder(self) -> AudioPreprocessing:
        return AudioPreprocessing(self._build_rule())

    def store(
        self,
        parts: Mapping[str, Items],
        paths: Sequence[Path],
        preprocessing: AudioPreprocessing,
        track: Track,
    ) -> dict[str, Items]:
        """In memory up to ``data.memory_gb``, else decoded once into a cache on disk, see ``FileStore``."""
        return FileStore(self.data, preprocessing, track, self.say, self.noun).store(parts, paths)

    def prepare(self, raw: Items, preprocessing: AudioPreprocessing, track: Track) -> Items:
        """Decode and transform; broken recordings are left out with ``data.broken: skip``."""
        store = FileStore(self.data, preprocessing, track, self.say, self.noun, threads=1)
        decoded = store.decode(raw)
        return replace(decoded, inputs=decoded.inputs[:])

    def _build_rule(self, **said: object) -> AudioInput:
        try:
            return self.data.audio.as_input(**said)
        except ValueError as error:
            where, what = describe_first_problem(error)  # type: ignore[arg-type]
            raise ConfigError(f"data.audio: {where}: {what}.") from None

    def _describe_same_id(self, row: int, other: int, item_id: str) -> str:
        return (
            f"recordings {row} and {other} are both called '{item_id}': name each once, and give folders and "
            "archives that are read together different names."
        )
