"""ResNet-18 with the 3×3 first layer on CIFAR-10 in plain PyTorch: SGD at 0.1 with momentum 0.9 and weight decay
5e-4, a cosine over all epochs, batches of 128, random crop and flip. Prints one JSON line at the end."""

import torch
from torch import nn
from torch_common import arguments, loaders, print_result, train
from torchvision.models import resnet18


def build_model() -> nn.Module:
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def main():
    args = arguments(__doc__, 30)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    train_loader, test_loader = loaders(args.data, 128, args.train_images, pin_memory=args.device == "cuda")
    model = build_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    history, seconds = train(model, optimizer, scheduler, train_loader, test_loader, args.epochs, device)
    print_result(args, model, history, seconds)


if __name__ == "__main__":
    main()
