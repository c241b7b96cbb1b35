"""Sentences with 150 intents: token embeddings by sentence-transformers, searched by chroma, decided here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import chromadb
import numpy as np
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

DATA = os.environ["LIMEN_DATASETS"]


def read(file):
    return [json.loads(row) for row in Path(file).read_text().splitlines()]


rows = read("texts.jsonl")
train = [row for row in rows if row["label"] != "oos"]
weights = load_file(f"{DATA}/encoders/wordllama_256.safetensors")["embedding.weight"].float()
tokenizer = Tokenizer.from_file(f"{DATA}/encoders/wordllama_tokenizer.json")
encoder = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights.numpy())])


def embed(rows):
    return encoder.encode([row["text"] for row in rows], normalize_embeddings=True)


chroma = Path(sys.executable).parent / "chroma"
server = subprocess.Popen([chroma, "run", "--path", "chroma", "--port", "8767"], stdout=subprocess.DEVNULL)
while True:
    try:
        client = chromadb.HttpClient(port=8767)
        break
    except ValueError:
        time.sleep(0.1)
try:
    gallery = embed(train)
    collection = client.create_collection(
        "texts", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    for start in range(0, len(train), 5000):
        part = train[start : start + 5000]
        collection.add(
            ids=[str(start + number) for number in range(len(part))],
            embeddings=gallery[start : start + 5000],
            metadatas=[{"label": row["label"]} for row in part],
        )

    def find(rows):
        found = collection.query(query_embeddings=embed(rows), n_results=1)
        return [
            (1 - distances[0], metadata[0]["label"])
            for distances, metadata in zip(found["distances"], found["metadatas"])
        ]

    # the threshold that 3 % of the sentences out of scope reach
    unknown = [row for row in rows if row["label"] == "oos"]
    threshold = np.quantile([similarity for similarity, _ in find(unknown)], 0.97)
    answers = [find([row])[0] for row in read("queries.jsonl")]
    decisions = [label if similarity >= threshold else None for similarity, label in answers]
    Path("answers.json").write_text(json.dumps(decisions))
finally:
    server.terminate()
