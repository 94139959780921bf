"""The mixed load of ``python -m tests.soak``: what it judges by."""

from __future__ import annotations

from tests.soak import Reading, judge

MB = 2**20


def test_the_soak_judges_what_it_measured() -> None:
    """``python -m tests.soak --seconds 3600`` is the hour; here, what it takes for a leak and what it does not."""

    def judged(growth: float, descriptors: int = 0) -> bool:
        readings = [
            Reading(float(at), int(50 * MB + at * growth), 14 + at * descriptors // 600, 1) for at in range(0, 600, 5)
        ]
        wrong: list[str] = []
        judge(readings, 600, wrong.append)
        return wrong == []

    assert judged(0)
    assert judged(0.5 * MB / 600)
    assert not judged(1.5 * MB / 600)
    assert not judged(0, descriptors=20)
