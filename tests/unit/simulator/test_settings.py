from pathlib import Path

import pytest

from services.simulator.faults.profiles import Profile
from services.simulator.settings import SimulatorSettings, read_settings
from services.simulator.switches import Switches


def test_the_defaults_are_those_of_the_local_stack() -> None:
    settings = read_settings([])

    assert settings == SimulatorSettings()
    assert (settings.api_port, settings.delivery_port, settings.control_port) == (8090, 8091, 8092)
    assert settings.tokens == ("r8_simulator",)


def test_every_option_is_taken() -> None:
    typed = (
        "--host ::1 --public-host simulator"
        " --api-port 0 --delivery-port 0 --control-port 0 --seed 9 --speed 1000"
        " --token r8_a --token r8_b --token r8_a --retention-s 5 --data var/simulator"
        " --allow-host Media.Example --video stamp --log-format json"
        " --switch list_lag_s=20 --switch cancel_finished_status=409 --switch schemas=spring-2025"
        " --switch webhook_echoed=false --profile flaky"
    )

    settings = read_settings(typed.split())

    assert settings == SimulatorSettings(
        host="::1",
        public_host="simulator",
        api_port=0,
        delivery_port=0,
        control_port=0,
        seed=9,
        speed=1000.0,
        tokens=("r8_a", "r8_b"),
        retention_s=5.0,
        data=Path("var/simulator"),
        allowed_hosts=frozenset({"127.0.0.1", "::1", "localhost", "media.example"}),
        video="stamp",
        log_format="json",
        switches=Switches(
            list_lag_s=20,
            cancel_finished_status=409,
            schemas="spring-2025",
            webhook_echoed=False,
        ),
        profile=Profile.FLAKY,
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--speed", "0"),
        ("--speed", "1001"),
        ("--api-port", "65536"),
        ("--retention-s", "0"),
        ("--switch", "list_lag_s=-1"),
        ("--switch", "weather=fine"),
        ("--profile", "sunny"),
    ],
)
def test_a_value_out_of_range_ends_the_process(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings([option, value])

    assert caught.value.code == 2
    assert option in capsys.readouterr().err
