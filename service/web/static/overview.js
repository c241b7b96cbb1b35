// The charts of the overview.
import { call } from "./api.js";
import { draw } from "./charts.js";

try {
  await draw(await call("GET", "/dashboard/figures"));
} catch {
  document.querySelectorAll(".plot").forEach((plot) => { plot.textContent = "The charts could not be loaded."; });
}
