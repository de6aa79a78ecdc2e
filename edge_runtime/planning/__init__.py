"""Before the mission, and after it: what it will cost, and what another policy would have cost.

work.py      energy of a scan by part and rung, from a bundle and a board's profile
arrivals.py  what the scanner will hear: a real log, or chance
flight.py    a mission flown through the real governor on a simulated clock
plan.py      `edge-runtime plan`
replay.py    `edge-runtime replay`
svg.py       the plot
"""
