"""Where the three listeners answer."""

from dataclasses import dataclass

__all__ = ["Addresses"]


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the listeners, such as `http://127.0.0.1:8090`, without a slash."""

    api: str
    """Without `/v1`, as `replicate` 1.0.7 wants it."""
    delivery: str
    control: str

    def prediction(self, prediction_id: str) -> str:
        """Returns the API's address of a prediction."""
        return f"{self.api}/v1/predictions/{prediction_id}"

    def output(self, prediction_id: str) -> str:
        """Returns the address of a prediction's video."""
        return f"{self.delivery}/xezq/{prediction_id}/output.mp4"

    def upload(self, upload_id: str) -> str:
        """Returns the API's address of an uploaded file."""
        return f"{self.api}/v1/files/{upload_id}"
