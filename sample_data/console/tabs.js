// In a narrow window the parts are tabs; in a wide one all are in sight.

import { $ } from "./dom.js";

const TABS = ["data", "activity", "people", "trouble"];
const narrow = matchMedia("(width < 1100px)");

export function showTab(name) {
  document.querySelector("main").dataset.tab = name;
  for (const one of TABS) {
    $(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    $(`tab-${one}`).tabIndex = one === name ? 0 : -1;
  }
}

function setRoles() {
  for (const one of TABS) {
    const panel = $(`panel-${one}`);
    for (const [name, value] of [["role", "tabpanel"], ["aria-labelledby", `tab-${one}`]]) {
      if (narrow.matches) panel.setAttribute(name, value);
      else panel.removeAttribute(name);
    }
  }
}

for (const one of TABS) $(`tab-${one}`).addEventListener("click", () => showTab(one));
$("tabs").addEventListener("keydown", ({ key }) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (!step) return;
  const name = TABS[(TABS.indexOf(document.querySelector("main").dataset.tab) + step + TABS.length) % TABS.length];
  showTab(name);
  $(`tab-${name}`).focus();
});
narrow.addEventListener("change", setRoles);
setRoles();
showTab("data");
