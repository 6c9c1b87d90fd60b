import itertools

import pytest
from replicate.prediction import Prediction as ClientPrediction

from services.simulator.progress import Run, log_text, step_s

RUN = Run(seed=1234567, steps=30, run_s=39.2)


def test_the_log_reads_as_wans_does() -> None:
    lines = log_text(RUN, RUN.run_s, finished=True).splitlines()

    assert lines[0] == "Using seed: 1234567"
    assert lines[1] == "  0%|          | 0/30 [00:00<?, ?it/s]"
    assert lines[12] == " 37%|███▋      | 11/30 [00:13<00:23,  1.25s/it]"
    assert lines[-2].startswith("100%|██████████| 30/30 [")
    assert lines[-1] == "Finished in 39.2s"


def test_the_log_only_grows() -> None:
    texts = [log_text(RUN, at / 10, finished=False) for at in range(392)]
    texts.append(log_text(RUN, 39.2, finished=True))

    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert len(set(texts)) == 32


@pytest.mark.parametrize("steps", [1, 7, 30, 50])
def test_replicates_client_reads_each_step(steps: int) -> None:
    run = Run(seed=1, steps=steps, run_s=20.0)
    for step in range(steps + 1):
        text = log_text(run, step * step_s(run) + 1e-6, finished=False)

        progress = ClientPrediction.Progress.parse(text)

        assert progress is not None
        assert (progress.current, progress.total) == (step, steps)
        assert progress.percentage == pytest.approx(step / steps, abs=0.006)


def test_fast_steps_are_told_per_second() -> None:
    assert "it/s]" in log_text(Run(1, 40, 20.0), 20.0, finished=False).splitlines()[-1]
