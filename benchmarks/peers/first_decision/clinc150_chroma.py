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
parts = json.loads(Path(f"{DATA}/clinc150/data_full.json").read_text())
weights = load_file(f"{DATA}/encoders/wordllama_256.safetensors")["embedding.weight"].float()
tokenizer = Tokenizer.from_file(f"{DATA}/encoders/wordllama_tokenizer.json")
encoder = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights.numpy())])


def embed(rows):
    return encoder.encode([text for text, _ in rows], normalize_embeddings=True)


chroma = Path(sys.executable).parent / "chroma"
server = subprocess.Popen([chroma, "run", "--path", "chroma", "--port", "8767"], stdout=subprocess.DEVNULL)
while True:
    try:
        client = chromadb.HttpClient(port=8767)
        break
    except ValueError:
        time.sleep(0.1)
try:
    train = parts["train"]
    gallery = embed(train)
    collection = client.create_collection(
        "texts", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    for start in range(0, len(train), 5000):
        rows = range(start, min(start + 5000, len(train)))
        collection.add(
            ids=[str(row) for row in rows],
            embeddings=gallery[rows.start : rows.stop],
            metadatas=[{"label": train[row][1]} for row in rows],
        )

    def find(rows):
        found = collection.query(query_embeddings=embed(rows), n_results=1)
        return [
            (1 - distances[0], metadata[0]["label"])
            for distances, metadata in zip(found["distances"], found["metadatas"])
        ]

    # the threshold that 1 % of the sentences out of scope reach
    threshold = np.quantile([similarity for similarity, _ in find(parts["oos_train"])], 0.99)
    tests = parts["test"][::45]
    answers = [find([row])[0] for row in tests]
    decisions = ["match" if similarity >= threshold else "unknown" for similarity, _ in answers]
    right = [
        decision == "match" and label == answer[1]
        for decision, answer, (_, label) in zip(decisions, answers, tests)
    ]
    print(json.dumps({"decision": decisions[0], "right": sum(right) / len(right)}))
finally:
    server.terminate()
