// Small pieces of every page: elements, messages, buttons that wait.

/** An element: `element("td", { class: "n", title: text }, "12")`. Text is always text, never HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Say what happened, seen and read aloud: `kind` is "good", "bad" or "busy". An empty text takes it away. */
export function say(text, kind = "good", where = document.getElementById("said")) {
  where.textContent = text;
  where.className = `said said-${kind}`;
  where.hidden = !text;
}

/** Run what a button does: it waits meanwhile, and what goes wrong is said. */
export async function press(button, work, where) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    say(error.message, "bad", where);
    return undefined;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

/** The value of a JSON block of the page: `<script type="application/json" id="...">`. */
export function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
