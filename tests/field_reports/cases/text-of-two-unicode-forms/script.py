"""Composed and decomposed spellings are one text, but for models that were trained before."""

import unicodedata

import numpy as np

from api_schemas.data_config import TextConfig
from encoder.inputs.text_input import NgramPreprocessing

texts = ["Caf\u00e9 cr\u00e8me br\u00fbl\u00e9e", "na\u00efve \u00fcber", "\u1ec7t \ud55c\uad6d"]
decomposed = [unicodedata.normalize("NFD", text) for text in texts]
rule = TextConfig().as_input()
prepare = NgramPreprocessing(rule).prepare
np.testing.assert_array_equal(prepare(texts), prepare(decomposed))
older = NgramPreprocessing(rule.model_copy(update={"unicode_form": None})).prepare
np.testing.assert_array_equal(older(texts), prepare(texts))
assert (older(texts) != older(decomposed)).any()
