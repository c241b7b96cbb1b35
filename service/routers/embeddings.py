"""``/v1/embeddings``: raw inputs to vectors, compatible with OpenAI's API and its clients."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.decisions import EmbeddingsRequest, EmbeddingsResponse
from encoder import RawInput
from service.errors.problems import INVALID_REQUEST, NO_ENCODER, build_field_problem
from service.http.bodies import OCTETS, accepts_octets, build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, describe_body, describe_problems
from service.http.resolve_references import check_count, encode_inputs
from service.state import ActiveModel, CurrentState

router = APIRouter(tags=["embed"])
# a single row of numbers is a list as well: inputs are counted once it is known which of both it is
_read_body = build_body_reader(EmbeddingsRequest, "input")
_EXAMPLES = {"an image": {"input": ["data:image/png;base64,iVBORw0KGgo..."]}}


@router.post(
    "/v1/embeddings",
    summary="Embed inputs",
    response_model=EmbeddingsResponse,
    responses=describe_problems(*BODY_STATUSES, 404),
    openapi_extra=describe_body(EmbeddingsRequest, _EXAMPLES),
)
async def embeddings(
    request: Request,
    body: Annotated[EmbeddingsRequest, Depends(_read_body)],
    active: ActiveModel,
    state: CurrentState,
) -> Response:
    """Unit vectors of inputs, in the format of OpenAI's API.

    `model` is the version of a loaded model or the name of the active bundle; the active one if left out.

    Inputs are what the encoder takes: base64 data URIs of images, texts, or feature rows. With
    `Accept: application/octet-stream` the answer is raw little-endian float32 rows.
    """
    model = state.models.select_model(body.model)
    if model.encoder is None:
        raise build_field_problem(NO_ENCODER, "input", "this bundle holds vectors and no encoder")
    inputs = _list_inputs(body)
    if body.dimensions not in {None, model.gallery.dim}:
        raise build_field_problem(
            INVALID_REQUEST, "dimensions", f"the model's vectors have {model.gallery.dim} numbers"
        )
    check_count(len(inputs), "input", state.settings)
    encoder = model.encoder.queries if body.role == "query" else model.encoder
    vectors = await encode_inputs(state.encoding, encoder, inputs, "input.{}".format)
    if accepts_octets(request):
        return Response(vectors.astype("<f4").tobytes(), media_type=OCTETS)
    preprocessing = model.encoder.preprocessing
    tokens = await state.compute.run(lambda: sum(map(preprocessing.count_tokens, inputs)), bounded=False)
    rows: list[Any] = list(vectors)
    if body.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return write_json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)],
            "model": model.manifest.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _list_inputs(body: EmbeddingsRequest) -> list[RawInput]:
    given = body.input
    if isinstance(given, str):
        return [given]
    if not given:
        raise build_field_problem(INVALID_REQUEST, "input", "at least one input is needed")
    if isinstance(given[0], float):
        return [[float(value) for value in given]]
    return list(given)
