"""The store of embeddings, filled by an encoder that is a function of each text."""

import numpy as np
import torch

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.stages import embeddings
from llamafactory_dids.stages.embeddings import EmbeddingFeatures
from llamafactory_dids.stages.filling import fill_store

TEXTS = ["", "one", "two two", "three " * 40, "x", "endless", "a longer text", "é" * 9, "last", "one"]


class Encoder:
    """Embeds a text by counts of letters; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, texts):
        self.batches.append(texts)
        rows = [[text.count(letter) + 0.25 * len(text) for letter in "eotx"] for text in texts]
        rows = [[float("inf")] * 4 if text == "endless" else row for text, row in zip(texts, rows, strict=True)]
        return torch.tensor(rows, dtype=torch.float64)


def fill(folder, encoder, max_tokens=None):
    store = open_store(folder, {"made": "by a test"}, len(TEXTS), 4, part_rows=4)
    fill_store(store, EmbeddingFeatures(TEXTS, encoder, max_tokens))
    return store


def contents(store):
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_each_row_is_its_texts_embedding_of_unit_length_with_its_norm(tmp_path):
    parts = list(fill(tmp_path, Encoder()).read_parts())
    unit_NK, norm_N, written_N = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    assert np.flatnonzero(~written_N).tolist() == [0, 5]  # of zero length, and not finite
    for n in np.flatnonzero(written_N):
        expected_K = Encoder()([TEXTS[n]])[0].numpy()
        np.testing.assert_allclose(unit_NK[n] * norm_N[n], expected_K, rtol=2e-3, atol=1e-3)


def test_every_text_is_encoded_once_and_batches_do_not_cross_parts(tmp_path):
    encoder = Encoder()
    fill(tmp_path, encoder)
    assert sorted(text for batch in encoder.batches for text in batch) == sorted(TEXTS)
    assert sorted(encoder.batches[0]) == sorted(TEXTS[:4])


def test_rows_do_not_depend_on_how_many_texts_a_batch_has(tmp_path, monkeypatch):
    whole = contents(fill(tmp_path / "whole", Encoder()))
    monkeypatch.setattr(embeddings, "MAX_BATCH", 1)
    assert contents(fill(tmp_path / "single", Encoder())) == whole


def test_long_texts_count_as_what_the_encoder_reads_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "MAX_BATCH_TOKENS", 40)
    for max_tokens, alone in ((10, False), (None, True)):
        encoder = Encoder()
        fill(tmp_path / str(max_tokens), encoder, max_tokens)
        assert ([TEXTS[3]] in encoder.batches) == alone
