"""F5: updates merged into a better model. Pure: a base and what devices learned in, masks and weights out (docs/adr/0010).

docs/sync-merging.md has the rules and where they are from. `write_run` alone touches files.
"""

from edgecl.merge.contribution import Contribution, Merged
from edgecl.merge.judging import held_out_judge, mean_accuracy
from edgecl.merge.merging import merge
from edgecl.merge.screening import Judge, Screened, screen, screen_all
from edgecl.merge.settings import Settings
from edgecl.merge.stale import rebased
from edgecl.merge.statistics import recalibrated
from edgecl.merge.writing import write_run

__all__ = [
    "Contribution",
    "Judge",
    "Merged",
    "Screened",
    "Settings",
    "held_out_judge",
    "mean_accuracy",
    "merge",
    "rebased",
    "recalibrated",
    "screen",
    "screen_all",
    "write_run",
]
