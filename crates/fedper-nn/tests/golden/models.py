"""The networks as PyTorch has them: torchvision's ResNet-34 and timm's MobileNet-v1 themselves, which proves the names."""

import timm
from torch import nn
from torchvision.models import resnet34


def build(model, stem, shape, classes):
    """`model` for images of `shape` (channels, height, width)."""
    channels, height, width = shape
    if model == "resnet34":
        net = resnet34(num_classes=classes)
        if stem == "cifar":
            net.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
            net.maxpool = nn.Identity()
    elif model == "mobilenet_v1":
        net = timm.create_model("mobilenetv1_100", num_classes=classes, in_chans=channels)
        if stem == "cifar":
            net.conv_stem.stride = (1, 1)
    elif model == "cnn":
        # PFLlib's FedAvgCNN.
        side = lambda extent: ((extent - 4) // 2 - 4) // 2
        net = nn.Sequential()
        net.conv1 = nn.Sequential(nn.Conv2d(channels, 32, 5), nn.ReLU(), nn.MaxPool2d(2))
        net.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2))
        net.flatten = nn.Flatten()
        net.fc1 = nn.Sequential(nn.Linear(64 * side(height) * side(width), 512), nn.ReLU())
        net.fc = nn.Linear(512, classes)
    elif model == "mlp":
        net = nn.Sequential()
        net.flatten = nn.Flatten()
        net.fc1, net.relu1 = nn.Linear(channels * height * width, 200), nn.ReLU()
        net.fc2, net.relu2 = nn.Linear(200, 200), nn.ReLU()
        net.fc3 = nn.Linear(200, classes)
    else:
        raise ValueError(model)
    return net


def personal_names(model, net, k_p):
    """The names of the personal parameters and buffers: the last `k_p` blocks, counted from the output end."""
    blocks = {
        "resnet34": ["layer4.1.", "layer4.2.", "fc."],
        "cnn": ["fc1.", "fc."],
        "mlp": ["fc2.", "fc3."],
        "mobilenet_v1": ["blocks.4.0.", "blocks.4.1.", "classifier."],
    }[model][-k_p:]
    return [name for name in net.state_dict() if name.startswith(tuple(blocks))]
