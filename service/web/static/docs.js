// The forms of the API page: send a request, or copy it as curl.
"use strict";
(() => {
  const key = document.getElementById("key");
  const csrfToken = document.querySelector("meta[name=csrf-token]")?.content;

  function buildRequest(card) {
    let path = card.dataset.path;
    const query = new URLSearchParams();
    card.querySelectorAll(".parameter").forEach((field) => {
      if (field.dataset.in === "path") path = path.replace(`{${field.dataset.name}}`, encodeURIComponent(field.value));
      else if (field.value !== "") query.set(field.dataset.name, field.value);
    });
    const text = query.toString();
    const body = card.querySelector(".body");
    const headers = {};
    if (key.value) headers.Authorization = `Bearer ${key.value}`;
    else if (csrfToken && card.dataset.method !== "GET") headers["X-CSRF-Token"] = csrfToken;
    if (body) headers["Content-Type"] = "application/json";
    return { url: path + (text ? `?${text}` : ""), method: card.dataset.method, headers, body: body ? body.value : undefined };
  }

  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

  function writeCurl(request) {
    const { url, method, headers, body } = request;
    const parts = ["curl", "-s", quote(location.origin + url)];
    if (method !== "GET" && !(method === "POST" && body)) parts.push("-X", method);
    for (const [name, value] of Object.entries(headers)) parts.push("-H", quote(`${name}: ${value}`));
    if (body) parts.push("-d", quote(body));
    return parts.join(" ");
  }

  async function send(card) {
    const request = buildRequest(card);
    const status = card.querySelector(".status");
    const answer = card.querySelector(".answer");
    status.textContent = "…";
    const start = performance.now();
    try {
      const response = await fetch(request.url, request);
      const took = performance.now() - start;
      let text = await response.text();
      if ((response.headers.get("content-type") || "").includes("json")) text = JSON.stringify(JSON.parse(text), null, 2);
      status.textContent = `${response.status} in ${took.toFixed(0)} ms`;
      answer.textContent = text.length > 20000 ? `${text.slice(0, 20000)}\n…` : text;
    } catch (error) {
      status.textContent = "no answer";
      answer.textContent = String(error);
    }
    answer.hidden = false;
  }

  document.querySelectorAll(".operation").forEach((card) => {
    card.querySelector(".send").addEventListener("click", () => send(card));
    card.querySelector(".copy").addEventListener("click", async (event) => {
      await navigator.clipboard.writeText(writeCurl(buildRequest(card)));
      event.target.textContent = "Copied";
      setTimeout(() => { event.target.textContent = "Copy as curl"; }, 1500);
    });
    card.querySelectorAll(".example").forEach((button) => button.addEventListener("click", () => {
      card.querySelector(".body").value = button.dataset.json;
    }));
  });
})();
