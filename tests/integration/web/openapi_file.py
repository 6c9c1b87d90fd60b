"""The description of the API as it was last agreed on; run as a module, this writes it anew."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.integration.web.studio import running_studio, web_settings

FILE = Path(__file__).parent / "openapi.json"
COMMAND = "python -m tests.integration.web.openapi_file"


async def describe(folder: Path) -> Any:
    """What the app says of itself; it has nobody to ask for that."""
    async with running_studio(web_settings(folder)) as studio:
        return studio.app.openapi()


def written(description: Any) -> str:
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        FILE.write_text(written(asyncio.run(describe(Path(name)))))


if __name__ == "__main__":
    main()
