"""Each shipped DeepSpeed file trains two processes for real, with the numbers of plain data parallelism."""

from pathlib import Path

import pytest
from tests.distributed.launches import SHORT
from tests.distributed.runs import Case, largest_difference, metrics, run_cases

FILES = sorted(path.name for path in (Path(__file__).parents[2] / "deepspeed_configs").glob("*.json"))


@pytest.fixture(scope="module")
def cases(run_config: Path) -> dict[str | None, Case]:
    """Run all: without a file, then with each.  With DeepSpeed on a CPU ``bf16: auto`` is float32, as a line says."""
    made: dict[str | None, Case] = {None: Case(run_config, "shipped none", 2, SHORT)}
    for name in FILES:
        made[name] = Case(
            run_config, f"shipped {name}", 2, (*SHORT, "--bf16=auto", f"--deepspeed=deepspeed_configs/{name}")
        )
    run_cases(list(made.values()))
    return made


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_trains_to_the_same_weights(cases: dict[str | None, Case], name: str) -> None:
    plain, spread = cases[None], cases[name]
    assert spread.exit_codes == [0, 0], spread.log
    assert f"processes: 2, ZeRO-{name.removeprefix('zero')[0]}" in spread.log
    assert metrics(spread.out, "loss") == pytest.approx(metrics(plain.out, "loss"), rel=1e-5)
    assert largest_difference(spread.out, plain.out) < 1e-4
