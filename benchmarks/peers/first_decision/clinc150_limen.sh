# Sentences with 150 intents: token embeddings, a gallery with calibrated thresholds, decisions over HTTP.
cp "$LIMEN_DATASETS"/encoders/wordllama_* .
printf 'preset: static\ntokenizer: wordllama_tokenizer.json\n' > wordllama.yaml
limen wrap wordllama_256.safetensors --data texts.jsonl --preprocessing wordllama.yaml --unknown-label oos \
    --target-fpir 0.03 --sample-items 5000 --out bundle
limen serve bundle --port 8766 & trap "kill $!" EXIT
until curl -sf http://127.0.0.1:8766/readyz; do sleep 0.1; done
python - > answers.json <<END
import json
from limen.client import Client
with Client("http://127.0.0.1:8766") as client:
    answers = [client.match([{"input": json.loads(row)["text"]}]).results[0] for row in open("queries.jsonl")]
print(json.dumps([each.label if each.decision == "match" else None for each in answers]))
END
