"""Which fields mattered: PED-ANOVA (Watanabe et al. 2023), which needs no scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenfold.tuning import storage

if TYPE_CHECKING:
    from optuna import Study

LEAST = 8  # trials; of fewer nothing can be said
TOP = 0.25  # how good a trial must be for its fields to count: among the best quarter


def importance(study: Study) -> dict[str, float]:
    """Each field's share in whether a trial comes among the best quarter, the largest first; empty where too few
    trials have ended. A pruned trial counts as worse than every completed one, which is all that is known of it."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    known = [t for t in ended if t.params and t.intermediate_values]
    if len(known) < LEAST:
        return {}
    view = optuna.create_study(direction="maximize")  # in memory: the study itself is left as it is
    for trial in known:
        value = trial.value if trial.state == TrialState.COMPLETE else _last(trial.intermediate_values) - 1
        view.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    with storage.quiet():
        found = get_param_importances(view, evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP))
    return {name: float(value) for name, value in found.items()}


def _last(values: dict[int, float]) -> float:
    return values[max(values)]
