"""`doctor`: what this host has and what it lacks for machines, row by row, each with the command that mends it.

It looks and changes nothing. Checks run side by side and know nothing of each other; one that cannot look says so in
its own row.
"""

from banger.doctor.finding import Finding, Status
from banger.doctor.report import Row, examine

__all__ = ["Finding", "Row", "Status", "examine"]
