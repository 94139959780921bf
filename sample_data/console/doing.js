// An action of a button or a form, followed by a look at what it changed.

import { when } from "./dom.js";
import { refresh } from "./state.js";

export function doing(element, event, action) {
  when(element, event, async (happening) => {
    try {
      await action(happening);
    } finally {
      await refresh();
    }
  });
}
