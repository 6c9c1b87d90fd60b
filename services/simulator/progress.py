"""Writes the log of a running model, as far as it has come."""

from dataclasses import dataclass

__all__ = ["Run", "log_text", "step_s"]

BAR_WIDTH = 10
BAR_PARTS = " ▏▎▍▌▋▊▉"
# The rest of a run goes into decoding the frames.
DENOISING_SHARE = 0.96


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a model, as its log tells it; seconds at speed 1."""

    seed: int
    steps: int
    """Denoising steps, at least 1."""
    run_s: float
    """Seconds that the whole run takes."""


def step_s(run: Run) -> float:
    """Returns the seconds that one denoising step of `run` takes."""
    return run.run_s * DENOISING_SHARE / run.steps


def log_text(run: Run, elapsed_s: float, finished: bool) -> str:
    """Returns the log of `run` after `elapsed_s`; it only ever grows."""
    done = run.steps if finished else min(run.steps, int(elapsed_s / step_s(run)))
    lines = [f"Using seed: {run.seed}"]
    lines += [_bar_line(step, run.steps, step_s(run)) for step in range(done + 1)]
    if finished:
        lines.append(f"Finished in {run.run_s:.1f}s")
    return "\n".join(lines) + "\n"


def _bar_line(step: int, steps: int, each_s: float) -> str:
    """Returns one line in the form of tqdm, which Replicate's client knows how to read."""
    eighths = step * BAR_WIDTH * 8 // steps
    full, part = divmod(eighths, 8)
    bar = ("█" * full + (BAR_PARTS[part] if part else "")).ljust(BAR_WIDTH)
    head = f"{100 * step / steps:3.0f}%|{bar}| {step}/{steps}"
    if step == 0:
        return f"{head} [00:00<?, ?it/s]"
    rate = f"{each_s:5.2f}s/it" if each_s > 1 else f"{1 / each_s:5.2f}it/s"
    return f"{head} [{_clock(step * each_s)}<{_clock((steps - step) * each_s)}, {rate}]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
