"""The benchmark's bookkeeping; speeds themselves are no test."""

import time

from kmlp.benchmarking import PEAK, Contender, measure, table


def test_medians_and_shares_follow_the_time_taken():
    def sleeper(seconds):
        return lambda: time.sleep(seconds)

    contenders = [
        Contender(PEAK, 1, 1000, sleeper(0.02)),
        Contender("half", 1, 500, sleeper(0.02)),
        Contender("batched", 4, 1000, sleeper(0.04)),
        Contender("other", 1, None, sleeper(0.02)),
    ]
    rounds = []
    timings = measure(contenders, rounds=3, progress=rounds.append)
    assert rounds == [1, 2, 3]
    assert [t.name for t in timings] == [PEAK, "half", "batched", "other"]
    assert abs(timings[1].share - 0.5) < 0.1
    assert abs(timings[2].share - 2.0) < 0.4
    assert timings[3].share is None
    assert 70 < timings[2].images_per_second <= 100
    assert "batched" in table(timings)
