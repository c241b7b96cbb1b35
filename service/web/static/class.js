// The page of one class: further items.
import { call } from "./api.js";
import { element, press } from "./page.js";
import { showItem } from "./unknown_pictures.js";

const label = document.getElementById("class-items").dataset.label;
const more = document.getElementById("more");

more?.addEventListener("click", () => press(more, async () => {
  const query = new URLSearchParams({ label, cursor: more.dataset.cursor, limit: 48 });
  const page = await call("GET", `/v1/items?${query}`);
  if (page.items.length) {
    const { previews } = await call("POST", "/v1/items/previews", { ids: page.items.map((item) => item.id) });
    document.getElementById("items").append(...previews.map((preview) => element("li", {},
      element("a", { href: `/dashboard/try?id=${encodeURIComponent(preview.id)}`, title: `Ask who ${preview.id} is` }, showItem(preview)))));
  }
  if (page.next_cursor === null) more.parentElement.remove();
  else more.dataset.cursor = page.next_cursor;
}));
