"""The digest: independent of order, sensitive to everything else, and pinned by an example worked by hand."""

import hashlib
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from urzoo.data.digest import content_digest


def test_the_digest_of_a_text_and_label_is_as_documented():
    def row(text: str, label: int) -> bytes:
        content = text.encode()
        encoded = b"label\0" + struct.pack("<q", label) + b"text\0" + struct.pack("<Q", len(content)) + content
        return hashlib.sha256(encoded).digest()

    rows = sorted([row("né", 1), row("", -1)])
    expected = hashlib.sha256(b"".join(rows)).hexdigest()
    assert content_digest({"text": ["né", ""], "label": np.array([1, -1])}) == expected


def test_the_digest_of_an_image_and_a_sequence_is_as_documented():
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    encoded = b"image\0" + struct.pack("<III", 2, 3, 1) + bytes(range(6))
    assert content_digest({"image": image}) == hashlib.sha256(hashlib.sha256(encoded).digest()).hexdigest()
    sequence = np.array([[1.5, -2.0]], dtype=np.float32)
    encoded = b"s\0" + struct.pack("<II", 1, 2) + struct.pack("<ff", 1.5, -2.0)
    assert content_digest({"s": [sequence]}) == hashlib.sha256(hashlib.sha256(encoded).digest()).hexdigest()


@given(st.lists(st.text(max_size=5), min_size=1, max_size=8), st.randoms())
def test_order_does_not_change_the_digest_of_texts(texts: list[str], random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert content_digest({"text": texts}) == content_digest({"text": shuffled})


@given(st.lists(st.text(max_size=3), min_size=1, max_size=5), st.lists(st.text(max_size=3), min_size=1, max_size=5))
def test_different_texts_have_different_digests(one: list[str], other: list[str]):
    assert (content_digest({"text": one}) == content_digest({"text": other})) == (sorted(one) == sorted(other))
