// The page of unknowns: groups are named, split, merged and dropped; what was done can be undone.
import { call, follow } from "./api.js";
import { ago, count, number, time } from "./format.js";
import { element, press, say } from "./page.js";
import { showUnknown } from "./unknown_pictures.js";

const MEMBERS = 200; // of an open group, or in none, that are shown
const pool = document.getElementById("pool");
const { kind } = pool.dataset;
const canWrite = pool.dataset.canWrite === "true";
const view = { status: "open", cursor: null };
const byId = (id) => document.getElementById(id);

async function load({ more = false } = {}) {
  const query = new URLSearchParams({ status: view.status, members: "3", limit: "60" });
  if (more && view.cursor) query.set("cursor", view.cursor);
  const answer = await call("GET", `/v1/unknowns/groups?${query}`);
  view.cursor = answer.next_cursor;
  tell(answer);
  const cards = answer.groups.map(buildGroup);
  if (more) byId("groups").append(...cards);
  else byId("groups").replaceChildren(...cards);
  byId("more").hidden = !answer.next_cursor;
  showOffered(view.status === "open" ? answer.offered : []);
  showChanges(answer.changes);
  await showAlone(answer.counts);
  pool.dataset.loaded = String(Number(pool.dataset.loaded || 0) + 1);
}

function tell({ counts }) {
  const grouped = counts.open - counts.ungrouped;
  const parts = [];
  if (!counts.open) parts.push("Nobody waits to be named.");
  else {
    parts.push(`${count(counts.open)} unknown ${counts.open === 1 ? "query waits" : "queries wait"}: ${count(grouped)} in groups, ${count(counts.ungrouped)} in none.`);
    if (!grouped) parts.push("Group them, and those that are of one class lie together.");
  }
  if (counts.enrolled) parts.push(`${count(counts.enrolled)} became items.`);
  if (counts.dropped) parts.push(`${count(counts.dropped)} were dropped.`);
  if (counts.overflowed) parts.push(`${count(counts.overflowed)} were not kept because too many came at once.`);
  byId("story").textContent = parts.join(" ");
  const button = byId("group");
  if (button) button.textContent = grouped ? "Group again" : "Group them";
}

function buildGroup(group) {
  const [first, last] = [ago(group.first_at), ago(group.last_at)];
  const span = first === last ? last : `${first} to ${last}`;
  const card = element("article", { class: "card", "data-group": group.id });
  const pile = element("button", {
    type: "button", class: "pile", "aria-expanded": "false", "aria-label": `Look at the ${group.size} of this group`,
    title: "Look at all of them", onclick: () => press(pile, () => toggle(card, group, pile)),
  }, ...group.members.slice(0, 3).map((member) => showUnknown(member, kind)));
  const near = group.members[0]?.label;
  const words = element("div", { class: "words" },
    element("h3", {}, `${count(group.size)} of a kind`),
    element("p", { class: "aside", title: `${time(group.first_at)} – ${time(group.last_at)}` }, span),
    near ? element("p", { class: "aside text" }, `nearest known: ${near}`) : null,
    canWrite && view.status === "open" ? buildNaming({ group: group.id }, card) : null);
  words.querySelector("form")?.append(element("button", {
    type: "button", class: "button small", "aria-label": "Drop this group", title: "Not interesting: hide it, and what joins it later",
    onclick: (event) => press(event.target, () => arrange({ action: "drop", group: group.id })),
  }, "Drop"));
  card.append(element("div", { class: "group-head" }, pile, words));
  return card;
}

function buildNaming(subject, card, getIds = null) {
  const input = element("input", {
    type: "text", list: "labels", placeholder: "Who or what is it?", maxlength: "512", required: true,
    "aria-label": "Name of this group", autocomplete: "off", oninput: (event) => suggest(event.target.value),
  });
  const button = element("button", { type: "submit", class: "button small primary" }, "Name");
  return element("form", {
    class: "naming",
    onsubmit: (event) => {
      event.preventDefault();
      const given = getIds ? { ids: getIds() } : subject;
      if (getIds && !given.ids.length) { say("Choose some of them first.", "bad"); return; }
      press(button, () => enroll({ ...given, label: input.value }, card));
    },
  }, input, button);
}

async function enroll(body, card) {
  const following = card?.nextElementSibling?.querySelector("input[type=text]");
  const done = await call("POST", "/v1/unknowns/enroll", body);
  const notes = [...done.notes, ...(done.left_out.length ? [`Left out, as the gallery has them as another kind: ${done.left_out.join(", ")}.`] : [])];
  const offered = done.offered.length ? ` ${done.offered.length} more match it now: confirm them above.` : "";
  const next = following?.closest("[data-group]")?.dataset.group;
  await load();
  say(`${count(done.enrolled)} are items of ${done.label} now.${offered} ${notes.join(" ")}`);
  if (next) document.querySelector(`[data-group="${next}"] form.naming input`)?.focus();
}

