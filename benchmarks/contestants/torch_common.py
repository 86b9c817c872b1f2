"""What the two plain PyTorch programs share: torchvision's way to the images, and the epochs."""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def arguments(description: str, epochs: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with train_images.npy …")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--train-images", type=int, default=50_000, help="the first so many; fewer for a short look")
    return parser.parse_args()


class Cifar10(torch.utils.data.Dataset):
    """What torchvision.datasets.CIFAR10 does with an item (a PIL image through the transform), from .npy files: the
    original checks the checksums of one archive format, which not every copy of the data is in."""

    def __init__(self, folder: Path, split: str, transform, count: int | None = None):
        self.data = np.load(folder / f"{split}_images.npy")[:count]
        self.targets = np.load(folder / f"{split}_labels.npy")[:count].tolist()
        self.transform = transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def loaders(folder: Path, batch_size: int, train_images: int, pin_memory: bool):
    """Train and test loader: crop with a border of 4, flip, normalise; two workers."""
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    train = Cifar10(folder, "train", transforms.Compose([*augment, *normalize]), train_images)
    test = Cifar10(folder, "test", transforms.Compose(normalize))
    common = {"batch_size": batch_size, "num_workers": 2, "pin_memory": pin_memory}
    return (
        torch.utils.data.DataLoader(train, shuffle=True, **common),
        torch.utils.data.DataLoader(test, shuffle=False, **common),
    )


@torch.no_grad()
def evaluate(model: nn.Module, loader, device: torch.device) -> float:
    model.eval()
    right = 0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        right += (model(images).argmax(1) == labels).sum().item()
    return right / len(loader.dataset)


def train(model, optimizer, scheduler, train_loader, test_loader, epochs: int, device: torch.device):
    """The epochs, each followed by a look at the test images. Gives the history and the seconds it took."""
    criterion = nn.CrossEntropyLoss()
    history = {"loss": [], "accuracy": [], "val_accuracy": []}
    started = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        total, right = 0.0, 0
        for images, labels in train_loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            right += (outputs.argmax(1) == labels).sum().item()
        if scheduler is not None:
            scheduler.step()
        seen = len(train_loader.dataset)
        history["loss"].append(round(total / seen, 5))
        history["accuracy"].append(round(right / seen, 5))
        history["val_accuracy"].append(evaluate(model, test_loader, device))
        print(f"epoch {epoch + 1}/{epochs}", {name: values[-1] for name, values in history.items()}, flush=True)
    return history, time.perf_counter() - started


def print_result(args, model, history, seconds: float) -> None:
    cuda = args.device == "cuda"
    print(
        json.dumps(
            {
                "accuracy": history["val_accuracy"][-1],
                "best_accuracy": max(history["val_accuracy"]),
                "seconds": {"train": round(seconds, 3)},
                "epochs": args.epochs,
                "train_images": args.train_images,
                "parameters": sum(p.numel() for p in model.parameters()),
                "device_bytes": torch.cuda.max_memory_allocated() if cuda else None,
                "history": history,
                "versions": {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "torchvision": torchvision.__version__,
                    "numpy": np.__version__,
                    **({"cuda": torch.version.cuda} if cuda else {}),
                },
            }
        )
    )
