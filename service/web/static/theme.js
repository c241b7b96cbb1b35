// Light or dark theme: the system's preference, until the user chooses.
"use strict";
(() => {
  const stored = () => { try { return localStorage.getItem("limen-theme"); } catch { return null; } };
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const show = () => {
    document.documentElement.dataset.theme = stored() || system();
    document.dispatchEvent(new Event("limen-theme"));
  };
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    // on a phone the pages scroll sideways: the current one is in sight
    const current = document.querySelector("nav.pages [aria-current]");
    if (current) current.parentElement.scrollLeft = current.offsetLeft - 60;
    // what scrolls sideways can be scrolled with the keyboard
    const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => {
      const region = target.closest(".scroll");
      if (region.scrollWidth > region.clientWidth) region.setAttribute("tabindex", "0");
    }));
    document.querySelectorAll(".scroll > *").forEach((inner) => watch.observe(inner));
    document.getElementById("theme").addEventListener("click", () => {
      const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("limen-theme", next); } catch { /* storage may be unavailable in a private window */ }
      document.documentElement.dataset.theme = next;
      document.dispatchEvent(new Event("limen-theme"));
    });
  });
})();
