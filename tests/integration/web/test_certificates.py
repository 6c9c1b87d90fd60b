"""What web shows to other services is measured."""

from pathlib import Path

from services.runtime.metrics import Metrics
from services.web.wiring import wired
from tests.certificates import Authority
from tests.integration.web.studio import web_settings


async def test_it_measures_until_when_its_certificate_is_good(tmp_path: Path) -> None:
    metrics, files = Metrics(), Authority().files(tmp_path, "web")

    async with wired(web_settings(tmp_path, **files.settings), metrics):
        expires_s = metrics.registry.get_sample_value("reelworks_certificate_expires_timestamp")

    assert expires_s == files.read().current().expires_at.timestamp()
