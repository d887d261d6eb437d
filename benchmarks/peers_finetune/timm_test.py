"""What timm's ``train.py`` leaves to its user: the test of the best weights, class by class, and a new photograph."""

import sys

import timm
import torch
from PIL import Image
from sklearn.metrics import classification_report
from timm.data import create_dataset, create_loader, create_transform, resolve_data_config

folder, model, weights, size, batch, epochs, seed, workers, photo = sys.argv[1:]  # benchmark

if __name__ == "__main__":
    test = create_dataset("", folder, split="test")
    classes = list(test.reader.class_to_idx)
    best = "output/run/model_best.pth.tar"
    network = timm.create_model(model, num_classes=len(classes), checkpoint_path=best).eval()
    config = resolve_data_config({"img_size": int(size)}, model=network)
    loader = create_loader(
        test, batch_size=int(batch), num_workers=int(workers), use_prefetcher=False, device="cpu", **config
    )
    labels, answers = [], []
    with torch.no_grad():
        for images, targets in loader:
            labels += targets.tolist()
            answers += network(images).argmax(1).tolist()
        image = create_transform(**config)(Image.open(photo).convert("RGB"))
        probabilities = network(image[None]).softmax(1)[0]
    print("accuracy", sum(a == b for a, b in zip(labels, answers, strict=True)) / len(labels))
    print(classification_report(labels, answers, target_names=classes, zero_division=0))
    print(classes[probabilities.argmax()], probabilities)