async function arrange(body) {
  const done = await call("POST", "/v1/unknowns/arrange", body);
  await load();
  const said = { split: "are a group of their own now", merge: "are one group now", drop: "were dropped" }[body.action];
  say(`${count(done.changed)} ${said}. It stays so when they are grouped again; it can be undone below.`);
}

async function toggle(card, group, pile) {
  const open = card.querySelector(".members");
  card.classList.toggle("open", !open);
  pile.setAttribute("aria-expanded", String(!open));
  if (open) { open.remove(); return; }
  const query = new URLSearchParams({ group: group.id, status: view.status, limit: String(MEMBERS) });
  const page = await call("GET", `/v1/unknowns?${query}`);
  const { list, getIds } = buildChooser(page.unknowns);
  const rest = group.size - page.unknowns.length;
  card.append(element("div", { class: "members" },
    element("p", { class: "caption" }, canWrite && view.status === "open"
      ? "Choose those that do not belong here, or those to name for themselves." : "All of them."),
    list,
    rest > 0 ? element("p", { class: "aside" }, `and ${count(rest)} older ones.`) : null,
    canWrite && view.status === "open" ? element("div", { class: "actions" },
      actOnChosen("Split off", getIds, (ids) => arrange({ action: "split", ids })),
      actOnChosen("Drop these", getIds, (ids) => arrange({ action: "drop", ids })),
      actOnChosen("Erase these", getIds, erase, "danger"),
      buildMerge(group),
      buildNaming({}, card, getIds)) : null));
}

function buildMerge(group) {
  const others = [...document.querySelectorAll("[data-group]")].map((card) => card.dataset.group).filter((id) => id !== group.id);
  if (!others.length) return null;
  const button = element("button", { type: "button", class: "button small", onclick: () => {
    for (const card of document.querySelectorAll("[data-group]")) {
      if (card.dataset.group === group.id || card.querySelector(".join")) continue;
      card.querySelector(".words").append(element("button", {
        type: "button", class: "button small join",
        onclick: (event) => press(event.target, () => arrange({ action: "merge", groups: [group.id, card.dataset.group] })),
      }, "This one as well"));
    }
    say("Choose the group that is the same.", "busy");
  } }, "Same as another group …");
  return button;
}

function buildChooser(unknowns) {
  const list = element("ul", { class: "pictures chooser" }, ...unknowns.map((unknown) => element("li", {},
    element("label", { title: time(unknown.at) },
      element("input", { type: "checkbox", value: unknown.id, disabled: !canWrite, "aria-label": `Choose the one of ${time(unknown.at)}` }),
      showUnknown(unknown, kind)))));
  return { list, getIds: () => [...list.querySelectorAll(":checked")].map((box) => box.value) };
}

function actOnChosen(text, getIds, act, className = "") {
  return element("button", {
    type: "button", class: `button small ${className}`,
    onclick: (event) => {
      const ids = getIds();
      if (!ids.length) { say("Choose some of them first.", "bad"); return; }
      press(event.target, () => act(ids));
    },
  }, text);
}

async function erase(ids) {
  if (!window.confirm(`Erase ${ids.length} for ever? This cannot be undone.`)) return;
  const done = await call("POST", "/v1/unknowns/delete", { ids });
  await load();
  say(`${count(done.deleted)} were erased.`);
}

function showOffered(offered) {
  const place = byId("offered");
  place.hidden = !offered.length;
  place.replaceChildren(...buildConfirmAll(offered), ...offered.map((entry) => {
    const ids = entry.unknowns.map((unknown) => unknown.id);
    const { list, getIds } = buildChooser(entry.unknowns.slice(0, 24));
    const title = element("h2", {}, `${count(entry.size)} more ${entry.size === 1 ? "is" : "are"} a match of `, element("span", { class: "text" }, entry.label));
    return element("article", { class: `card offer${entry.size > 3 ? " wide" : ""}`, "data-label": entry.label },
      element("div", { class: "words" }, title,
        element("p", { class: "caption" }, "At or above the threshold that decides now.")),
      list,
      canWrite ? element("div", { class: "actions" },
        element("button", { type: "button", class: "button primary", onclick: (event) => press(event.target, () => enroll({ ids, label: entry.label })) },
          ids.length === 1 ? "Confirm" : `Confirm all ${count(ids.length)}`),
        actOnChosen("Never these", getIds, (chosen) => reject(chosen, entry.label))) : null);
  }));
}

function buildConfirmAll(offered) {
  const size = offered.reduce((sum, entry) => sum + entry.unknowns.length, 0);
  if (!canWrite || offered.length < 2) return [];
  const ids = offered.map((entry) => [entry.label, entry.unknowns.map((unknown) => unknown.id)]);
  const confirmAll = async () => {
    for (const [label, chosen] of ids) await call("POST", "/v1/unknowns/enroll", { ids: chosen, label });
    await load();
    say(`${count(size)} are items of ${count(ids.length)} labels now; each of these steps can be undone below.`);
  };
  return [element("div", { class: "actions wide" },
    element("span", { class: "soft" }, `${count(size)} that wait are a match of ${count(offered.length)} labels by now.`),
    element("button", { type: "button", class: "button", id: "confirm-all", onclick: (event) => press(event.target, confirmAll) }, "Confirm all of them"))];
}

