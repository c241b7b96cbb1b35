// Numbers and times as the pages write them.

const LOCALE = "en-GB";
const whole = new Intl.NumberFormat("en-US");

/** 12400 -> "12,400"; null -> "–". */
export function count(value) {
  return missing(value) ? "–" : whole.format(Math.round(value));
}

/** Four significant digits: 0.51234 -> "0.5123"; null -> "–". */
export function number(value, digits = 4) {
  if (missing(value)) return "–";
  return String(Number(Number(value).toPrecision(digits)));
}

/** A fraction in percent, finer where it is small: 0.0123 -> "1.23 %"; null -> "–". */
export function percent(value) {
  if (missing(value)) return "–";
  const scaled = 100 * value;
  if (scaled === 0 || scaled === 100) return `${scaled} %`;
  if (scaled > 0 && scaled < 0.001) return "< 0.001 %";
  const digits = Math.abs(scaled) >= 10 ? 1 : Math.abs(scaled) >= 1 ? 2 : 3;
  return `${Number(scaled.toFixed(digits))} %`;
}

/** Of a thousand: whole numbers from 10 on, one digit below; as the service's own sentences say it. */
export function ofThousand(rate) {
  if (missing(rate)) return "–";
  const value = 1000 * rate;
  if (value > 0 && value < 0.01) return "under 0.01";
  if (value >= 9.95) return whole.format(Math.round(value));
  return value < 0.95 ? String(Number(value.toPrecision(2))) : String(Number(value.toFixed(1)));
}

/** An ISO time in the reader's own zone: "29 Nov 2026, 22:47". */
export function time(value) {
  if (missing(value)) return "–";
  return new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short" }).format(new Date(value));
}

/** How long ago an ISO time is: "3 minutes ago". */
export function ago(value, now = Date.now()) {
  if (missing(value)) return "–";
  const seconds = (new Date(value).getTime() - now) / 1000;
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, length]) => Math.abs(seconds) >= length) || units[3];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(Math.round(seconds / size), unit);
}

/** Shorter text: the first characters, and an ellipsis. Whole characters are kept. */
export function shorten(text, most = 60) {
  const characters = Array.from(text);
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : text;
}

function missing(value) {
  return value === null || value === undefined || Number.isNaN(value);
}
