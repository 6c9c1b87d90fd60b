"""The process that judges one image: `python -m services.generation.judge`.

Standard input is the image; standard output is a line of JSON, and after it the image made anew.
"""

import json
import sys

from services.generation.images import NotAccepted, judge_image

__all__ = ["main"]


def main() -> None:
    """Judges the image on standard input."""
    content = b""
    try:
        image = judge_image(sys.stdin.buffer.read())
    except NotAccepted as error:
        verdict: dict[str, object] = {"rule": str(error)}
    else:
        content = image.content
        verdict = {
            "format": image.format,
            "width_pixels": image.width_pixels,
            "height_pixels": image.height_pixels,
        }
    sys.stdout.buffer.write(json.dumps(verdict).encode() + b"\n" + content)


if __name__ == "__main__":
    main()
