// A timeline with its buttons and its words, for the console and for the stage of the demo.

import { Story } from "./story.js";
import { picture, Strip } from "./strip.js";

const SHORT = 60; // seconds
const LONG = 600;
const FOLDED = "rested-emulator-timeline-folded"; // what is stored of it

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Copy a picture, as a picture and as text; where the page may not copy, it is downloaded.
async function copy(svg) {
  const kinds = ["image/svg+xml", "text/plain"].filter((kind) => globalThis.ClipboardItem?.supports?.(kind));
  try {
    await navigator.clipboard.write([new ClipboardItem(Object.fromEntries(kinds.map((kind) => [kind, new Blob([svg], { type: kind })])))]);
    return "The picture is copied, as SVG.";
  } catch {
    const link = element("a", { href: URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })), download: "timeline.svg" });
    link.click();
    URL.revokeObjectURL(link.href);
    return "The picture is downloaded as timeline.svg.";
  }
}

// Fill a section with a timeline. What is told of goes in by `hear`, which takes what Story.hear does.
// Where it is `foldable`, the section can be one line high, and stays so.
export function openTimeline(section, { size, onChoose, foldable = false } = {}) {
  const story = new Story();
  const words = element("p", { className: "timeline-words", ariaLive: "polite" });
  const box = element("div", { className: "timeline-box" });
  const empty = element("p", { className: "timeline-empty", textContent: "Nobody has connected yet." });
  const list = element("ul", { className: "timeline-list" });
  const [told, zoom, pause] = [["In words", ""], ["10 min", "timeline"], ["Pause", "timeline"]].map(([textContent, of]) =>
    element("button", { type: "button", textContent, ariaLabel: `${textContent} ${of}`.trim(), ariaPressed: "false" }),
  );
  const save = element("button", { type: "button", textContent: "Copy picture" });
  const title = element("h2", { id: "timeline-title", textContent: "Timeline" });
  const fold = element("button", { type: "button", ariaLabel: "Show the timeline", hidden: !foldable });
  section.setAttribute("aria-labelledby", title.id);
  const bar = element("div", { className: "timeline-bar" }, fold, title, words, told, zoom, pause, save);
  const parts = element("div", { className: "timeline-parts" }, list, empty, box);
  section.replaceChildren(bar, parts);
  box.hidden = list.hidden = true;

  function setFolded(isFolded) {
    parts.hidden = told.hidden = zoom.hidden = pause.hidden = save.hidden = isFolded;
    fold.textContent = isFolded ? "▸" : "▾";
    fold.ariaExpanded = String(!isFolded);
    localStorage.setItem(FOLDED, isFolded ? "yes" : "");
  }

  if (foldable) setFolded(localStorage.getItem(FOLDED) === "yes");
  fold.addEventListener("click", () => setFolded(!parts.hidden));

  let last = ""; // the latest sentence, which stands there while nothing is pointed at
  let shown = "";
  const say = (text) => (words.textContent = words.title = text || last);
  const strip = new Strip(box, story, { size, onChoose, onWords: say });
  const press = (button, isPressed) => (button.ariaPressed = String(isPressed));
  strip.onDrag = () => press(pause, true);
  told.addEventListener("click", () => {
    press(told, list.hidden);
    list.hidden = !list.hidden;
  });
  pause.addEventListener("click", () => {
    press(pause, pause.ariaPressed !== "true");
    strip.pause(pause.ariaPressed === "true");
  });
  zoom.addEventListener("click", () => {
    press(zoom, zoom.ariaPressed !== "true");
    strip.zoom(zoom.ariaPressed === "true" ? LONG : SHORT);
  });
  save.addEventListener("click", async () => say(await copy(picture(story, strip.seen))));

  function hear(told) {
    story.hear(told);
    if (told.status) strip.setNow(told.status.uptime);
    box.hidden = story.lanes.size === 0;
    empty.hidden = !box.hidden;
    const sentences = story.sentences();
    if (sentences.join() !== shown) {
      shown = sentences.join();
      list.replaceChildren(...sentences.map((textContent) => element("li", { textContent })));
      last = sentences[0] ?? "";
      if (!strip.item) say("");
    }
    strip.redraw();
  }

  return { story, strip, hear };
}
