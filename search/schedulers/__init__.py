"""Who stops trials early. Schedulers see reports only, in their order, and can be led through them again."""

from __future__ import annotations

from search.schedulers.base import Decision, Scheduler
from search.schedulers.halving import PromotingASHA, StoppingASHA
from search.schedulers.median import MedianStopping
from search.schedulers.pbt import PopulationBasedTraining
from search.spec import SearchSpec

__all__ = ["Decision", "Scheduler", "build_scheduler"]


def build_scheduler(spec: SearchSpec) -> Scheduler:
    """The scheduler the spec asks for, without any history."""
    settings, seed, maximum = spec.search.scheduler, spec.search.seed, spec.maximum
    if settings.type == "asha":
        kind = PromotingASHA if settings.promote else StoppingASHA
        return kind(
            settings.grace_period, settings.reduction_factor, maximum, brackets=settings.brackets, seed=seed
        )
    if settings.type == "hyperband":
        return StoppingASHA(
            settings.grace_period, settings.reduction_factor, maximum, brackets=None, seed=seed
        )
    if settings.type == "median":
        return MedianStopping(settings.grace_period, settings.min_trials)
    if settings.type == "pbt":
        return PopulationBasedTraining(
            settings.perturbation_interval, spec.target, settings.quantile_fraction, seed
        )
    return Scheduler()
