"""The governor: what is worth its energy, scan by scan, within a mission's budget.

budget.py    what a user may ask for: 1%, 20mAh, 50J
ledger.py    the hard limit, through kills and restarts
ladder.py    what each rung is worth and costs, at every price of energy
forecast.py  what is still to come
pricing.py   the price that follows, and its thresholds
memory.py    what was learnt, through restarts
history.py   what earlier missions heard, and the spending plan that is learnt from them
policy.py    the decisions
"""

from edge_runtime.governor.budget import Budget
from edge_runtime.governor.forecast import Past
from edge_runtime.governor.ladder import Calibration, Costs, Ladder, Trial
from edge_runtime.governor.ledger import Entry, Ledger, last_entry, resumed_us
from edge_runtime.governor.policy import Governor

__all__ = [
    "Budget",
    "Calibration",
    "Costs",
    "Entry",
    "Governor",
    "Ladder",
    "Ledger",
    "Past",
    "Trial",
    "last_entry",
    "resumed_us",
]
