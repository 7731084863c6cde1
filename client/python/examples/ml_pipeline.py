"""Tries settings of a classifier beside each other and trains the best one: needs scikit-learn.

    python examples/ml_pipeline.py
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import foresail

SETTINGS = [{"n_estimators": trees, "max_depth": depth} for trees in (20, 50) for depth in (4, 8)]


@foresail.task(outputs=2)
def load() -> Any:
    """Images of digits and what they show."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


@foresail.task(memory="auto", retries=1)
def score(settings: Dict[str, Any], x: Any, y: Any) -> Tuple[float, Dict[str, Any]]:
    """How well a classifier with these settings does."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    model = RandomForestClassifier(random_state=0, **settings)
    return float(cross_val_score(model, x, y, cv=3).mean()), settings


@foresail.task
def train(scores: List[Tuple[float, Dict[str, Any]]], x: Any, y: Any) -> Any:
    """A model with the best settings, and its score."""
    from sklearn.ensemble import RandomForestClassifier

    best, settings = max(scores, key=lambda entry: entry[0])
    return best, settings, RandomForestClassifier(random_state=0, **settings).fit(x, y)


if __name__ == "__main__":
    x, y = load()
    best, settings, model = train([score(settings, x, y) for settings in SETTINGS], x, y).compute()
    print(f"{best:.3f} with {settings}: {model}")
