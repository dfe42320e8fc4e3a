"""The neighbor table of the built-in encoder, and its similarity."""

import pytest
import torch

from evaluation import minilm

VALENCE = {"good": 1.9, "great": 3.1, "bad": -2.5, "okay": 0.9}


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        ("good", "bad", True),
        ("good", "great", False),
        ("great", "okay", True),  # 2.2 apart
        ("fair", "good", True),  # unknown counts as 0: 1.9 apart
        ("fair", "okay", False),
        ("like", "unlike", True),
        ("dislike", "like", True),
        ("useful", "useless", True),
        ("aimless", "pointless", False),
        ("film", "movie", False),
    ],
)
def test_polarity(a, b, differ):
    assert minilm.differ_in_polarity(a, b, VALENCE) == differ


@pytest.mark.slow
def test_penn_tags():
    assert "NN" in minilm.penn_tags("film") and "VBG" in minilm.penn_tags("filming")
    assert not minilm.penn_tags("xqzzk")


NAMED = ["funny", "hilarious", "boring", "exciting", "film", "movie", "filming", "terrible"]
NAMED += ["story", "watch", "quickly"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of a sixth of the words, because all of them take 20 s."""
    words = minilm.MiniLM.words

    def some(encoder):
        known = words(encoder)
        assert len(known) > 10_000 and not {"the", "and", "not"} & {*known}
        return sorted({*known[::6], *NAMED} & {*known})

    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("ROBUST_TICKETS_CACHE", str(cache))
        patch.setattr(minilm.MiniLM, "words", some)
        table, path = minilm.neighbour_table()
        again = minilm.neighbour_table()
        assert again == (table, path) and path.parent.parent == cache
        yield table


def test_neighbours_are_synonyms_that_share_a_tag(table):
    assert 0.5 < sum(map(len, table.values())) / len(table) < 5
    assert table["funny"][0] == "hilarious" and "exciting" not in table["boring"]
    assert "movie" in table["film"] and "filming" not in table["film"]
    for word in ("terrible", "story", "watch", "quickly"):
        for other in table[word]:
            assert minilm.penn_tags(word) & minilm.penn_tags(other) and other != word
    assert max(map(len, table.values())) == minilm.MOST_NEIGHBOURS


def test_encodings_do_not_depend_on_the_batch():
    encoder = minilm.MiniLM(batch_size=2)
    texts = [
        "a good film",
        "a good movie",
        "the stock market fell sharply again today",
        "a good film",
    ]
    together = encoder.encode(texts)
    assert together.shape == (4, 384) and torch.equal(together[0], together[3])
    assert torch.allclose(together.norm(dim=1), torch.ones(4))
    encoder.forget()
    assert torch.allclose(encoder.encode(texts[2:3]), together[2:3], atol=1e-5)
    cosines = together @ together.T
    assert cosines[0, 1] > 0.85 > 0.3 > cosines[0, 2]
    words = encoder.encode_words(["film", "movie"])
    assert torch.allclose(words, encoder.encode(["film", "movie"]), atol=1e-5)
