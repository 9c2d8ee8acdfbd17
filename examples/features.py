"""Classify handwritten digits with five labels per class: latents as features in a scikit-learn pipeline.

    python examples/features.py [MODEL] [--labels 5]

MODEL is a VAE for gray or RGB images. Without one, the features are principal components.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vaeworks.apps.features.latent_features import LatentFeatures


def main() -> None:
    """Fit features on all images without labels and a classifier on a few with labels; test on the other half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--labels", type=int, default=5, help="labelled images per class")
    args = parser.parse_args()

    digits = load_digits()
    rows, classes = np.round(digits.data * (255 / 16)).astype(np.uint8), digits.target
    pool, test = np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.permutation(pool[classes[pool] == c])[: args.labels] for c in range(10)])

    latents = LatentFeatures(args.model, image_shape=(8, 8)).fit(rows)
    names = latents.get_feature_names_out()
    print(f"{len(names)} features, the first: {', '.join(names[:3])}")
    for name, features in (("pixels", FunctionTransformer()), ("latents", latents)):
        x = features.transform(rows)
        classifier = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression__C": [0.01, 0.1, 1]},
            cv=args.labels,
        )
        accuracy = classifier.fit(x[train], classes[train]).score(x[test], classes[test])
        print(f"{name}: accuracy {accuracy:.1%}")

    pipeline = make_pipeline(LatentFeatures(args.model, image_shape=(8, 8)), StandardScaler(), LogisticRegression())
    accuracy = pipeline.fit(rows[train], classes[train]).score(rows[test], classes[test])
    print(f"one pipeline, fitted on the labelled images alone: accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
