"""Latents as features in a scikit-learn pipeline: handwritten digits with five labels of each class.

python examples/features.py [MODEL]      MODEL: any VAE for gray or RGB images; without one, principal components stand
in
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vaeworks.apps.features.latent_features import LatentFeatures

LABELS = 5


def main() -> None:
    """Fit on all images without labels, then a classifier on few with labels, and test on the other half."""
    digits = load_digits()
    rows, classes = np.round(digits.data * (255 / 16)).astype(np.uint8), digits.target
    pool, test = np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)
    rng = np.random.default_rng(0)
    known = np.concatenate([rng.permutation(pool[classes[pool] == c])[:LABELS] for c in range(10)])

    model = sys.argv[1] if len(sys.argv) > 1 else None
    latents = LatentFeatures(model, image_shape=(8, 8)).fit(rows)
    print(
        f"{latents.transform(rows[:1]).shape[1]} features, the first: {', '.join(latents.get_feature_names_out()[:3])}"
    )
    for name, features in (("pixels", FunctionTransformer()), ("latents", latents)):
        x = features.transform(rows)
        classifier = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.01, 0.1, 1]}, cv=LABELS
        )
        print(f"{name}: {classifier.fit(x[known], classes[known]).score(x[test], classes[test]):.1%} right")

    whole = make_pipeline(LatentFeatures(model, image_shape=(8, 8)), StandardScaler(), LogisticRegression())
    print(
        "one pipeline, fitted on the labelled images alone: "
        f"{whole.fit(rows[known], classes[known]).score(rows[test], classes[test]):.1%}"
    )


if __name__ == "__main__":
    main()
