"""Training objectives by customization type.

To add one, write a module with a subclass of Objective and name the class in OBJECTIVES.
"""

from __future__ import annotations

from local_backend.errors import TrainerError
from local_backend.settings import Settings
from local_backend.training.objectives.continued_pretraining import ContinuedPreTraining
from local_backend.training.objectives.distillation import Distillation
from local_backend.training.objectives.fine_tuning import FineTuning
from local_backend.training.objectives.objective import Objective
from local_backend.training.objectives.preference_optimization import PreferenceOptimization
from local_backend.training.objectives.reinforcement import ReinforcementFineTuning

OBJECTIVES: dict[str, Objective] = {
    objective.customization_type: objective
    for objective in (
        FineTuning(),
        ContinuedPreTraining(),
        Distillation(),
        ReinforcementFineTuning(),
        PreferenceOptimization(),
    )
}


def find_objective(customization_type: str) -> Objective:
    """Return the objective of a job. Raise TrainerError if the trainer has none for it."""
    objective = OBJECTIVES.get(customization_type)
    if objective is None:
        raise TrainerError(
            f"The trainer has no objective for {customization_type}.",
            fix=f"set customization_type to {' or '.join(OBJECTIVES)}.",
        )
    return objective


def make_objective(settings: Settings) -> Objective:
    """Return the objective of a job, with its settings. Raise TrainerError."""
    return find_objective(settings.customization_type).for_job(settings)


__all__ = ["OBJECTIVES", "Objective", "find_objective", "make_objective"]
