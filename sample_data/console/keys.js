// Keys that work wherever nobody is writing.

import { $ } from "./dom.js";
import { showTab } from "./tabs.js";

// A dialog that was just closed has the focus until the next frame, unseen.
const isWriting = (element) => element.checkVisibility() && element.closest("input:not([type=checkbox], [type=radio]), textarea, select, dialog[open]");

const KEYS = {
  "/": () => {
    showTab("data");
    $("find").focus();
    $("find").select();
  },
  n: () => {
    showTab("data");
    $("new-record").click();
  },
  a: () => {
    showTab("activity");
    $("log").focus();
  },
  t: () => {
    showTab("trouble");
    $("target").focus();
  },
  u: () => $("undo").hidden || $("undo").click(),
  "?": () => $("keys").showModal(),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target) || document.querySelector("dialog[open]")) return;
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("help").addEventListener("click", KEYS["?"]);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("records").focus();
});
