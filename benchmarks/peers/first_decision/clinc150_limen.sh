# Sentences with 150 intents: token embeddings, a gallery with calibrated thresholds, decisions over HTTP.
python - <<END
import json
parts = json.load(open("$LIMEN_DATASETS/clinc150/data_full.json"))
with open("texts.jsonl", "w") as file:
    for text, label in parts["train"] + parts["oos_train"]:
        print(json.dumps({"text": text, "label": label}), file=file)
END
cp "$LIMEN_DATASETS"/encoders/wordllama_* .
printf 'preset: static\ntokenizer: wordllama_tokenizer.json\n' > wordllama.yaml
limen wrap wordllama_256.safetensors --data texts.jsonl --preprocessing wordllama.yaml --unknown-label oos --out bundle
limen serve bundle --port 8766 & trap "kill $!" EXIT
until curl -sf http://127.0.0.1:8766/readyz; do sleep 0.1; done
python - <<END
import json
from limen.client import Client
tests = json.load(open("$LIMEN_DATASETS/clinc150/data_full.json"))["test"][::45]
with Client("http://127.0.0.1:8766") as client:
    answers = [client.match([{"input": text}]).results[0] for text, _ in tests]
right = [each.decision == "match" and each.label == label for each, (_, label) in zip(answers, tests)]
print(json.dumps({"decision": answers[0].decision, "right": sum(right) / len(right)}))
END
