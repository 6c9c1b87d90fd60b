"""`reelworks models`: what can be asked for, and what it costs."""

from pathlib import Path

from services.cli.options import JsonOption, VarOption, certificates_of_operator, run
from services.cli.output import Column, print_json, print_table
from services.cli.up_file import service_address
from services.client.generations import GenerationClient, Model

__all__ = ["models"]


def models(var: VarOption = Path("var"), as_json: JsonOption = False) -> None:
    """List the models, their resolutions and prices.

    With --json: a line for each model.
    """
    found = run(_list_models(service_address("generation", var)))
    if as_json:
        for model in found:
            print_json(model)
        return
    columns = (
        Column("MODEL"),
        Column("NAME", folds=True),
        Column("KIND"),
        Column("RESOLUTION"),
        Column("CREDITS", is_number=True),
        Column("OPTIONS", folds=True),
    )
    rows = [
        (
            model.model,
            model.display_name,
            model.kind.lower().replace("_", "-"),
            resolution.resolution,
            resolution.price_credits,
            ", ".join(f"--{name.replace('_', '-')}" for name in resolution.parameters),
        )
        for model in found
        for resolution in model.resolutions
    ]
    print_table(columns, rows)


async def _list_models(address: str) -> tuple[Model, ...]:
    async with GenerationClient(address, certificates_of_operator()) as generations:
        return await generations.list_models()
