// Calls of the service's own API from its pages.

const csrfToken = document.querySelector("meta[name=csrf-token]")?.content || "";

/** What the service answered instead: `message` is the problem's sentence, `status` and `type` its kind. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The service answered with status ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.type = document.type || "";
    this.errors = document.errors || [];
  }
}

/**
 * Call an endpoint: `call("POST", "/v1/match", { queries })`.
 * Answers the parsed JSON (null for an empty answer); throws a Problem otherwise.
 * A session that has ended leads to the form for a key.
 */
export async function call(method, path, body, { signal } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service cannot be reached: is it still running?" });
  }
  const text = await response.text();
  const answer = text ? parse(text) : null;
  if (response.ok) return answer;
  if (response.status === 401 && csrfToken) {
    location.assign(`/dashboard/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  throw new Problem(response.status, answer || {});
}

/**
 * Wait for a background job: `await follow(job, (job) => { ... })`; the function is called at each look.
 * Answers the job once it is done; throws a Problem with its error where it failed.
 */
export async function follow(job, onLook = () => {}) {
  for (let wait = 200; ; wait = Math.min(wait * 1.5, 2000)) {
    onLook(job);
    if (job.status === "done") return job;
    if (job.status === "failed") throw new Problem(500, { detail: job.detail || "The job failed." });
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    job = await call("GET", `/v1/jobs/${encodeURIComponent(job.id)}`);
  }
}

function parse(text) {
  try { return JSON.parse(text); } catch { return {}; }
}
