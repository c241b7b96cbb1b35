// Lets a person try each endpoint from the page.
"use strict";
(() => {
  const key = document.getElementById("key");

  function request(card) {
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
    if (body) headers["Content-Type"] = "application/json";
    return { url: path + (text ? `?${text}` : ""), method: card.dataset.method, headers, body: body ? body.value : undefined };
  }

  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

  function curl(one) {
    const parts = ["curl", "-s", quoted(location.origin + one.url)];
    if (one.method !== "GET" && !(one.method === "POST" && one.body)) parts.push("-X", one.method);
    for (const [name, value] of Object.entries(one.headers)) parts.push("-H", quoted(`${name}: ${value}`));
    if (one.body) parts.push("-d", quoted(one.body));
    return parts.join(" ");
  }

  async function send(card) {
    const one = request(card);
    const status = card.querySelector(".status");
    const answer = card.querySelector(".answer");
    status.textContent = "…";
    const start = performance.now();
    try {
      const response = await fetch(one.url, one);
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
      await navigator.clipboard.writeText(curl(request(card)));
      event.target.textContent = "Copied";
      setTimeout(() => { event.target.textContent = "Copy as curl"; }, 1500);
    });
    card.querySelectorAll(".example").forEach((button) => button.addEventListener("click", () => {
      card.querySelector(".body").value = button.dataset.json;
    }));
  });
})();
