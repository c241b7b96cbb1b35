"""Photos of products: MobileNetV2 trained by open-metric-learning, qdrant-client, a decision."""

import glob
import json
import os
from pathlib import Path

import albumentations as albu
import numpy as np
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from oml.datasets import ImageLabeledDataset
from oml.inference import inference
from oml.interfaces.models import IExtractor
from oml.losses import TripletLossWithMiner
from oml.miners import AllTripletsMiner
from oml.samplers import BalanceSampler
from published_weights import load_mobilenet
from qdrant_client import QdrantClient, models
from torch.utils.data import DataLoader

DATA = os.environ["LIMEN_DATASETS"]


class Extractor(IExtractor):
    def __init__(self):
        super().__init__()
        self.network = load_mobilenet()

    def forward(self, images):
        return torch.nn.functional.normalize(self.network(images))

    @property
    def feat_dim(self):
        return 1280


def list_photos(pattern):
    paths = sorted(glob.glob(pattern))
    names = np.array([path.split("/")[-2] for path in paths])
    return pd.DataFrame({"path": paths, "name": names, "label": pd.factorize(names, sort=True)[0]})


transform = albu.Compose([albu.Resize(96, 96), albu.Normalize(), ToTensorV2()])
photos = list_photos("photos/*/*.jpg")
held_out = photos["label"] % 4 == 3  # classes that choose the threshold
train = ImageLabeledDataset(photos[~held_out].reset_index(drop=True), transform=transform)
extractor = Extractor().train()
optimizer = torch.optim.Adam(extractor.parameters(), lr=1e-5)
criterion = TripletLossWithMiner(0.1, AllTripletsMiner())
sampler = BalanceSampler(train.get_labels(), n_labels=16, n_instances=4)
for batch in DataLoader(train, batch_sampler=sampler):
    loss = criterion(extractor(batch["input_tensors"]), batch["labels"])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
extractor.eval()

gallery = inference(extractor, ImageLabeledDataset(photos, transform=transform), batch_size=64).numpy()
client = QdrantClient(path="qdrant")
client.create_collection(
    "photos", vectors_config=models.VectorParams(size=1280, distance=models.Distance.COSINE)
)
client.upload_collection("photos", gallery, payload=[{"name": name} for name in photos["name"]])

# the threshold at which 10 % of the held-out photos match one of another class
chosen = np.flatnonzero(held_out)
labels = photos["label"].to_numpy()
similarities = gallery[chosen] @ gallery.T
others = np.where(labels[chosen, None] != labels[None], similarities, -1).max(axis=1)
threshold = np.quantile(others, 0.90)

dataset = ImageLabeledDataset(list_photos("queries/*.jpg"), transform=transform)
queries = inference(extractor, dataset, batch_size=64).numpy()
answers = [client.query_points("photos", query=query, limit=1).points[0] for query in queries]
decisions = [each.payload["name"] if each.score >= threshold else None for each in answers]
Path("answers.json").write_text(json.dumps(decisions))
