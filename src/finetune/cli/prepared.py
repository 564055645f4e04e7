"""What ``finetune preprocess`` says besides its report: the shares of several nodes, the steps of an epoch."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from finetune.config import RunConfig
    from finetune.data.prepare import PreparedData


def node_option(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``i/n``: number ``i`` of ``n`` nodes, counted from 1."""
    if value is None:
        return None
    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"{value!r} is not i/n with i from 1 to n, such as 1/4 for the first of four nodes.")
    return int(number), int(count)


def shares_are_there(config: "RunConfig", shard: tuple[int, int]) -> bool:
    """Tokenize one node's share; tell whether those of all nodes are there now."""
    from finetune.data.parts import Shard
    from finetune.preprocess import preprocess_shard

    number, count = shard
    shares = preprocess_shard(config, Shard(number, count))
    missing = [share for share in shares if share.num_missing]
    for share in missing:
        click.echo(
            f"{share.role}: share {number} of {count} is done; {share.num_missing} of {share.num_parts} parts are "
            "still missing, and the node that finishes last puts them together"
        )
    return not missing


def say_steps(config: "RunConfig", data: "PreparedData") -> None:
    """Print the optimizer steps of an epoch for the number of processes that this one knows of."""
    from finetune.processes import this_process
    from finetune.training.cadence import plan_cadence

    training, num_processes = config.training, this_process().world_size
    if training.micro_batch_size_auto:
        return  # training decides it, and says the steps then
    rows = data.packing.num_bins if data.packing else len(data.train)
    batches = -(-rows // (training.micro_batch_size * num_processes))
    steps = plan_cadence(training, batches, has_validation=data.validation is not None).steps_per_epoch
    click.echo(
        f"steps per epoch: {steps:,} (micro_batch_size {training.micro_batch_size} x gradient_accumulation_steps "
        f"{training.gradient_accumulation_steps} on {num_processes} process{'' if num_processes == 1 else 'es'})"
    )
