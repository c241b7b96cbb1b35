# Photos of products: a head on MobileNetV2, a gallery with calibrated thresholds, decisions over HTTP.
python -m zipfile -e "$LIMEN_DATASETS/grocery_store/images_88px.zip" photos
cat > grocery.yaml <<END
name: grocery
data: {path: photos/train, preprocessing: {preset: imagenet, size: 96, resize: stretch}}
model: {backbone: mobilenet_v2, weights: $LIMEN_DATASETS/encoders/mobilenet_v2_imagenet.safetensors,
        train: head, head_start: whitened, embedding_dim: 1280}
loss: {name: multi_similarity, base: 0.2}
optimizer: {lr: 1.0e-5}
schedule: {epochs: 6}
END
limen train grocery.yaml
limen export runs/grocery --out bundle
limen serve bundle --port 8765 & trap "kill $!" EXIT
until curl -sf http://127.0.0.1:8765/readyz; do sleep 0.1; done
python - <<END
import base64, glob, json
from limen.client import Client
photos = sorted(glob.glob("photos/val/**/*.jpg", recursive=True))[::3]
urls = ["data:image/jpeg;base64," + base64.b64encode(open(photo, "rb").read()).decode() for photo in photos]
with Client("http://127.0.0.1:8765") as client:
    answers = [client.match([{"input": url}]).results[0] for url in urls]
right = [each.decision == "match" and each.label in photo for each, photo in zip(answers, photos)]
print(json.dumps({"decision": answers[0].decision, "right": sum(right) / len(right)}))
END
