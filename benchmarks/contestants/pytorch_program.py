"""CIFAR-10 in PyTorch, as the usual project does it: the network of keras_program.py, Adam at 1e-3, batches of 128,
20 epochs, torchvision's transforms and a DataLoader with two workers. Prints one JSON line at the end."""

import torch
from torch import nn
from torch_common import arguments, loaders, print_result, train


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3),
        nn.ReLU(),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
    ]


def build_model() -> nn.Sequential:
    return nn.Sequential(
        *block(3, 32),
        *block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * 6 * 6, 512),
        nn.ReLU(),
        nn.BatchNorm1d(512),
        nn.Dropout(0.5),
        nn.Linear(512, 10),
    )


def main():
    args = arguments(__doc__, 20)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    train_loader, test_loader = loaders(args.data, 128, args.train_images, pin_memory=args.device == "cuda")
    model = build_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    history, seconds = train(model, optimizer, None, train_loader, test_loader, args.epochs, device)
    print_result(args, model, history, seconds)


if __name__ == "__main__":
    main()
