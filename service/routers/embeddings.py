"""``/v1/embeddings``: OpenAI's endpoint, so that its clients work unchanged."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.decisions import EmbeddingsRequest, EmbeddingsResponse
from encoder.encoder import EncoderInput
from encoder.refused_input import RefusedInput
from service.errors.problems import INVALID_REQUEST, NO_ENCODER
from service.http.bodies import OCTETS, build_body_reader, write_json_response
from service.http.openapi import BODY, problems, takes
from service.http.resolve_queries import at, check_count, refused_input
from service.state import ActiveModel, CurrentState

router = APIRouter(tags=["embed"])
_EXAMPLES = {"an image": {"input": ["data:image/png;base64,iVBORw0KGgo..."], "model": "limen"}}


@router.post(
    "/v1/embeddings",
    summary="Embed inputs",
    response_model=EmbeddingsResponse,
    responses=problems(*BODY),
    openapi_extra=takes(EmbeddingsRequest, _EXAMPLES),
)
async def embeddings(
    request: Request,
    body: Annotated[EmbeddingsRequest, Depends(build_body_reader(EmbeddingsRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Unit vectors of inputs, as the OpenAI API answers them.

    `model` picks a loaded version; any other name is served by the active one.

    Inputs are what the encoder takes: base64 data URIs of images, or feature rows. With
    `Accept: application/octet-stream` the answer is raw little-endian float32 rows.
    """
    served = state.models.loaded(body.model) or served
    encoder = served.encoder
    if encoder is None:
        raise at(NO_ENCODER, "input", "this bundle was built from vectors and has no encoder")
    inputs = _listed(body)
    if body.dimensions not in {None, served.gallery.dim}:
        raise at(INVALID_REQUEST, "dimensions", f"the model's vectors have {served.gallery.dim} numbers")
    check_count(len(inputs), "input", state.settings)
    try:
        vectors = await state.encoding.encode(encoder, inputs)
    except RefusedInput as refused:
        raise refused_input(f"input.{refused.number}", refused) from None
    if OCTETS in request.headers.get("accept", ""):
        return Response(vectors.astype("<f4").tobytes(), media_type=OCTETS)
    shown: list[Any] = list(vectors)
    if body.encoding_format == "base64":
        shown = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return write_json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(shown)],
            "model": served.manifest.name,
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
    )


def _listed(body: EmbeddingsRequest) -> list[EncoderInput]:
    given = body.input
    if isinstance(given, str):
        return [given]
    if not given:
        raise at(INVALID_REQUEST, "input", "at least one input is needed")
    if isinstance(given[0], float):
        return [[float(value) for value in given]]
    return list(given)
