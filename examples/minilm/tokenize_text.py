"""WordPiece for English text, enough to feed MiniLM: lower case, split at punctuation, longest piece first."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 128
CALIBRATION_SENTENCES = 32


def load_sentences() -> tuple[list[str], list[str]]:
    """The sentences beside this file: the first 32 to calibrate, the rest (never seen in calibration) to evaluate."""
    text = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[:CALIBRATION_SENTENCES], lines[CALIBRATION_SENTENCES:]


class WordPiece:
    def __init__(self, vocabulary: Path) -> None:
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def encode(self, text: str, length: int = LENGTH) -> NDArray[np.int32]:
        """Token ids with [CLS] and [SEP] around them, cut to `length`."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
        words = re.findall(r"[a-z0-9]+|[^\sa-z0-9]", plain)
        pieces = [piece for word in words for piece in self._pieces(word)][: length - 2]
        return np.array([self.ids["[CLS]"], *pieces, self.ids["[SEP]"]], np.int32)

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in self.ids:
                    found.append(self.ids[piece])
                    start = end
                    break
            else:
                return [self.ids["[UNK]"]]
        return found


def encode_all(sentences: list[str], vocabulary: Path, length: int = LENGTH) -> dict[str, NDArray[Any]]:
    """ids i32[N,1,L] and mask f32[N,1,L]."""
    tokenizer = WordPiece(vocabulary)
    ids = np.zeros((len(sentences), 1, length), np.int32)
    mask = np.zeros((len(sentences), 1, length), np.float32)
    for row, sentence in enumerate(sentences):
        tokens = tokenizer.encode(sentence, length)
        ids[row, 0, : len(tokens)] = tokens
        mask[row, 0, : len(tokens)] = 1
    return {"ids": ids, "mask": mask}


def write_samples(sentences: list[str], vocabulary: Path, out: Path) -> None:
    np.savez_compressed(out, **encode_all(sentences, vocabulary))
