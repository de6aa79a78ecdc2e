"""A cell's discharge by PyBaMM, for tests/test_battery.py: makes tests/data/pybamm_chen2020.csv.

Needs `pip install pybamm` in an environment of its own (it wants a newer numpy than the rest); nothing else here
does. The Doyle-Fuller-Newman model with the parameters of Chen et al. (J. Electrochem. Soc. 167, 2020, 080534): an
LG M50, 5 Ah, NMC 811 over graphite and silicon. The load is a field device's, three hours and a quarter in steps,
then a rest of 45 minutes, until the cell is empty.

    python -m tests.bench.pybamm_reference
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "data/pybamm_chen2020.csv"
HEADER = "# PyBaMM {version}, DFN, Chen2020 (LG M50), 25 C; made by tests/bench/pybamm_reference.py\n"
LOADS_MA = (250, 360, 500)
REST_MA = 16
CUT_OFF_V = 2.5


def experiment(pybamm: Any) -> Any:
    """Steps of 65 minutes at each load, then a rest, seven times more than a cell lasts."""
    until = f"or until {CUT_OFF_V} V"
    steps = [f"Discharge at {load} mA for 65 minutes {until}" for load in LOADS_MA]
    return pybamm.Experiment(
        [*steps, f"Discharge at {REST_MA} mA for 45 minutes {until}"] * 7, period="1 minute"
    )


def main() -> None:
    """Solve and write minute, load in mA, terminal volts, and the share of the charge that is left."""
    import pybamm  # noqa: PLC0415 (this script's alone)

    model = pybamm.lithium_ion.DFN()
    parameters = pybamm.ParameterValues("Chen2020")
    simulation = pybamm.Simulation(model, experiment=experiment(pybamm), parameter_values=parameters)
    solution = simulation.solve(initial_soc=1.0)
    amps, volts = solution["Current [A]"].entries, solution["Terminal voltage [V]"].entries
    drawn, hours = solution["Discharge capacity [A.h]"].entries, solution["Time [h]"].entries
    with OUT.open("w", encoding="utf-8") as out:
        out.write(HEADER.format(version=pybamm.__version__) + "minute,load_ma,volts,share\n")
        last = -1
        for a, v, q, h in zip(amps, volts, drawn, hours, strict=True):
            minute = round(h * 60)
            if minute > last and minute % 5 == 0:
                out.write(f"{minute},{a * 1000:.0f},{v:.4f},{1 - q / drawn[-1]:.5f}\n")
                last = minute


if __name__ == "__main__":
    sys.exit(main())
