# Photos of products: a head on MobileNetV2, a gallery with calibrated thresholds, decisions over HTTP.
cat > grocery.yaml <<END
name: grocery
data: {path: photos, preprocessing: {preset: imagenet, size: 96, resize: stretch}}
model: {backbone: mobilenet_v2, weights: $LIMEN_DATASETS/encoders/mobilenet_v2_imagenet.safetensors,
        train: head, head_start: whitened, embedding_dim: 1280}
loss: {name: multi_similarity, base: 0.2}
optimizer: {lr: 1.0e-5}
schedule: {epochs: 6}
END
limen train grocery.yaml
limen export runs/grocery --target-fpir 0.1 --out bundle
limen serve bundle --port 8765 & trap "kill $!" EXIT
until curl -sf http://127.0.0.1:8765/readyz; do sleep 0.1; done
python - > answers.json <<END
import base64, json
from pathlib import Path
from limen.client import Client
photos = [base64.b64encode(file.read_bytes()).decode() for file in sorted(Path("queries").glob("*.jpg"))]
with Client("http://127.0.0.1:8765") as client:
    answers = client.match([{"input": "data:image/jpeg;base64," + photo} for photo in photos]).results
print(json.dumps([each.label if each.decision == "match" else None for each in answers]))
END
