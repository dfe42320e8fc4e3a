"""Names of tickets, and what two tickets differ in."""

from reporting.ticket_names import Origin, differ_in, relation, ticket_names


def origin(kind="robust", task="sst2", seed=1, epoch=5, **settings):
    source = {
        "kind": kind,
        "task": task,
        "seed": seed,
        "epoch": epoch,
        "encoder": {"name": "tiny", "fingerprint": "f"},
        "settings": settings,
    }
    return Origin.read(source, "0" * 64, "somewhere")


def test_names_show_what_differs():
    assert ticket_names([origin(seed=1), origin(seed=2)]) == ["seed 1", "seed 2"]
    assert ticket_names([origin(epoch=1), origin(epoch=5)]) == ["epoch 1", "epoch 5"]
    assert ticket_names([origin(), origin(task="builtin/rotten_tomatoes")]) == [
        "sst2",
        "rotten_tomatoes",
    ]
    assert ticket_names([origin(task="imdb"), origin(task="builtin/imdb")]) == [
        "imdb",
        "builtin/imdb",
    ]
    assert ticket_names([origin(), origin()]) == ["robust (1)", "robust (2)"]
    random = origin("random", task=None, seed=7, epoch=None)
    magnitude = origin("magnitude", task=None, seed=42, epoch=None)
    found = ticket_names([origin(), origin(seed=2), random, magnitude])
    assert found == ["robust, seed 1", "robust, seed 2", "random, seed 7", "magnitude"]
    found = ticket_names([origin(lambda_amp=0.5), origin(lambda_amp=0.1)])
    assert found == ["lambda_amp 0.5", "lambda_amp 0.1"]
    assert ticket_names([origin(a=1, b=1, c=1), origin(a=2, b=2, c=2)]) == [
        "robust (1)",
        "robust (2)",
    ]
    # Only settings that differ from the usual ones are shown, however many tickets have some.
    usual = {"a": 1, "b": 1, "c": 1}
    found = ticket_names([origin(**usual), *(origin(**usual | {key: 2}) for key in usual)])
    assert found == ["robust", "a 2", "b 2", "c 2"]
    assert ticket_names([origin(compile=None), origin(compile=False, seed=2)]) == [
        "seed 1",
        "seed 2",
    ]


def test_pairs_are_counted_by_what_differs():
    assert relation(differ_in(origin(), origin(seed=2))) == "seed only"
    assert relation(differ_in(origin(), origin(epoch=1))) == "epoch only"
    assert relation(differ_in(origin(lr=0.1), origin(task="imdb", lr=0.2))) == "task only"
    assert relation(differ_in(origin(), origin("no_adversary"))) == "kind only"
    assert relation(differ_in(origin(lr=0.1), origin(lr=0.2))) == "settings only"
    assert relation(differ_in(origin(), origin())) == "nothing"
    assert differ_in(origin(lr=0.1), origin(seed=2, lr=0.2)) == ("seed", "settings")
    assert relation(differ_in(origin(), origin(seed=2, epoch=1))) == "several"
    # A fact that one of the two lacks does not count; nor does the seed of noise.
    noise = origin("random", task=None, seed=42, epoch=None)
    assert differ_in(origin(), noise) == ("kind",)
    assert differ_in(noise, origin("random", task=None, seed=43, epoch=None)) == ("seed",)
