"""Pairs of texts: marks of what changed, and the sample that is shown."""

from reporting import pairs


def test_changed_words_are_marked():
    before, after = pairs.marked("a good, warm film", "a goood, cold little film")
    assert before == "a <del>good</del>, <del>warm</del> film"
    assert after == "a <ins>goood</ins>, <ins>cold little</ins> film"
    assert pairs.marked("not bad", "bad") == ("<del>not</del> bad", "bad")
    assert pairs.marked("same <b>", "same <b>") == ("same &lt;b&gt;",) * 2
    _, after = pairs.marked("it's a film", '<script>alert("1")</script> & film')
    assert "<script" not in after and "&lt;" in after and "&amp;" in after
    assert pairs.marked("", "new") == ("", "<ins>new</ins>")


def test_marks_of_a_script_an_emoji_and_an_apostrophe():
    """U+2019 and U+02BC are part of a word; an emoji is a word; nothing of a text is markup."""
    before, after = pairs.marked("it\u2019s a film \U0001f600", "it\u02bcs a film \U0001f622")
    assert before == "<del>it\u2019s</del> a film <del>\U0001f600</del>"
    assert after == "<ins>it\u02bcs</ins> a film <ins>\U0001f622</ins>"
    before, after = pairs.marked(
        "isn\u2019t good", "isn\u2019t <script>alert('\U0001f600')</script>"
    )
    assert before == "isn\u2019t <del>good</del>"
    assert after == (
        "isn\u2019t <ins>&lt;script&gt;alert(&#x27;\U0001f600&#x27;)&lt;/script&gt;</ins>"
    )


def test_the_sample_depends_on_seed_and_attack_alone():
    assert pairs.sample(5, 40, 1, "a") == [0, 1, 2, 3, 4] and pairs.sample(0, 40, 1, "a") == []
    chosen = pairs.sample(1000, 40, 1, "a")
    assert chosen == sorted(set(chosen)) and len(chosen) == 40
    assert chosen != pairs.sample(1000, 40, 2, "a") != pairs.sample(1000, 40, 1, "b")
