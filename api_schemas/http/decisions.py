"""HTTP bodies of the endpoints that read and decide: search, match, verify, embeddings, info, health."""

from __future__ import annotations

from array import array
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AllowInfNan, ConfigDict, Field, JsonValue, model_validator

from api_schemas.base import Finite, Schema
from api_schemas.manifest import BundleCounts, IndexDescription
from api_schemas.operating_point import Aggregate, Evidence, Proof, Score, Target
from api_schemas.preprocessing import InputKind, Provider

# no Python call per element: a batch holds hundreds of thousands of them
Number = Annotated[float, AllowInfNan(False)]
# no setting goes beyond these; what one service takes is in its `limits`
MOST_NUMBERS, MOST_ELEMENTS = 65_536, 100_000


def _pack(numbers: list[float]) -> list[float]:
    """The numbers as an array of 8 bytes each, where a list takes 32."""
    return array("d", numbers)  # type: ignore[return-value]


VectorValues = Annotated[
    list[Number], Field(min_length=1, max_length=MOST_NUMBERS, fail_fast=True), AfterValidator(_pack)
]
"""A row of numbers; of a body that has been read it is an ``array``."""


def _check_storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("send text without the character NUL, which no database stores")
    return text


ItemId = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_storable)]
Filter = Annotated[
    dict[str, JsonValue],
    Field(
        description="Condition on `label` and metadata, with $eq $ne $in $nin $gt $gte $lt $lte $exists $and "
        "$or $not; $contains, and $exists, on a field of lists.",
        examples=[{"label": {"$in": ["7", "9"]}}],
    ),
]
Metadata = dict[str, JsonValue]
"""Fields: text, numbers, booleans, or lists of texts or of numbers."""
Include = Literal["metadata", "vector"]
EncoderInput = Annotated[
    str | VectorValues,
    Field(
        union_mode="left_to_right",
        description="Raw input of the encoder: a base64 data URI of an image or of a recording, a text, or "
        "a feature row.",
    ),
]


