"""From a picture on disk to a stored video of it."""

import sqlite3
from pathlib import Path

from PIL import Image

from tests.end_to_end.running import Running
from tests.pictures import make_picture


async def test_a_picture_becomes_a_video_with_a_still(stack: Running, tmp_path: Path) -> None:
    picture = tmp_path / "called.txt"
    picture.write_bytes(make_picture("JPEG", (640, 360)))

    result = stack.run(
        "generate", "the picture comes to life", "--user", "painter", "--model", "i2v-14B",
        "--image", str(picture), "--output", str(tmp_path / "video.mp4"),
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "video.mp4").read_bytes()[4:8] == b"ftyp"
    (still,) = (stack.var / "media" / "thumbnails" / "painter").iterdir()
    with Image.open(still, formats=["JPEG"]) as shown:
        assert shown.width <= 480
    (kept,) = (stack.var / "media" / "inputs" / "painter").iterdir()
    assert kept.suffix == ".jpg"
    with sqlite3.connect(f"file:{stack.var / 'generation.sqlite3'}?mode=ro", uri=True) as database:
        (row,) = database.execute(
            "SELECT i.provider_url, g.video_seconds FROM images i JOIN generations g "
            "ON g.image_uri = 'upload:' || i.image_id WHERE g.user_id = 'painter'"
        ).fetchall()
    assert "/v1/files/" in row[0]
    assert row[1] > 1