async function reject(ids, label) {
  for (const unknown of ids) await call("POST", "/v1/feedback", { unknown, not_label: label });
  for (const unknown of ids) byId("offered").querySelector(`input[value="${unknown}"]`)?.closest("li").remove();
  await regroup();
  say(`${count(ids.length)} are never answered with ${label} again.`);
}

function showChanges(changes) {
  const place = byId("changes");
  place.hidden = !changes.length;
  const said = { enroll: "became items of", drop: "were dropped", split: "were split", merge: "were merged" };
  place.querySelector("ul").replaceChildren(...changes.map((change) => element("li", {},
    element("span", { class: "words" }, `${count(change.size)} ${said[change.kind]} `,
      change.kind === "enroll" ? element("b", { class: "text" }, change.label) : null),
    canWrite ? element("button", { type: "button", class: "button small", onclick: (event) => press(event.target, () => undo(change)) }, "Undo") : null)));
}

async function undo(change) {
  const done = await call("POST", "/v1/unknowns/undo", { change: change.change });
  await load();
  say(`${count(done.restored)} are what they were${done.deleted ? `, and ${count(done.deleted)} items are gone` : ""}.`);
}

async function showAlone(counts) {
  const place = byId("alone");
  place.hidden = view.status !== "open" || !counts.ungrouped;
  if (place.hidden) return;
  byId("alone-about").textContent = counts.ungrouped === counts.open
    ? "They have not been grouped. Choose some to name them, or to put them into a group by hand."
    : "Nothing like them was kept. Choose some to name them, or to put them into a group by hand.";
  const page = await call("GET", `/v1/unknowns?status=open&decision=unknown&grouped=false&limit=${MEMBERS}`);
  const { list, getIds } = buildChooser(page.unknowns);
  place.querySelector(".chooser").replaceWith(list);
  place.querySelector(".chosen-actions").replaceChildren(...(canWrite ? [
    buildNaming({}, null, getIds),
    actOnChosen("Put together", getIds, (ids) => arrange({ action: "split", ids })),
    actOnChosen("Drop these", getIds, (ids) => arrange({ action: "drop", ids })),
    actOnChosen("Erase these", getIds, erase, "danger"),
  ] : []));
}

async function regroup() {
  const job = await call("POST", "/v1/unknowns/group", {});
  await follow(job, ({ status }) => { byId("job").textContent = status === "done" ? "" : "Grouping …"; });
  byId("job").textContent = "";
  await load();
}

let asked = 0;
async function suggest(text) {
  const mine = ++asked;
  await new Promise((resolve) => { setTimeout(resolve, 150); });
  if (mine !== asked || !text) return;
  try {
    const query = new URLSearchParams({ search: text, limit: "12" });
    const { classes } = await call("GET", `/v1/classes?${query}`);
    byId("labels").replaceChildren(...classes.map((entry) => element("option", { value: entry.label })));
  } catch { /* a name can be typed without help */ }
}

async function search(event) {
  event.preventDefault();
  const file = byId("search-file")?.files[0];
  const text = byId("search-input")?.value.trim();
  const id = byId("search-id").value.trim();
  let query = id.startsWith("[") ? { vector: JSON.parse(id) } : { id };
  if (file) query = { input: await readFile(file) };
  else if (text) query = { input: text };
  const answer = await call("POST", "/v1/unknowns/search", { queries: [query], k: 12 });
  const { hits } = answer.results[0];
  byId("found").replaceChildren(...hits.map((hit) => element("li", { class: hit.same ? "same" : "" },
    showUnknown(hit.unknown, kind),
    element("span", {}, `${hit.same ? "the same · " : ""}${number(hit.similarity, 3)}`), element("br"),
    element("span", { title: time(hit.unknown.at) }, ago(hit.unknown.at)))));
  const same = hits.filter((hit) => hit.same);
  if (!hits.length) say("Nothing is kept to compare with.", "bad");
  else if (same.length) say(`Here ${same.length === hits.length ? "at least " : ""}${same.length} times, last ${ago(same.map((hit) => hit.unknown.at).sort().at(-1))}.`);
  else say("Not among those that are kept; these are the nearest.");
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

if (byId("groups")) {
  byId("group")?.addEventListener("click", (event) => press(event.target, async () => { await regroup(); say("Grouped, and matched again."); }));
  byId("more").addEventListener("click", (event) => press(event.target, () => load({ more: true })));
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    press(event.target.querySelector("button"), () => search(event));
  });
  for (const button of pool.querySelectorAll("[data-status]")) {
    button.addEventListener("click", () => press(button, async () => {
      view.status = button.dataset.status;
      for (const other of pool.querySelectorAll("[data-status]")) other.setAttribute("aria-pressed", String(other === button));
      await load();
    }));
  }
  load().catch((error) => say(error.message, "bad"));
}
