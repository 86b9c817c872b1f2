"""CIFAR-10 with Keras, as the usual project does it.

Two blocks of two convolutions, batch normalisation, pooling and dropout, then 512 features; Adam at 1e-3, batches of
128, 20 epochs, random flips and shifts by Keras' preprocessing layers, `model.fit` with the test images as
validation data. Prints one JSON line at the end.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def build_model():
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(0.1, 0.1),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train_images.npy …")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train-images", type=int, default=50_000, help="the first so many; fewer for a short look")
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    x_train = np.load(args.data / "train_images.npy")[: args.train_images].astype("float32") / 255
    y_train = keras.utils.to_categorical(np.load(args.data / "train_labels.npy")[: args.train_images], 10)
    x_test = np.load(args.data / "test_images.npy").astype("float32") / 255
    y_test = keras.utils.to_categorical(np.load(args.data / "test_labels.npy"), 10)

    model = build_model()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    history = model.fit(
        x_train, y_train, batch_size=128, epochs=args.epochs, validation_data=(x_test, y_test), verbose=2
    ).history
    train_seconds = time.perf_counter() - started
    accuracies = history["val_accuracy"]
    print(
        json.dumps(
            {
                "accuracy": accuracies[-1],
                "best_accuracy": max(accuracies),
                "seconds": {"train": round(train_seconds, 3)},
                "epochs": args.epochs,
                "train_images": len(x_train),
                "parameters": model.count_params(),
                "history": {name: [round(float(v), 5) for v in values] for name, values in history.items()},
                "versions": {
                    "python": platform.python_version(),
                    "tensorflow": tf.__version__,
                    "keras": keras.__version__,
                    "numpy": np.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
