"""Settings of the credits service."""

from typing import Annotated

from pydantic import Field

from services.credits.records import CREDITS_MAX
from services.runtime.database_settings import DatabaseSettings
from services.runtime.server import ServerSettings

__all__ = ["CreditsSettings"]


class CreditsSettings(ServerSettings, DatabaseSettings):
    """What the service needs to know."""

    welcome_bonus_credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] = 100
    """Credits that every new account begins with; 0 to 10^15."""