class Body(Schema):
    """A request body: unknown fields are errors, and text is not converted to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=True)


class Reference(Body):
    """One side of a comparison: exactly one of a vector, an encoder input, or the id of a stored item."""

    vector: VectorValues | None = None
    input: EncoderInput | None = None
    id: ItemId | None = None

    @model_validator(mode="after")
    def _check_exactly_one(self) -> Reference:
        if (self.vector is not None) + (self.input is not None) + (self.id is not None) != 1:
            raise ValueError("exactly one of vector, input and id is needed")
        return self


class MatchQuery(Reference):
    """A query of a match: a reference, or several vectors of one object that are decided together."""

    vectors: (
        Annotated[list[VectorValues], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)] | None
    ) = Field(
        default=None,
        description="Several vectors of one object, such as the frames of a track or a burst of photos. "
        "`beyond_proof` is true unless the operating point was made for this number (`target.vectors`).",
    )
    metadata: Metadata | None = Field(
        default=None,
        description="Kept with the query where the service keeps queries (`kept_queries` of `/v1/info`); no "
        "decision depends on it.",
    )

    @model_validator(mode="after")
    def _check_exactly_one(self) -> MatchQuery:
        given = (self.vector, self.input, self.id, self.vectors)
        if sum(value is not None for value in given) != 1:
            raise ValueError("exactly one of vector, vectors, input and id is needed")
        return self


Queries = Annotated[list[Reference], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)]
MatchQueries = Annotated[list[MatchQuery], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)]


class SearchOptions(Body):
    """Options of a search; with raw float32 rows they are in the query string."""

    k: int = Field(default=10, ge=1)
    filter: Filter | None = None
    exact: bool = Field(default=False, description="Compare with every item instead of using the index.")
    min_score: Finite | None = None
    rank_by: Literal["similarity", "score"] = "similarity"
    include: list[Include] = Field(default=["metadata"], max_length=8)
    group_by: Literal["label"] | None = Field(
        default=None,
        description="`label`: find the `k` nearest labels instead of items. Hits of one label stand "
        "together, the nearest label first; none is missed because another has many items nearby.",
    )
    group_size: int = Field(default=1, ge=1, description="With `group_by`, how many items of each label.")

    @model_validator(mode="after")
    def _check_group_size(self) -> SearchOptions:
        if self.group_size > 1 and self.group_by is None:
            raise ValueError("group_size is for searches with group_by: add group_by, or leave it out")
        return self


class SearchRequest(SearchOptions):
    """Find the ``k`` most similar items for each query; a query by id is not among its own hits."""

    queries: Queries


class Hit(Schema):
    """An item that was found. ``score`` is what the active operating point compares with its threshold."""

    id: str
    similarity: Finite
    score: Finite
    label: str
    metadata: dict[str, JsonValue] | None = None
    vector: list[Finite] | None = None


class SearchResult(Schema):
    """The hits of one query, best first, ties by id; with ``group_by`` those of one label stand together."""

    hits: list[Hit]


class SearchResponse(Schema):
    """One result per query, in the order of the queries."""

    results: list[SearchResult]
    model_hash: str
    took_ms: Finite


class MatchOptions(Body):
    """Options of a match; with raw float32 rows they are in the query string."""

    filter: Filter | None = None
    k: int = Field(default=100, ge=1)
    candidates: int = Field(
        default=1, ge=1, description="How many of the best classes to name, at most those of the `k` nearest."
    )
    aggregate: Aggregate | None = Field(
        default=None,
        description="How several items of one class make one score: the nearest of them, the mean of all, or "
        "the evidence of the class as a whole. An operating point decides by the rule it was calibrated for "
        "(`target.aggregate`), which is also the default; other rules are refused with 409.",
    )
    unknown_share: Finite | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of queries that are of no class in the gallery, which `probability` depends on; "
        "the service's setting `unknown_share` (0.5) unless given.",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Decide by the operating point that is for this group of queries (`target.group`).",
    )
    explain: bool = Field(
        default=False,
        description="Say of each answer what the score of its class is made of; for a few queries at once "
        "(`max_explained` of `limits`).",
    )
    joint: bool = Field(
        default=False,
        description="Choose the classes of all queries of the request together: queries that are near each "
        "other tend to be of one class. The point's proof says nothing of such answers: they are "
        "`beyond_proof`, and `probability` is null.",
    )
    keep: bool = Field(
        default=True,
        description="False keeps nothing of these queries, even where the service keeps unknowns.",
    )


class MatchRequest(MatchOptions):
    """Identification, 1:N, "who is this?": the best of ``k`` candidates by score is accepted or not."""

    queries: MatchQueries


class Candidate(Schema):
    """A class that a query may be of; ``id`` is its nearest item, ``score`` what the point thresholds.

    ``probability`` that the query is of it, for the two best classes; null for others.
    """

    label: str
    id: str
    score: Finite
    probability: Finite | None


class ScorePart(Schema):
    """An addend of a score: what was measured, and what it adds to the score."""

    name: str
    value: Finite
    contribution: Finite


class Explanation(Schema):
    """What the score of a class is made of: the contributions and the intercept add up to it."""

    label: str
    items: int = Field(description="Items of the class that counted.")
    best: Finite = Field(description="Similarity of the query with the nearest of them.")
    mean: Finite = Field(description="Mean similarity of the query with all of them.")
    tightness: Finite | None = Field(description="Mean similarity of two of them; null for one item.")
    intercept: Finite
    parts: list[ScorePart] = Field(
        description="`best`, `mean`, `tightness`, densities or `plda`: whatever the operating point weighs."
    )


class MatchResult(Schema):
    """The decision on one query. The best candidate is given even when the decision is "unknown".

    With the aggregates ``mean_of_class`` and ``evidence``, ``score`` is that of the class; ``id`` and
    ``similarity`` are those of its nearest item.
    """

    decision: Literal["match", "unknown"]
    label: str | None
    id: str | None
    similarity: Finite | None
    score: Finite | None
    probability: Finite | None = Field(
        description="That this answer is right: the label of a match, or that the query is of no class in "
        "the gallery. Null where the operating point has no calibration of answers."
    )
    threshold: Finite
    margin: Finite | None = Field(description="Score minus the best score of another label.")
    reason: Literal["copy"] | None = Field(
        default=None,
        exclude_if=lambda reason: reason is None,
        description="`copy`: the query is an item of the gallery, `id`, and of its class whatever that looks "
        "like. How well others are recognised, new queries tell.",
    )
    operating_point: str
    beyond_proof: bool = Field(
        description="True once the gallery has over 1.1 times the items that the point is proven for, and "
        "for a query of another number of vectors than the point was made for."
    )
    candidates: list[Candidate] = Field(
        default=[], description="The best classes, best first; the first decides."
    )
    explanation: Explanation | None = Field(
        default=None,
        exclude_if=lambda explanation: explanation is None,
        description="With `explain`; about the class in `label`.",
    )
    decision_id: str


class MatchResponse(Schema):
    """One decision per query, in the order of the queries."""

    results: list[MatchResult]
    model_hash: str
    took_ms: Finite


class Pair(Body):
    """Two sides to compare."""

    a: Reference
    b: Reference


class VerifyRequest(Body):
    """Verification, 1:1, "are these two the same?"."""

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)]


class VerifyResult(Schema):
    """The decision on one pair."""

    decision: Literal["match", "no_match"]
    similarity: Finite
    score: Finite
    probability: Finite | None
    threshold: Finite
    operating_point: str
    decision_id: str


class VerifyResponse(Schema):
    """One decision per pair, in the order of the pairs."""

    results: list[VerifyResult]
    model_hash: str
    took_ms: Finite


class EmbeddingsRequest(Body):
    """OpenAI's embeddings request; fields of later versions of it are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), strict=True)

    input: (
        str
        | Annotated[list[str], Field(max_length=MOST_ELEMENTS, fail_fast=True)]
        | Annotated[list[VectorValues], Field(max_length=MOST_ELEMENTS, fail_fast=True)]
        | VectorValues
    ) = Field(union_mode="left_to_right")
    model: str = Field(
        default="",
        max_length=512,
        description="A loaded version, or the name of the served bundle; the active model if it is left out.",
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = Field(default=None, max_length=512)
    role: Literal["query", "item"] = Field(
        default="item",
        description="Which tower embeds the inputs, of a model whose queries and items have their own.",
    )


class Embedding(Schema):
    """One unit vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[Finite] | str


class Usage(Schema):
    """What the encoder read: tokens or n-grams of texts, one for an image or a row of numbers."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsResponse(Schema):
    """OpenAI's embeddings response."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class OperatingPointSummary(Schema):
    """An operating point without its per-class rates. ``active_for`` is the endpoint that it decides now."""

    id: str
    name: str
    created_at: datetime
    score: Score
    threshold: Finite
    target: Target
    fit: Evidence
    proof: Proof | None
    active_for: Literal["match", "verify"] | None


class OperatingPointList(Schema):
    """All operating points of the model; ``reasons`` say why a point is missing."""

    operating_points: list[OperatingPointSummary]
    reasons: list[str]


class ActivePoints(Schema):
    """The operating points that decide ``/v1/verify`` and ``/v1/match`` now."""

    verify: OperatingPointSummary | None
    match: OperatingPointSummary | None
    reasons: list[str]


class Limits(Schema):
    """Limits of a request and of the load; sizes in bytes, times in seconds."""

    max_queries: int
    max_k: int
    max_explained: int
    max_monitoring_steps: int
    max_items: int
    max_body_bytes: int
    max_json_bytes: int
    max_answer_values: int
    max_answer_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    max_image_scans: int
    max_audio_bytes: int
    max_audio_seconds: int
    max_filter_depth: int
    max_filter_conditions: int
    max_filter_values: int
    max_item_fields: int
    max_gallery_fields: int
    max_field_name: int
    max_field_text: int
    max_field_values: int
    max_corrections: int
    unknowns_queue: int
    max_inflight: int
    max_inflight_per_client: int
    max_queue: int
    max_buffered_bytes: int
    max_header_bytes: int
    max_connections: int
    max_connections_per_address: int
    max_wrong_keys: int
    min_body_rate: int
    header_timeout: Finite
    keep_alive: Finite
    max_wait: Finite
    max_turn: Finite
    max_staleness: Finite
    deadline: Finite


class EncoderInfo(Schema):
    """The kind of input that the encoder takes, the shape of one input after preprocessing, and where it is
    computed; ``provider_note`` says why that is the CPU where another place was asked for."""

    kind: InputKind
    shape: list[int]
    provider: Provider = "cpu"
    provider_note: str | None = None


class KeptQueries(Schema):
    """What the service keeps of the queries of a match."""

    keep: Literal["off", "unknown", "all"]
    stores: str = Field(description="In words.")
    days: int = Field(description="After so many days a kept query is erased.")
    most: int = Field(description="Beyond so many the oldest are erased.")


class Replica(Schema):
    """How old the state of a process is, where others write to the same database."""

    change: int = Field(description="Number of the last change of the active model that is shown here.")
    lag_changes: int = Field(description="Changes that are known here and not shown yet.")
    lag_seconds: Finite = Field(
        description="Seconds since the database was last looked at and all of it shown: what was committed "
        "before that is in every answer."
    )
    waits_for: str | None = Field(
        default=None, description="A version that is active elsewhere and still being loaded here."
    )


class Info(Schema):
    """The model, the gallery, the operating points and the limits of a service."""

    name: str
    version: str
    created_at: datetime
    model_hash: str
    dim: int
    encoder: EncoderInfo | None
    index: IndexDescription
    counts: BundleCounts
    items: int = Field(description="Items in the gallery now.")
    thumbnails: int | None = Field(
        description="Pixels of the longer side of the thumbnails that are kept of items written with an "
        "image; null where nothing is kept of inputs."
    )
    read_only: bool
    operating_points: ActivePoints
    limits: Limits
    limen: str = Field(description="Version of Limen.")
    kept_queries: KeptQueries
    rebuild_error: str | None = Field(
        default=None,
        exclude_if=lambda error: error is None,
        description="Why the last background rebuild of the index failed; left out unless it did. Items and "
        "answers are as they were; it is tried again after a minute.",
    )
    replica: Replica | None = Field(
        default=None,
        exclude_if=lambda replica: replica is None,
        description="With `LIMEN_DATABASE_URL`: how old its state is, where others write to it.",
    )


class Alive(Schema):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Ready(Schema):
    """The index is loaded; ``self_recall`` is the fraction of ``probed_rows`` vectors that were found."""

    status: Literal["ready"] = "ready"
    model_hash: str
    self_recall: Finite
    probed_rows: int
    detail: str | None = Field(
        default=None,
        exclude_if=lambda detail: detail is None,
        description="What needs attention although decisions can be made; left out if nothing does.",
    )
    replica: Replica | None = Field(
        default=None,
        exclude_if=lambda replica: replica is None,
        description="With `LIMEN_DATABASE_URL`: how old its state is, where others write to it.",
    )
