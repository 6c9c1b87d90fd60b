"""Has images judged one after another, each by a process that ends with its caller or its time.

A decoder cannot be stopped while it is at work, and may be made to crash by what it reads. In a
process of its own it takes nobody with it, and sees none of this service's secrets.
"""

import asyncio
import json
import os
import sys
from collections import Counter

from services.generation.images import ImageFormat, NotAccepted, StillImage
from services.runtime.errors import Overloaded
from services.runtime.telemetry import get_logger

__all__ = ["Judging"]

JUDGED_AT_ONCE = 1
"""The largest image takes 640 MB while it is judged."""
WAITING_MAX = 16
"""Images that wait to be judged, of 10 MiB each; those above are refused."""
WAITING_OF_USER_MAX = 2
"""Those of one user, so that nobody takes all places."""
JUDGED_S = 20.0
"""An image that takes longer is refused; the largest of ordinary make takes some seconds."""
AGAIN_S = 5.0

_COMMAND = (sys.executable, "-P", "-m", "services.generation.judge")
_INHERITED = ("PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")

logger = get_logger(__name__)


class Judging:
    """The queue before the judge."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(JUDGED_AT_ONCE)
        self._waiting: Counter[str] = Counter()

    async def judge(self, user_id: str, content: bytes) -> StillImage:
        """Returns the image in `content`, made anew; raises NotAccepted and Overloaded.

        Whoever cancels the call leaves the queue, or ends the judging.
        """
        if self._waiting[user_id] >= WAITING_OF_USER_MAX:
            raise Overloaded(
                "SERVICE_OVERLOADED",
                f"{WAITING_OF_USER_MAX} images of yours are being looked at.",
                retry_after_s=AGAIN_S,
            )
        if self._waiting.total() >= WAITING_MAX:
            raise Overloaded("SERVICE_OVERLOADED", "Too many images at once.", AGAIN_S)
        self._waiting[user_id] += 1
        try:
            async with self._free:
                return await _judge(content)
        finally:
            self._waiting[user_id] -= 1
            # Or this would remember everybody for ever.
            self._waiting += Counter()


async def _judge(content: bytes) -> StillImage:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=inherited,
    )
    try:
        async with asyncio.timeout(JUDGED_S):
            answer, problem = await process.communicate(content)
    except TimeoutError:
        raise NotAccepted(
            "must be simpler: it takes too long to read; make it smaller, or save it anew"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    head, _, image = answer.partition(b"\n")
    if process.returncode != 0:
        logger.error(
            "judge failed", code=process.returncode, problem=problem[-500:].decode(errors="replace")
        )
        raise NotAccepted("must be an image that can be read; save it anew and upload that")
    verdict = json.loads(head)
    if "rule" in verdict:
        raise NotAccepted(verdict["rule"])
    return StillImage(
        image,
        ImageFormat(verdict["format"]),
        verdict["width_pixels"],
        verdict["height_pixels"],
    )
