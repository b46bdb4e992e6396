"""The mini preset's sentence encoder: latent semantic analysis of its training sources, by sentence-transformers.

A pretrained encoder such as the paper's comparison would take comes from a hub. This one is made of the data at hand:
a text is the mean of its words' vectors, a word's vector its inverse document frequency times its row of the truncated
SVD of the sources' TF-IDF matrix (Deerwester et al. 1990), so that texts of like words are near each other.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from scripts.quickstart import build_model

DIMENSIONS = 128
MIN_TEXTS = 3  # with a word in it, for the word to have a vector
WORD = r"\w+"
OTHER = "[other]"  # a word without one


def prepare(files: Sequence[Path], folder: Path, dimensions: int = DIMENSIONS) -> None:
    """The encoder of the sources in these files; what is there stays."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, StaticEmbedding

    if (folder / "modules.json").exists():
        return
    words, vectors_WE = word_vectors(texts(files), dimensions)
    static = StaticEmbedding(_tokenizer(words), embedding_weights=torch.from_numpy(vectors_WE))
    SentenceTransformer(modules=[static, Normalize()], device="cpu").save(str(folder))


def texts(files: Sequence[Path]) -> list[str]:
    """Each training sample's, its prompt and its answer."""
    rows = [row for file in files for row in build_model.samples(file)]
    return ["\n".join([row["instruction"], row["input"] or "", row["output"]]) for row in rows]


def word_vectors(texts: list[str], dimensions: int) -> tuple[list[str], np.ndarray]:
    """(W words, OTHER first; their vectors, float32, shape W, E); OTHER's is zero."""
    tf_idf = TfidfVectorizer(lowercase=True, token_pattern=WORD, min_df=MIN_TEXTS)
    svd = TruncatedSVD(dimensions, random_state=0).fit(tf_idf.fit_transform(texts))
    vectors_WE = tf_idf.idf_[:, None] * svd.components_.T
    return [OTHER, *tf_idf.get_feature_names_out()], np.vstack([np.zeros(dimensions), vectors_WE]).astype(np.float32)


def _tokenizer(words: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=OTHER))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    return tokenizer
